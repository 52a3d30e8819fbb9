"""The numbers of a world as one dictionary, one table and two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from neural_env.checkpoint import Checkpoint
from neural_env.data.episode import Episode, Split
from neural_env.evaluation.drift import HORIZONS
from neural_env.evaluation.world import (
    Dials,
    Dreamer,
    Forced,
    RolloutScores,
    drift,
    force,
    real_episodes,
    roll,
    scores_of,
    seeds_of,
    windows_of,
)

Scores = dict[str, Any]


def measure(
    checkpoint: Checkpoint,
    dials: Dials,
    *,
    split: Split = "test",
    episodes: int,
    first_seed: int,
    rollouts: int,
    horizon: int = 64,
) -> tuple[Scores, RolloutScores]:
    """Plays episodes of held-out seeds in the real game and scores the world on them."""
    real = real_episodes(checkpoint.game, seeds_of(split, episodes, first_seed))
    dreamer = Dreamer(checkpoint.world, dials)
    forced = force(dreamer, windows_of(real, dreamer.context))
    dreams = drift(roll(dreamer, real, horizon, rollouts))
    return kept_scores(real, dials, forced, dreams), dreams


def kept_scores(real: Sequence[Episode], dials: Dials, forced: Forced, dreams: RolloutScores) -> Scores:
    """What a checkpoint keeps of itself."""
    curve = {
        str(step): {
            "psnr": float(dreams.psnr[:, step - 1].mean()),
            "copy_first_psnr": float(dreams.copy_first_psnr[:, step - 1].mean()),
        }
        for step in HORIZONS
        if step <= dreams.psnr.shape[1]
    }
    return {
        "split": real[0].split,
        "seeds": [real[0].seed, real[-1].seed],
        "episodes": len(real),
        "policy": "; ".join(dict.fromkeys(episode.policy for episode in real)),
        "dials": asdict(dials),
        "teacher_forced": scores_of(forced),
        "rollouts": len(dreams.psnr),
        "autoregressive": curve,
    }


def table(scores: Scores, variable_names: tuple[str, ...], *, title: str) -> Table:
    """The scores as people read them."""
    forced = scores["teacher_forced"]
    grid = Table(title=title, title_justify="left")
    grid.add_column("", no_wrap=True)  # a row is looked for by its name
    grid.add_column("dream", justify="right")
    grid.add_column("baseline", justify="right")
    grid.add_column("which baseline")
    grid.add_row("auto-encoder PSNR, dB", f"{forced['autoencoder_psnr']:.2f}", "", "")
    grid.add_row(
        "teacher-forced PSNR, dB", f"{forced['psnr']:.2f}", f"{forced['copy_last_psnr']:.2f}", "copy the last frame"
    )
    grid.add_row("", "", f"{forced['shuffled_psnr']:.2f}", "shuffled actions")
    for step, row in scores["autoregressive"].items():
        grid.add_row(
            f"autoregressive PSNR, step {step}", f"{row['psnr']:.2f}", f"{row['copy_first_psnr']:.2f}",
            "hold the first frame" if step == "1" else "",
        )  # fmt: skip
    grid.add_row("reward agreement (within 0.5)", f"{100 * forced['reward_agreement']:.1f} %", "", "")
    grid.add_row("termination agreement", f"{100 * forced['termination_agreement']:.2f} %", *_never_ends(forced))
    if "termination_recall" in forced:
        grid.add_row("termination recall", f"{100 * forced['termination_recall']:.0f} %", "", "")
        precision = f"{forced['termination_average_precision']:.2f}"
        grid.add_row("termination average precision", precision, _share_of_ends(forced), "say nothing")
    for i, name in enumerate(variable_names):
        grid.add_row(f"{name}, mean error", f"{forced[f'variable_{i}_mean_absolute_error']:.2f}", "", "")
    return grid


def _share_of_ends(forced: dict[str, float]) -> str:
    return f"{forced['termination_events'] / forced['termination_steps']:.2f}"


def _never_ends(forced: dict[str, float]) -> tuple[str, str]:
    steps = forced["termination_steps"]
    return f"{100 * (1 - forced['termination_events'] / steps):.2f} %", "never terminate"


def plot_drift(dreams: RolloutScores, path: Path) -> None:
    """PSNR by step: mean and quartiles of the dreams, and of holding the first frame."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps = np.arange(1, dreams.psnr.shape[1] + 1)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for values, label, colour in (
        (dreams.psnr, "dream", "tab:blue"),
        (dreams.copy_first_psnr, "hold the first frame", "tab:gray"),
    ):
        low, high = np.quantile(values, (0.25, 0.75), axis=0)
        axes.plot(steps, values.mean(axis=0), label=label, color=colour)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="autoregressive steps", ylabel="PSNR against the real game, dB", xlim=(1, steps[-1]))
    axes.set_title(f"{len(dreams.psnr)} roll-outs: mean and quartiles")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
