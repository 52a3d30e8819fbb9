#!/usr/bin/env bash
# How many real frames does it take? A world, and the danger in it, from nothing but 1,000 games of random play: 79,596
# frames, of which 63,285 are for training and 8,579 for validation. Beside planning in it, PPO that learns the real game
# from as many as all of them. About an hour and a half on two CPU cores; docs/transfer.md has what came of it.
set -euo pipefail
cd "$(dirname "$0")/.."

verb=.venv/bin/neural-env
data=data/take_cover_few
run=out/few
events="--uniform 0.55 --events 0.45 --lead 6 --kinds damage death"

$verb collect --scenario take_cover --repeat 0.85 --episodes 1000 --workers 2 --out $data
$verb train autoencoder --data $data --out $run --steps 600 --seed 21 # 15 minutes beside other work
$verb train denoiser --data $data --out $run --steps 3500 --seed 21 --clip 10 $events # 28 minutes
$verb train danger --data $data --out $run --steps 1500 --seed 21  # 5 minutes
$verb train outcome --data $data --out $run --steps 1000 --seed 21 # 3 minutes
$verb bundle --data $data --run $run --out $run/world
$verb evaluate planning --checkpoint $run/world --danger-from $run --json $run/planning.json # 9 minutes

ppo=out/agents/take_cover_few
$verb train agent --preset fast --reward scenario --scenario take_cover --total-steps 79596 --out $ppo # 2 minutes
$verb evaluate agent --agent $ppo --episodes 100 --json $ppo/score.json
