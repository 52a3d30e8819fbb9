"""Estimates with the uncertainty of the episodes they come from.

Steps of an episode are alike, so whole groups (episodes, or dreams) are drawn with replacement (Efron 1979, clustered).
The draws depend on the number of groups alone. So two estimates from the same groups are drawn alike, and the
difference of their replicates is the replicate of their difference: a paired comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number, and what it would have been with other episodes."""

    value: float
    replicates: np.ndarray  # [RESAMPLES] float64, NaN where the draw defines no value
    groups: int  # that were drawn from; a single one says nothing of the others: the interval is NaN

    @property
    def low(self) -> float:
        """Where the 95 % interval begins (percentiles)."""
        return self._quantile(0.025)

    @property
    def high(self) -> float:
        """Where it ends."""
        return self._quantile(0.975)

    def _quantile(self, share: float) -> float:
        known = self.replicates[np.isfinite(self.replicates)]
        return float(np.quantile(known, share)) if self.groups > 1 and len(known) else float("nan")

    def __sub__(self, other: Estimate) -> Estimate:
        """The paired difference, if both were drawn from the same groups."""
        groups = min(self.groups, other.groups)
        return Estimate(self.value - other.value, self.replicates - other.replicates, groups)

    def mapped(self, function: Callable[[Any], Any]) -> Estimate:
        """A function, of numbers and of arrays, of the estimate."""
        return Estimate(float(function(self.value)), np.asarray(function(self.replicates)), self.groups)

    def record(self) -> dict[str, float | None]:
        """As JSON has it: no NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if np.isfinite(x) else None for name, x in numbers.items()}


def mean(values: np.ndarray, groups: np.ndarray) -> Estimate:
    """The mean of values [m], of which each belongs to the group of that number [m]."""
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    draws = _draws(len(counts))
    return Estimate(float(np.mean(values, dtype=np.float64)), (draws @ sums) / (draws @ counts), len(counts))


def statistic(function: Callable[[np.ndarray], float], groups: np.ndarray, resamples: int = RESAMPLES) -> Estimate:
    """Any function of rows: it gets the numbers of the rows drawn, and returns NaN where they define no value.

    With less than `RESAMPLES` resamples, for what is slow to compute, pairs need as many on both sides.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    replicates = [
        function(np.concatenate([rows for rows, times in zip(members, draw, strict=True) for _ in range(times)]))
        for draw in _draws(len(members))[:resamples]
    ]
    return Estimate(function(np.arange(len(groups))), np.array(replicates, np.float64), len(members))


def exact(value: float) -> Estimate:
    """A number that depends on no episode."""
    return Estimate(float(value), np.full(RESAMPLES, float(value)), 1)


@cache
def _draws(groups: int) -> np.ndarray:
    """How often each group is in each draw, [RESAMPLES, groups]."""
    return np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
