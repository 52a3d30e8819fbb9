"""Environment steps a second while an agent plays real games: by worker count, without and with the policy between.

"games alone" tells what the engines give; "one group" adds the `fast` policy, which waits for all games and lets them
wait for it; "two groups" steps one half of the games while the policy looks at the other; "recorded" keeps all frames.
"""

from __future__ import annotations

import os

import jax
import numpy as np
import pytest

from neural_env.agents.games import Games, GamesConfig
from neural_env.agents.host import HostPlayer
from neural_env.agents.player import new_policy
from neural_env.agents.ppo import initial_state, preset_named

FAST = preset_named("fast")
WORKERS = [n for n in (1, 2, 4, 8, 16) if n <= max(2, os.cpu_count() or 1)]
KINDS = {"one group": (1, False), "two groups": (2, False), "two groups, recorded": (2, True)}


def config(workers):
    return GamesConfig(scenario="take_cover", games=FAST.ppo.games, workers=workers, reward="gamengen")


def report(benchmark, workers, steps):
    benchmark.extra_info["workers"] = workers
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["env_steps_per_s"] = steps / benchmark.stats.stats.median


@pytest.mark.parametrize("workers", WORKERS)
def test_games_alone(benchmark, workers):
    with Games(config(workers)) as games:
        actions = np.random.default_rng(0).integers(3, size=(100, FAST.ppo.games)).astype(np.int32)

        def play():
            for row in actions:
                games.send(row)
                games.receive()

        benchmark.pedantic(play, rounds=5, warmup_rounds=1)
    report(benchmark, workers, actions.size)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_games_with_the_policy(benchmark, kind, workers):
    groups, record = KINDS[kind]
    policy = new_policy(FAST.policy, config(workers).game)
    params = initial_state(policy, FAST.ppo).params
    with Games(config(workers)) as games:
        player = HostPlayer(games, policy, FAST.ppo, record=record, groups=groups)
        benchmark.pedantic(player.rollout, (params, jax.random.key(0), 0, None), rounds=5, warmup_rounds=1)
    report(benchmark, workers, FAST.ppo.transitions)
