"""Real games side by side. Each engine is a process of its own, and ViZDoom lets go of Python's lock while it waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from neural_env.runtime import usable_cores

T = TypeVar("T")


def in_threads(call: Callable[[int], T], rows: Sequence[int]) -> list[T]:
    """`call` of each row, as many at a time as there are cores; results in order, the first error is raised."""
    if len(rows) < 2:
        return [call(row) for row in rows]
    with ThreadPoolExecutor(min(len(rows), usable_cores())) as pool:
        return list(pool.map(call, rows))
