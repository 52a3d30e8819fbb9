#!/usr/bin/env bash
# What each part of the recipe is worth, at a size for two CPU cores: docs/ablations.md, in about three and a half hours.
# It goes on where it was if it is interrupted and run again; --test as an argument scores on test seeds.
set -euo pipefail
cd "$(dirname "$0")/.."

agent=data/take_cover_agent   # as runs/take_cover.sh collects it
random=data/take_cover_sticky # the same

split=$([ "${1:-}" = --test ] && echo test || echo validation)

study() {
    .venv/bin/neural-env ablate "$@" --checkpoint take_cover --steps 600 --batch 16 --frames 32000
    cp "out/ablations/$1/$split/table.md" "docs/ablations/$1.md" # what docs/ablations.md shows
    cp "out/ablations/$1/$split/plot.png" "docs/ablations/$1.png"
}
# Those of the paper.
study level "$@"
study steps --data $agent "$@"
study noise --data $agent --seeds 0 1 2 "$@"
study objective --data $agent "$@"
study data --data $agent --random-data $random "$@"
study context --data $agent --arms 4 1 2 "$@"
# Those of what came after it.
for name in rollout decoder conditioning; do
    study $name --data $agent "$@"
done
study guidance --data $agent --arms "no dropout" "dropout, weight 1" "dropout, weight 1.5" "$@"
study memory --data $agent --arms "4 frames" stacked "$@"
study first --data $agent "$@"
study optimiser --data $agent "$@"
