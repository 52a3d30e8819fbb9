"""Dream and real game side by side: what one step says, and what an episode comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural_env.envs.doom import Frame
from neural_env.evaluation.frames import psnr, ssim
from neural_env.evaluation.lpips import lpips, require_weights

METRICS: dict[str, Callable[[Frame, Frame], Any]] = {"psnr": psnr, "ssim": ssim, "lpips": lpips}
"""Comparisons of two frames by name."""

WORST: dict[str, Callable[[list[float]], float]] = {"psnr": min, "ssim": min, "lpips": max}
"""Which of an episode's values belongs to the frames least alike: LPIPS is a distance, the others are likenesses."""

REWARD_TOLERANCE = 0.5  # rewards closer than this agree, as in `neural-env evaluate`


@dataclass(frozen=True)
class Side:
    """What one of the two worlds made of a step."""

    frame: Frame
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False


def checked_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """The names, PSNR first: the horizon and `truncate_below` are in dB.

    Raises:
        ValueError: an unknown name.
        ImportError: LPIPS is among them, and the package with its weights is missing; they are read when first used.
    """
    unknown = [name for name in names if name not in METRICS] if not isinstance(names, str) else [names]
    if unknown:
        raise ValueError(f"metrics must be a list of {', '.join(METRICS)}; got {names!r}")
    if "lpips" in names:
        require_weights()
    return ("psnr", *(name for name in dict.fromkeys(names) if name != "psnr"))


class Comparison:
    """Compares an episode step by step.

    Args:
        metrics: names in `METRICS`.
        horizon_below: dB under which the dream counts as diverged.
    """

    def __init__(self, metrics: tuple[str, ...], horizon_below: float) -> None:
        self._metrics = metrics
        self._horizon_below = horizon_below
        self.begin()

    def begin(self) -> None:
        """Forget the last episode."""
        self.steps = 0
        self._horizon: int | None = None
        self._values: dict[str, list[float]] = {name: [] for name in self._metrics}  # of frames that have a real one
        self._reward_errors: list[float] = []
        self._agreements: list[bool] = []

    def start(self, dream: Frame, real: Frame) -> dict[str, Any]:
        """Compare the frames that an episode starts with."""
        return {**self._frames(dream, real), "reward_error": 0.0, "terminated_real": False, "termination_agrees": True}

    def step(self, dream: Side, real: Side) -> dict[str, Any]:
        """Compare a step, and keep it for the summary."""
        told = self._frames(dream.frame, real.frame)
        self.steps += 1
        if not (real.terminated or real.truncated):  # the engine shows no frame after its last tic
            self._keep(told)
        self._reward_errors.append(dream.reward - real.reward)
        self._agreements.append(dream.terminated == real.terminated)
        return {
            **told,
            "reward_error": self._reward_errors[-1],
            "terminated_real": real.terminated,
            "termination_agrees": self._agreements[-1],
        }

    def is_under(self, decibels: float | None) -> bool:
        """Whether the last frame that could be compared is less alike than that."""
        return decibels is not None and bool(self._values["psnr"]) and self._values["psnr"][-1] < decibels

    def summary(self) -> dict[str, Any]:
        """The episode so far, as `ShadowMode` says."""
        errors = np.abs(self._reward_errors)
        about: dict[str, Any] = {"steps": self.steps}
        for name, values in self._values.items():
            if values:
                worst = WORST[name]
                about |= {f"mean_{name}": float(np.mean(values)), f"{worst.__name__}_{name}": worst(values)}
        return about | {
            "horizon": self.steps if self._horizon is None else self._horizon,
            "diverged": self._horizon is not None,
            "reward_error": float(errors.mean()),
            "reward_agreement": float((errors < REWARD_TOLERANCE).mean()),
            "termination_agreement": float(np.mean(self._agreements)),
        }

    def _frames(self, dream: Frame, real: Frame) -> dict[str, float]:
        return {name: float(METRICS[name](dream, real)) for name in self._metrics}

    def _keep(self, told: dict[str, float]) -> None:
        for name, value in told.items():
            self._values[name].append(value)
        if self._horizon is None and told["psnr"] < self._horizon_below:
            self._horizon = self.steps
