"""Where the time of a step of N dreams goes: XLA's count of its operations against what the machine can do.

    python benchmarks/vector_throughput.py --checkpoint take_cover

Prints the table of docs/vector_throughput.md. Run nothing beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from neural_env.envs import core
from neural_env.envs.batch import Batch
from neural_env.envs.dials import Dials
from neural_env.envs.dream import Dream

ID = "neural_env:NeuralDoom-v0"


@dataclass(frozen=True)
class ThroughputConfig:
    """Measure one step of N dreams, for several N."""

    checkpoint: str = "take_cover"
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rounds: int = 15  # of each; the median counts
    matmul: int = 2048  # side of the square matrices that the peak is measured with


def main(config: ThroughputConfig) -> None:
    """Prints the table."""
    peak = matmul_peak(config.matmul, config.rounds)
    print(f"f32 matrix product of {config.matmul}: {peak / 1e9:.0f} GFLOP/s, on {jax.devices()[0].device_kind}\n")
    print("| N | ms a step | env-steps/s | of N = 1 | GFLOP a dream | GFLOP/s | of the matrix product |")
    print("|---|---|---|---|---|---|---|")
    dream, first = Dream(config.checkpoint), 0.0
    for size in config.sizes:
        flops, seconds = cost_of_a_step(dream, size, config.rounds)
        rate = size / seconds
        first = first or rate
        print(
            f"| {size} | {1e3 * seconds:.1f} | {rate:.1f} | {rate / first:.2f} | {flops / size / 1e9:.2f} "
            f"| {flops / seconds / 1e9:.0f} | {flops / seconds / peak:.0%} |"
        )
    compare(config)


def compare(config: ThroughputConfig) -> None:
    """Prints what the user sees by XLA: 16 dreams of `make_vec`, and a single environment stepped 16 times in turn."""
    single = gym.make(ID, checkpoint=config.checkpoint, num_steps=1, termination="never", runtime="xla")
    many = gym.make_vec(ID, num_envs=16, checkpoint=config.checkpoint, num_steps=1, termination="never", runtime="xla")
    for env in (single, many):
        env.reset(seed=0)
    noops = np.zeros(16, np.int64)
    in_turn, at_once = [], []
    for _ in range(config.rounds):  # alternating, so that what else the machine does falls on both
        in_turn.append(16 * median_seconds(lambda: single.step(0), 3))
        at_once.append(median_seconds(lambda: many.step(noops), 1))
    rates = [16 / float(np.median(seconds)) for seconds in (in_turn, at_once)]
    print(f"\n16 in turn {rates[0]:.1f}, 16 at once {rates[1]:.1f} env-steps/s: {rates[1] / rates[0]:.2f} times")
    single.close()
    many.close()


def cost_of_a_step(dream: Dream, size: int, rounds: int) -> tuple[float, float]:
    """Floating-point operations of a step of N dreams, as XLA counts them before it optimises, and seconds it takes."""
    dials, actions = Dials().on_host(), np.zeros(size, np.int32)

    def step(world: Any, carries: core.Carry) -> core.Step:
        return jax.vmap(lambda carry: core.advance(world, carry, jnp.int32(0), dials))(carries)

    batch, rng = Batch(dream, size), np.random.default_rng(0)
    batch.place({i: dream.begin(rng, None) for i in range(size)})
    flops = jax.jit(step).lower(dream.world, batch.carries).cost_analysis()["flops"]
    return flops, median_seconds(lambda: batch.step(actions, dials), rounds)


def matmul_peak(side: int, rounds: int) -> float:
    """FLOP/s of a large float32 matrix product: what a convolution can at best come near to."""
    matrix = jnp.ones((side, side), jnp.float32)
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / median_seconds(lambda: product(matrix, matrix).block_until_ready(), rounds)


def median_seconds(run: Callable[[], Any], rounds: int) -> float:
    """Of one call, the first not counted."""
    run()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


if __name__ == "__main__":
    main(tyro.cli(ThroughputConfig))
