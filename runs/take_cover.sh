#!/usr/bin/env bash
# The whole recipe of the bundled world `take_cover`: about an hour and a half on two CPU cores.
# Every line goes on where it was if it is interrupted and run again.
set -euo pipefail
cd "$(dirname "$0")/.."

data=data/take_cover # 1000 episodes, 90k frames, 0.6 GB: seeds 0 to 999, those ending in 0 are for testing only
run=out/take_cover
world=${1:-neural_env/checkpoints/take_cover}
verb=.venv/bin/neural-env

$verb collect --scenario take_cover --episodes 1000 --workers 2 --out $data # 25 seconds
$verb train autoencoder --data $data --out $run # 23 minutes
$verb train denoiser --data $data --out $run    # 52 minutes
$verb train outcome --data $data --out $run     # 3 minutes
$verb bundle --data $data --run $run --out "$world"
$verb evaluate world --checkpoint "$world" --episodes 50 --rollouts 128 --pictures docs/pictures --write
