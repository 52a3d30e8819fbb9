"""How long a step takes: the dream, by runtime and number of denoising steps, and the real game on the same cores."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from neural_env.runtime import available

KINDS = {
    **{
        f"dream, {runtime}, {steps} {'step' if steps == 1 else 'steps'}": (
            "neural_env:NeuralDoom-v0",
            {"num_steps": steps, "runtime": runtime},
        )
        for runtime in available("cpu")
        for steps in (1, 2, 4)
    },
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
