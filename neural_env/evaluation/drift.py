"""How far a dream drifts that sees its own frames: PSNR by step, beside holding the last real frame."""

from __future__ import annotations

import numpy as np

from neural_env.evaluation.bootstrap import mean
from neural_env.evaluation.rows import Row
from neural_env.evaluation.world import Rollouts, RolloutScores

SECTION = "autoregressive"
HELD = "copy the first frame"  # the baseline
HORIZONS = (1, 8, 16, 32, 64)  # steps that have a row


def drift_rows(rollouts: Rollouts, scores: RolloutScores) -> list[Row]:
    """A row a horizon."""
    return [
        Row(
            SECTION,
            f"PSNR at step {step}",
            mean(scores.psnr[:, step - 1], rollouts.episode),
            "dB",
            baselines={HELD: mean(scores.copy_first_psnr[:, step - 1], rollouts.episode)},
            note=f"{len(scores.psnr)} roll-outs of {scores.psnr.shape[1]} steps" if step == 1 else "",
        )
        for step in HORIZONS
        if step <= scores.psnr.shape[1]
    ]


def curves(scores: RolloutScores) -> dict[str, dict[str, list[float]]]:
    """Mean and quartiles by step, as JSON has them."""
    return {"dream": _quartiles(scores.psnr), HELD: _quartiles(scores.copy_first_psnr)}


def _quartiles(values: np.ndarray) -> dict[str, list[float]]:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    named = {"mean": values.mean(axis=0), "lower quartile": low, "median": median, "upper quartile": high}
    return {name: row.tolist() for name, row in named.items()}
