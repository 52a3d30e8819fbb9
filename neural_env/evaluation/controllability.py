"""Whether actions do in the dream what they do in the game.

By swapping: a world that listens predicts worse when it is given the action of another moment. By an inverse model:
a network that learned from real frames which action lies between them reads the dream's frames as well.
"""

from __future__ import annotations

import numpy as np

from neural_env.evaluation.bootstrap import mean
from neural_env.evaluation.frames import psnr
from neural_env.evaluation.probe import held_out
from neural_env.evaluation.rows import Row, percent
from neural_env.evaluation.world import Forced, Rollouts, Windows

SECTION = "controllability"
GAP = "PSNR lost by swapping the action"


def swap_rows(forced: Forced) -> list[Row]:
    """What another moment's action costs, over the windows in which it is another one."""
    rows = np.flatnonzero(forced.swapped)
    if not len(rows):
        return [Row(SECTION, GAP, None, "dB", note="every window has the same action")]
    shown = forced.shown[rows]
    true, false = (mean(psnr(frames[rows], shown.after), shown.episode) for frames in (forced.frames, forced.shuffled))
    note = "an interval above 0: the actions matter"
    return [
        Row(SECTION, "PSNR, true action", true, "dB", baselines={"swapped action": false}, note=f"{len(rows)} windows"),
        Row(SECTION, GAP, true - false, "dB", note=note),
    ]


def inverse_rows(windows: Windows, rollouts: Rollouts, actions: int, most: int, steps: int) -> list[Row]:
    """How often the action is read off three frames: real ones, and dreamed ones of the same moments.

    The network learns from at most `most` real windows of the other episodes.
    """
    name = "inverse model: accuracy on real clips"
    if len(np.unique(rollouts.episode)) < 2:
        return [Row(SECTION, name, None, "%", note="needs roll-outs of two episodes or more")]
    alive = np.flatnonzero(~windows.ends)
    taught = windows[alive[np.linspace(0, len(alive) - 1, min(most, len(alive))).astype(int)]]
    r, t = rollouts.actions.shape
    k, m = len(taught), r * t
    started = rollouts.past[:, -2:]
    sequences = [np.concatenate([started, frames], axis=1) for frames in (rollouts.real, rollouts.dreamed)]

    def gather(rows: np.ndarray) -> np.ndarray:
        return np.stack([_triple(row) for row in rows])

    def _triple(row: int) -> np.ndarray:
        if row < k:
            last = taught.last[row]
            triple: np.ndarray = taught.screens[last - 1 : last + 2]
            return triple
        which, place = divmod(row - k, m)
        triple = sequences[which][place // t, place % t : place % t + 3]
        return triple

    truth = rollouts.actions.reshape(-1)
    labels = np.concatenate([taught.actions[:, -1], truth, truth]).astype(np.int32)
    of_rollouts = np.repeat(rollouts.episode, t)
    groups = np.concatenate([taught.episode, of_rollouts, of_rollouts])
    judged = held_out(gather, labels, groups, np.arange(len(labels)) < k, actions, steps, "inverse model")
    right = (judged == labels)[k:].reshape(2, m)
    real, dreamed = (percent(mean(part, of_rollouts)) for part in right)
    always = percent(mean(truth == np.bincount(taught.actions[:, -1]).argmax(), of_rollouts))
    return [
        Row(SECTION, name, real, "%", 1, {"always the most frequent": always}, f"{m} moments"),
        Row(SECTION, "inverse model: accuracy on dreamed clips", dreamed, "%", 1, {"on real clips": real}),
    ]
