#!/usr/bin/env bash
# The whole recipe of the bundled world `defend_the_center`: three and a half hours on two CPU cores.
# Every line goes on where it was if it is interrupted and run again.
set -euo pipefail
cd "$(dirname "$0")/.."

world=${1:-neural_env/checkpoints/defend_the_center}
verb=.venv/bin/neural-env

agent=data/defend_the_center_agent   # 300 episodes of runs/agents/defend_the_center, 101k frames
random=data/defend_the_center_sticky # 500 of sticky random play, 43k frames
ppo=data/ppo_defend_the_center       # all that the agent's own training recorded, from its first clumsy game on
run=out/defend_the_center
$verb collect --scenario defend_the_center --policy runs/agents/defend_the_center --episodes 300 --workers 2 --out $agent
$verb collect --scenario defend_the_center --episodes 500 --workers 2 --out $random
$verb train agent --preset fast --reward scenario --scenario defend_the_center --total-steps 450000 \
    --record $ppo --out out/agents/defend_the_center # 13 minutes

all="--data $agent $random $ppo --max-frames-per-dataset 60000 --out $run" # 151k training frames
$verb train autoencoder $all --steps 1300 --seed 1                        # 13 minutes
$verb train denoiser $all --steps 7000 --seed 1 --learning-rate 1e-3 \
    --uniform 0.6 --events 0.4 --lead 6 --kinds kill damage death         # 57 minutes, 12 of them for encoding
$verb train outcome $all --steps 2000 --seed 1                            # 7 minutes
$verb train sampler $all --windows 128 --sigma-lasts 0.02 0.5 1.0 1.5 2.0 # 2 minutes
$verb train decoder $all --steps 700 --seed 1 --max-minutes 6             # which made 650 of them
$verb bundle --data $agent $random $ppo --max-frames-per-dataset 60000 --run $run --starts 16 --out $run/world

# Then the denoiser goes on with Muon, half of it where its sampler begins, which the training before had not.
last=out/defend_the_center_last
more=data/defend_the_center_more # 500 more of sticky random play: 189k frames in all
both="--data $agent $random $more --out $last"
$verb collect --scenario defend_the_center --episodes 500 --first-seed 500 --workers 2 --out $more
$verb train autoencoder $both --init-from $run/world --steps 0 # as it is
$verb train denoiser $both --init-from $run/world --steps 6000 --seed 2 --optimiser muon --learning-rate 6e-4 \
    --warmup 100 --clip 10 --uniform 0.55 --events 0.45 --lead 6 --kinds kill damage death
$verb train outcome $both --init-from $run/world --steps 0               # as it is
$verb train sampler $both --windows 128 --sigma-lasts 0.5 1.0 2.0 3.0    # 2 minutes
$verb bundle --data $agent $random $more --run $last --starts 16 --out "$world"
$verb evaluate world --checkpoint "$world" --episodes 40 --rollouts 64 \
    --policies sticky_random runs/agents/defend_the_center --out $last/report --write

# And an agent that learns in it only: runs/agents/defend_the_center_dreamed.
dreamed=out/defend_the_center_dreamed
$verb train dream-agent --checkpoint "$world" --data $agent --starts 4096 --horizon 10 --runtime openvino \
    --total-steps 60000 --snapshots 4 --validation-games 10 --out $dreamed # 5 minutes
$verb evaluate agent --agent $dreamed --episodes 100 --json $last/dreamed.json
$verb evaluate agent --agent runs/agents/defend_the_center --episodes 100 --json $last/learned_in_the_real_game.json
$verb evaluate card --report $last/report --recipe runs/defend_the_center.sh \
    --played $last/dreamed.json $last/learned_in_the_real_game.json
