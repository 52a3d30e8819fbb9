#!/usr/bin/env bash
# A world from nothing, unattended: random play -> agent -> its play -> auto-encoder -> denoiser -> outcome -> roll-outs
# -> distillation -> decoder -> bundle -> evaluation, within a budget of minutes:
#
#     runs/world.sh take_cover small 25 [--out FOLDER] [whatever `neural-env world --help` lists]
#
# It works in slices of at most 9 minutes, each a process of its own; killed at any point and run again, it goes on.
# An agent in runs/agents/SCENARIO is used; where there is none, one is trained.
#
# On a machine that is lent for one slice at a time and keeps nothing, set CARRY to a folder that goes along. One slice
# is made; status 75 says that more are to come. The folder then holds carry.json and files carry-000, carry-001, ... of
# at most 16 MB: progress.json, the weights of the stages that are done, the training state of the one that isn't, and
# the world once it is bundled. Episodes are played again from their seeds, latents encoded again. Without a network:
#
#     make wheelhouse PYTHON=3.12      # before, elsewhere
#     python3 -m pip install --no-index --no-deps --target /tmp/site wheelhouse/*.whl
#     CARRY=carry PYTHONPATH=/tmp/site runs/world.sh take_cover small 25
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 3 ]; then
    echo "usage: runs/world.sh SCENARIO PRESET BUDGET_MINUTES [options of neural-env world]" >&2
    exit 2
fi
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
options=(--slice-minutes "${SLICE_MINUTES:-9}")
if [ -n "${CARRY:-}" ]; then
    options+=(--carry "$CARRY")
fi
while true; do
    status=0
    "$python" -m neural_env.cli world "$@" "${options[@]}" || status=$?
    if [ $status -ne 75 ] || [ -n "${CARRY:-}" ]; then
        exit $status
    fi
done
