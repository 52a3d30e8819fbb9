"""Environment steps a second: N dreams in one compiled program, and N single environments in turn."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest


@pytest.mark.parametrize("num_envs", [1, 4, 16])
@pytest.mark.parametrize("kind", ["batched", "in turn"])
def test_vector(benchmark, kind, num_envs):
    mode = "vector_entry_point" if kind == "batched" else "sync"
    env = gym.make_vec(
        "neural_env:NeuralDoom-v0",
        num_envs,
        vectorization_mode=mode,
        runtime="xla",
        **({} if kind == "in turn" else {"max_episode_steps": -1}),
    )
    actions = np.zeros(num_envs, np.int64)
    env.reset(seed=0)
    env.step(actions)  # compiles
    benchmark.pedantic(env.step, args=(actions,), rounds=30)
    benchmark.extra_info["num_envs"] = num_envs
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["env_steps_per_s"] = num_envs / benchmark.stats.stats.median
    env.close()
