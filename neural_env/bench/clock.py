"""Seconds: of calls in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from neural_env.runtime import usable_cores

CORES = usable_cores()
_LEAST_ROUNDS = 5


def in_turn(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median seconds of each call; each must return when its work is done.

    All are called once beforehand, which compiles them, and then one after another, round after round, for `seconds` of
    each on average, five rounds at least.
    """
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    rounds = 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
        rounds += 1
    return {name: float(np.median(values)) for name, values in taken.items()}


def in_turns(*runs: Callable[[], Any], rounds: int = 12, calls: int = 8) -> npt.NDArray[Any]:
    """Seconds of each call, `[rounds, runs, calls]`: for what `in_turn` would measure the other's threads with.

    A few calls a turn, of which the first doesn't count: nobody uses two runtimes at once, and the threads of the one
    spin for a while after each call, on the cores of the other. Whose turn is first changes from round to round.
    """
    taken = np.zeros((rounds, len(runs), calls))
    for run in runs:
        run()
    for number in range(rounds):
        for place in np.roll(np.arange(len(runs)), number):
            runs[place]()
            for call in range(calls):
                began = time.perf_counter()
                runs[place]()
                taken[number, place, call] = time.perf_counter() - began
    return taken


def matrix_products(side: int = 2048) -> dict[str, Callable[[], Any]]:
    """Products of two square matrices, by type: what a convolution can at best come near to."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(jnp.matmul)

    def of(kind: Any) -> Callable[[], Any]:
        matrix = jnp.ones((side, side), kind)
        return lambda: product(matrix, matrix).block_until_ready()

    return {"float32": of(jnp.float32), "bfloat16": of(jnp.bfloat16)}


def matmul_peaks(seconds: float, side: int = 2048) -> dict[str, float]:
    """FLOP/s of a large matrix product, by type."""
    return {kind: 2 * side**3 / median for kind, median in in_turn(matrix_products(side), seconds).items()}
