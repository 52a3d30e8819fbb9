"""A two-sample test by a classifier (Lopez-Paz and Oquab 2017, arXiv 1610.06545): can a network tell dream from truth?

It stands in for the paper's raters, who picked the real clip of two in 58 % (1.6 s) and 60 % (3.2 s) of the cases: 50 %
is a perfect world. It is a harsher judge than they are: it looks at every pixel, and learns what gives dreams away.
"""

from __future__ import annotations

import numpy as np

from neural_env.evaluation.bootstrap import Estimate, mean
from neural_env.evaluation.probe import held_out
from neural_env.evaluation.rows import Row, percent
from neural_env.evaluation.world import Rollouts

SECTION = "told from the real game"
LENGTHS = (16, 32)  # frames of a clip


def classifier_rows(rollouts: Rollouts, steps: int) -> list[Row]:
    """A row a length of clips: every clip of a roll-out beside the real one of the same place and the same actions."""
    return [_row(rollouts, length, steps) for length in LENGTHS if length <= rollouts.real.shape[1]]


def _row(rollouts: Rollouts, length: int, steps: int) -> Row:
    name = f"accuracy on clips of {length} frames"
    if len(np.unique(rollouts.episode)) < 2:
        return Row(SECTION, name, None, note="needs roll-outs of two episodes or more")
    per_rollout = rollouts.real.shape[1] // length
    real, dreamed = (clips_of(frames, length) for frames in (rollouts.real, rollouts.dreamed))
    accuracy = two_sample_accuracy(real, dreamed, np.repeat(rollouts.episode, per_rollout), steps)
    return Row(SECTION, name, percent(accuracy), "%", 0, note=f"50 % is perfect; {len(real)} pairs of clips")


def clips_of(frames: np.ndarray, length: int) -> np.ndarray:
    """Roll-outs [r, t, H, W, 3] cut into clips [r * (t // length), length, H, W, 3]."""
    count = frames.shape[1] // length
    return frames[:, : count * length].reshape(-1, length, *frames.shape[2:])


def two_sample_accuracy(real: np.ndarray, dreamed: np.ndarray, groups: np.ndarray, steps: int) -> Estimate:
    """How often a held-out clip is taken for what it is; clip i of both sets belongs to the episode `groups[i]`."""
    m = len(real)

    def gather(rows: np.ndarray) -> np.ndarray:
        return np.stack([dreamed[row - m] if row >= m else real[row] for row in rows])

    labels = np.repeat(np.array([0, 1], np.int32), m)
    both = np.tile(groups, 2)
    what = f"classifier, {real.shape[1]} frames"
    judged = held_out(gather, labels, both, np.ones(2 * m, bool), 2, steps, what)
    return mean(judged == labels, both)
