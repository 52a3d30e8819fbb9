"""At what level the past is corrupted, step by step: small objects, and the plain data that name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np

from neural_env.envs.arguments import CONTEXT_NOISE_MAX

_FORMS = "[[step, level], ...] with rising steps, or ['uniform', low, high] and, if wanted, 'episode' or 'step'"


class Schedule(Protocol):
    """Says the level of each step of an episode."""

    def level(self, step: int, last: float, rng: np.random.Generator) -> float:
        """The level of step `step` (0 is an episode's first), given the level before and a source of luck."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same level always."""

    value: float

    def level(self, step: int, last: float, rng: np.random.Generator) -> float:
        """`value`."""
        return self.value


@dataclass(frozen=True)
class Breakpoints:
    """Linear between breakpoints, and constant before the first and after the last."""

    steps: tuple[int, ...]
    levels: tuple[float, ...]

    def level(self, step: int, last: float, rng: np.random.Generator) -> float:
        """Where the line is at this step of the episode."""
        return float(np.interp(step, self.steps, self.levels))


@dataclass(frozen=True)
class Uniform:
    """Drawn from [low, high], once an episode or at every step."""

    low: float
    high: float
    every: Literal["episode", "step"] = "episode"

    def level(self, step: int, last: float, rng: np.random.Generator) -> float:
        """A new level if it is time for one, else the last."""
        return float(rng.uniform(self.low, self.high)) if step == 0 or self.every == "step" else last


def schedule_of(level: float | None, schedule: Sequence[Any] | None) -> Schedule:
    """The schedule that a wrapper's arguments mean; the default is level 0.1.

    Raises:
        ValueError: both are given, or a value that is no schedule or out of [0, 0.7].
    """
    if schedule is None:
        return Constant(_checked(0.1 if level is None else level))
    if level is not None:
        raise ValueError(f"give level or schedule, not both; got level={level!r} and schedule={schedule!r}")
    if isinstance(schedule, str) or not isinstance(schedule, Sequence) or not schedule:
        raise ValueError(f"schedule must be {_FORMS}; got {schedule!r}")
    return _uniform(schedule) if schedule[0] == "uniform" else _breakpoints(schedule)


def _uniform(schedule: Sequence[Any]) -> Uniform:
    fits = len(schedule) in (3, 4) and (len(schedule) == 3 or schedule[3] in ("episode", "step"))
    if not fits:
        raise ValueError(f"schedule must be {_FORMS}; got {schedule!r}")
    low, high = _checked(schedule[1]), _checked(schedule[2])
    if low > high:
        raise ValueError(f"a uniform schedule needs low <= high, got {low} > {high}: swap them")
    return Uniform(low, high, *schedule[3:])


def _breakpoints(schedule: Sequence[Any]) -> Breakpoints:
    try:
        pairs = [(step, _checked(level)) for step, level in schedule]
        steps = [int(step) for step, _ in pairs]
    except TypeError as error:
        raise ValueError(f"schedule must be {_FORMS}; got {schedule!r}") from error
    if steps != [step for step, _ in pairs] or steps[0] < 0 or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"schedule must be {_FORMS}; got {schedule!r}")
    return Breakpoints(tuple(steps), tuple(level for _, level in pairs))


def _checked(level: Any) -> float:
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 <= level <= CONTEXT_NOISE_MAX:
        raise ValueError(f"a context noise level must be a number in [0, {CONTEXT_NOISE_MAX}], got {level!r}")
    return float(level)
