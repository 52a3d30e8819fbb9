"""How far apart several predictions of the next frame are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from neural_env.envs.arguments import CONTEXT_NOISE_MAX
from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.snapshot import Snapshot
from neural_env.wrappers.streams import Stream

KINDS = ("samples", "levels")


class Spread:
    """Asks a dream for several versions of its next frame; the dream itself stays where it is.

    Args:
        samples: how many versions, at least 2.
        kind: "samples": each with luck of its own; "levels": each with the luck that the step will have, but with the
            past corrupted at levels spread evenly over [0, 0.7].
    """

    def __init__(self, samples: int, kind: str) -> None:
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
            raise ValueError(f"samples must be an integer of at least 2, for a spread needs two, got {samples!r}")
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; choose one of {', '.join(KINDS)}")
        self._samples, self._kind = samples, kind

    def ahead(self, dream: NeuralDoom, snapshot: Snapshot, action: int, rng: Stream) -> float:
        """The spread of the frames that this action may lead to, in grey levels."""
        seed = int(rng.integers(2**31))  # drawn for both kinds, so that one costs the stream what the other does
        if self._kind == "samples":
            return spread(dream.branch(snapshot, [action] * self._samples, seed=seed).frames)
        return spread(self._by_levels(dream, snapshot, action))

    def _by_levels(self, dream: NeuralDoom, snapshot: Snapshot, action: int) -> npt.NDArray[np.uint8]:
        dial = dream.context_noise
        frames = []
        try:
            for level in np.linspace(0, CONTEXT_NOISE_MAX, self._samples):
                dream.context_noise = float(level)
                frames.append(dream.branch(snapshot, [action]).frames)
        finally:
            dream.context_noise = dial
        return np.concatenate(frames)


def spread(frames: npt.NDArray[Any]) -> float:
    """Standard deviation of each colour of each pixel over frames `[k, H, W, 3]`, averaged: grey levels, 0 to 127.5.

    It is that of the frames themselves (divided by k, not by k - 1).
    """
    return float(frames.std(axis=0, dtype=np.float32).mean(dtype=np.float64))
