#!/usr/bin/env bash
# The whole recipe of the bundled world `take_cover`: about six and a half hours on two CPU cores.
# Every line goes on where it was if it is interrupted and run again.
# Of the bundled world's denoiser, the first two trainings were made before EDM had a share `first`.
set -euo pipefail
cd "$(dirname "$0")/.."

world=${1:-neural_env/checkpoints/take_cover}
verb=.venv/bin/neural-env

# First a world of random play alone: seeds 0 to 999, 90k frames.
data=data/take_cover
first=out/take_cover_random
$verb collect --scenario take_cover --episodes 1000 --workers 2 --out $data # 25 seconds
$verb train autoencoder --data $data --out $first # 23 minutes
$verb train denoiser --data $data --out $first    # 52 minutes
$verb train outcome --data $data --out $first     # 3 minutes; only for a whole world to begin from
$verb bundle --data $data --run $first --out $first/world

# From it, one that has also seen a trained agent play, which dodges fireballs and lives longer.
agent=data/take_cover_agent   # 400 episodes of runs/agents/take_cover, 107k frames
random=data/take_cover_sticky # 400 of sticky random play, 37k frames
ppo=data/ppo_take_cover       # all that the agent's own training recorded, 551k frames: for its many deaths
run=out/take_cover
$verb collect --scenario take_cover --policy runs/agents/take_cover --episodes 400 --workers 2 --out $agent
$verb collect --scenario take_cover --episodes 400 --workers 2 --out $random
$verb train agent --preset fast --reward scenario --scenario take_cover --total-steps 550000 \
    --record $ppo --out out/agents/take_cover # 26 minutes
both="--data $agent $random --out $run"
$verb train autoencoder $both --init-from $first/world --steps 0 # as it is
$verb train denoiser $both --init-from $first/world --steps 7500 --seed 11 --learning-rate 6e-4 --warmup 300 \
    --uniform 0.65 --events 0.35 # 77 minutes
$verb train outcome --data $agent $random $ppo --max-frames-per-dataset 150000 --out $run --seed 11 # 25 minutes
$verb train sampler $both --windows 128 --sigma-lasts 0.02 0.5 1.0 1.5 2.0                          # 2 minutes
$verb train decoder $both --steps 1000 --seed 11 --max-minutes 6 # which made 700 of them
$verb bundle --data $agent $random --run $run --out $run/world

# Then the denoiser goes on, on clumsy play too, on windows that lead to damage, with Muon.
last=out/take_cover_last
all="--data $agent $random $ppo --max-frames-per-dataset 150000 --out $last"
$verb train autoencoder $all --init-from $run/world --steps 0 # as it is
$verb train denoiser $all --init-from $run/world --steps 4600 --seed 12 --optimiser muon --learning-rate 6e-4 \
    --warmup 100 --clip 10 --uniform 0.55 --events 0.45 --lead 6 --kinds damage death # 37 minutes
$verb train outcome $all --init-from $run/world --steps 0                  # as it is
$verb train sampler $all --windows 128 --sigma-lasts 0.5 1.0 2.0 3.0       # 2 minutes
$verb bundle --data $agent $random $ppo --max-frames-per-dataset 150000 --run $last --out $last/world

# And once more, on more random play. The outcome model learns from many more deaths: of random play that keeps its
# actions for longer, and of the agent's.
again=out/take_cover_again
more=data/take_cover_more             # 1000 episodes of sticky random play, 89k frames
runs=data/take_cover_runs             # 6000 that repeat an action with 0.85, 478k
agent_more=data/take_cover_agent_more # 1600 of runs/agents/take_cover, 420k
$verb collect --scenario take_cover --episodes 1000 --first-seed 400 --workers 2 --out $more
$verb collect --scenario take_cover --repeat 0.85 --episodes 6000 --first-seed 1400 --workers 2 --out $runs
$verb collect --scenario take_cover --policy runs/agents/take_cover --episodes 1600 --first-seed 7400 --workers 2 \
    --out $agent_more
all="--data $agent $random $more"
$verb train autoencoder $all --out $again --init-from $last/world --steps 0 # as it is
$verb train denoiser $all --out $again --init-from $last/world --steps 6000 --seed 13 --optimiser muon \
    --learning-rate 6e-4 --warmup 100 --clip 10 --uniform 0.55 --events 0.45 --lead 6 --kinds damage death # 37 minutes
$verb train sampler $all --out $again --windows 128 --sigma-lasts 0.5 1.0 2.0 3.0 # 1 minute
# Of these steps the bundled world had made 3500 before it was shown $agent_more, and 6500 with another loss of `foreseen`.
$verb train outcome $all $runs $agent_more --out $again --init-from $last/world --seed 13 --steps 8500 # 30 minutes, 15 to encode
$verb bundle $all $runs $agent_more --run $again --out "$world"
$verb evaluate world --checkpoint "$world" --episodes 50 --rollouts 128 --policies sticky_random runs/agents/take_cover \
    --out $again/report --write

# For its agents and for planning in it: how soon the player is hurt. A copy lies in runs/danger/take_cover.
$verb train danger $all $runs $agent_more --out $again --seed 13 # 5 minutes

# And an agent that imitates planning in it, first at moments of recorded games, then of its
# own: runs/agents/take_cover_dreamed. It was made with the first 3000 episodes of $runs; of 40960 starts the first 18688.
planned=out/planned
own=data/planned_games
learn="--checkpoint $world --gamma 0.95 --damage 1 --danger-from $again --danger 50 --plan 3 --runtime openvino"
moments="--uniform 0.5 --events 0.5 --kinds damage death --reach 1 --lead 12"
$verb train dream-agent $learn $moments --data $agent $runs --starts 18688 --out $planned # 25 minutes
$verb collect --scenario take_cover --policy $planned --episodes 400 --first-seed 20000 --workers 2 --out $own
$verb train dream-agent $learn $moments --data $own --starts 12288 --init-from $planned --validation-games 60 \
    --out out/planned_again # 15 minutes
$verb evaluate agent --agent out/planned_again --episodes 100 --json $again/dreamed.json
$verb evaluate planning --checkpoint "$world" --danger-from $again --json $again/planning.json # 19 minutes
$verb evaluate agent --agent runs/agents/take_cover --episodes 100 --json $again/learned_in_the_real_game.json
$verb evaluate card --report $again/report --recipe runs/take_cover.sh \
    --played $again/dreamed.json $again/planning.json $again/learned_in_the_real_game.json
