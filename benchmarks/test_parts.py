"""Where the time of one step goes: U-Net, sampler, heads, decoder, the compiled whole, Python and Gymnasium around it.

`of_f32_peak` in the extra columns is the share of a large float32 matrix product's rate, measured in the same run.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from neural_env import checkpoint
from neural_env.bench.clock import matmul_peaks
from neural_env.bench.parts import parts_of
from neural_env.envs.dials import Dials
from neural_env.envs.dream import Dream

PARTS = (
    *("U-Net, once", "sampler without its U-Net", "reward, end, variables", "decoder", "the whole step"),
    *("with its arrays on the host", "env.unwrapped.step", "env.step"),
)


@pytest.fixture(scope="module")
def parts():
    return parts_of(checkpoint.load("take_cover").world)


@pytest.fixture(scope="module")
def peaks():
    return matmul_peaks(1.0)


def on_host():
    """`Dream.advance`: what the environment calls."""
    dream, dials = Dream("take_cover"), Dials()
    carry = [dream.place(dream.begin(np.random.default_rng(0), None))]

    def run():
        _, after = dream.advance(carry[0], 0, dials)
        carry[0] = after.state
        return float(after.reward), np.asarray(after.info.variables)

    return run


def stepping(wrapped):
    env = gym.make("neural_env:NeuralDoom-v0", runtime="xla", termination="never", max_episode_steps=-1)
    env = env if wrapped else env.unwrapped
    env.reset(seed=0)
    return lambda: env.step(np.int64(0))


@pytest.mark.parametrize("name", PARTS)
def test_part(benchmark, parts, peaks, name):
    others = {
        "with its arrays on the host": on_host,
        "env.unwrapped.step": lambda: stepping(False),
        "env.step": lambda: stepping(True),
    }
    run = others[name]() if name in others else parts[name].run
    benchmark.pedantic(run, rounds=60, warmup_rounds=2)
    if name in parts and benchmark.stats is not None:  # None under --benchmark-disable
        rate = parts[name].flops / benchmark.stats.stats.median
        benchmark.extra_info.update(gflop=parts[name].flops / 1e9, of_f32_peak=rate / peaks["float32"])
