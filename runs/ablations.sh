#!/usr/bin/env bash
# What each part of the recipe is worth, at a size for two CPU cores: docs/ablations.md, in about three hours.
# It goes on where it was if it is interrupted and run again; --test as an argument scores on test seeds.
set -euo pipefail
cd "$(dirname "$0")/.."

verb=.venv/bin/neural-env
agent=data/take_cover_agent   # as runs/take_cover.sh collects it
random=data/take_cover_sticky # the same
sizes="--checkpoint take_cover --steps 600 --batch 16 --frames 32000"

$verb ablate level $sizes "$@"
for study in steps decoder rollout noise objective first optimiser conditioning guidance; do
    $verb ablate $study $sizes --data $agent "$@"
done
$verb ablate data $sizes --data $agent --random-data $random "$@"
$verb ablate context $sizes --data $agent --arms 4 1 8 "$@"
$verb ablate memory $sizes --data $agent --arms "4 frames" stacked "$@"
