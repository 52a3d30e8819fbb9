#!/usr/bin/env bash
# The whole recipe of the bundled world `health_gathering`: an hour and a half on two CPU cores, from nothing.
# Every line goes on where it was if it is interrupted and run again.
set -euo pipefail
cd "$(dirname "$0")/.."

world=${1:-neural_env/checkpoints/health_gathering}
made=out/worlds/health_gathering-small
verb=.venv/bin/neural-env
# There was no agent: it trained the one that lies in runs/agents/health_gathering, 14 of these minutes.
runs/world.sh health_gathering small 85
$verb quantise --checkpoint $made/world --out "$world"
$verb evaluate world --checkpoint "$world" --episodes 40 --rollouts 64 \
    --policies sticky_random runs/agents/health_gathering --out $made/shipped --write # 6 minutes
$verb evaluate card --report $made/shipped
