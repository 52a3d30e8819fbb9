"""Randomness of a wrapper's own, from the environment's seed and apart from the environment's stream.

A wrapper that drew from `env.np_random` would change the episodes that it only wants to watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

Stream = np.random.Generator
_BITS = 2**128  # NumPy's seeds aren't negative; -1 is Gymnasium's for a generator that was set by hand


def stream_of(env: gym.Env[Any, Any], seed: int | None, current: Stream | None, name: str) -> Stream:
    """The stream to go on with at a reset: a new one if a seed is given, or if there is none yet.

    Args:
        env: whose seed counts where none is given.
        seed: of the reset.
        current: the stream so far.
        name: the wrapper's, so that two wrappers draw apart from each other.
    """
    if seed is None and current is not None:
        return current
    return _stream(env.unwrapped.np_random_seed if seed is None else seed, name)


def streams_of(
    env: gym.vector.VectorEnv[Any, Any, Any],
    seed: int | Sequence[int | None] | None,
    current: Sequence[Stream] | None,
    name: str,
) -> list[Stream]:
    """`stream_of` for each of N environments; a whole number seeds the i-th with `seed + i`."""
    seeds = seeds_of_each(seed, env.num_envs)
    own = env.unwrapped.np_random_seed if current is None else ()
    streams = []
    for i, number in enumerate(seeds):
        if number is None and current is not None:
            streams.append(current[i])
        else:
            streams.append(_stream(own[i] if number is None else number, name))  # type: ignore[index]
    return streams


def seeds_of_each(seed: int | Sequence[int | None] | None, size: int) -> list[int | None]:
    """A vector environment's seeds, one for each of its rows, as Gymnasium deals them out."""
    if seed is None:
        return [None] * size
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + i for i in range(size)]
    return list(seed)


def _stream(seed: Any, name: str) -> Stream:
    return np.random.default_rng([int(seed) % _BITS, *name.encode()])
