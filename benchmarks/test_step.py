"""How long a step takes: the dream by XLA, by its number of denoising steps, and the real game on the same cores."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

KINDS = {
    "dream, 1 step": ("neural_env:NeuralDoom-v0", {"num_steps": 1, "runtime": "xla"}),
    "dream, 2 steps": ("neural_env:NeuralDoom-v0", {"num_steps": 2, "runtime": "xla"}),
    "dream, 4 steps": ("neural_env:NeuralDoom-v0", {"num_steps": 4, "runtime": "xla"}),
    "real game": ("neural_env:RealDoom-v0", {"scenario": "take_cover"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_step(benchmark, kind):
    name, kwargs = KINDS[kind]
    env = gym.make(name, **kwargs)
    env.reset(seed=0)
    env.step(np.int64(0))  # compiles

    def step():
        _, _, terminated, truncated, _ = env.step(np.int64(0))
        return terminated or truncated

    def playing():
        env.reset()

    assert benchmark.pedantic(step, setup=playing, rounds=50) in (True, False)
    env.close()
