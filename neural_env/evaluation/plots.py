"""The report's plots: one function a picture, each written as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neural_env.evaluation import stability
from neural_env.evaluation.calibration import plot_reliability, reliability
from neural_env.evaluation.film import write_strip
from neural_env.evaluation.frames import psnr
from neural_env.evaluation.report import plot_drift
from neural_env.evaluation.rows import Row
from neural_env.evaluation.study import Study
from neural_env.evaluation.world import Forced, Rollouts

_AGES = (1, 4, 8, 16, 32, 64)  # steps of a roll-out that its picture shows
_WORST = 6  # next frames that are shown


def draw(study: Study, folder: Path) -> dict[str, Path]:
    """Writes every picture; their paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("drift", "rollout", "long_dream", "stability", "termination", "spread", "worst_frames", "worst_rollout")
    paths = {name: folder / f"{name}.png" for name in names}
    plot_drift(study.drift, paths["drift"])
    strip_of(study.rollouts, 0, paths["rollout"])
    write_strip([("dream", study.long.film)], [f"step {age}" for age in study.long.ages.tolist()], paths["long_dream"])
    plot_stability(study.long, study.rows, paths["stability"])
    p, ends = study.forced.outcomes.termination, study.forced.windows.ends
    plot_reliability(reliability(p, ends), paths["termination"], title="termination: foretold against observed")
    plot_spread(study.forced, paths["spread"])
    draw_worst(study.forced, paths["worst_frames"])
    strip_of(study.rollouts, int(study.drift.psnr.mean(axis=1).argmin()), paths["worst_rollout"])
    return paths


def strip_of(rollouts: Rollouts, which: int, path: Path) -> None:
    """A roll-out beside the truth, at some of its steps."""
    shown = [step - 1 for step in _AGES if step <= rollouts.real.shape[1]]
    rows = [("real", rollouts.real[which, shown]), ("dream", rollouts.dreamed[which, shown])]
    write_strip(rows, [f"step {i + 1}" for i in shown], path)


def draw_worst(forced: Forced, path: Path) -> None:
    """The next frames that are furthest from the truth, one an episode as far as there are so many."""
    values = psnr(forced.frames, forced.shown.after)
    rows = worst_rows(values, forced.shown.episode, _WORST)
    shown = forced.shown[rows]
    strips = [("before", shown.present), ("real", shown.after), ("dream", forced.frames[rows])]
    write_strip(strips, [f"{value:.1f} dB" for value in values[rows]], path)


def worst_rows(values: np.ndarray, groups: np.ndarray, most: int) -> np.ndarray:
    """The rows of the lowest values, each group's lowest before any group's second."""
    order = np.argsort(values, kind="stable")
    rank = np.zeros(len(order), int)
    seen: dict[Any, int] = {}
    for row in order:
        rank[row] = seen.get(groups[row], 0)
        seen[groups[row]] = rank[row] + 1
    first = order[np.argsort(rank[order], kind="stable")][:most]
    return first[np.argsort(values[first], kind="stable")]


def plot_spread(forced: Forced, path: Path) -> None:
    """How PSNR spreads over the next frames, beside copying the last one and the auto-encoder."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    after = forced.shown.after
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for frames, label, colour in (
        (forced.shown.present, "copy the last frame", "tab:gray"),
        (forced.frames, "dream", "tab:blue"),
        (forced.reconstructed, "auto-encoder alone", "tab:green"),
    ):
        values = np.sort(psnr(frames, after))
        axes.plot(values, 100 * np.arange(1, len(values) + 1) / len(values), color=colour, label=label)
    axes.set(xlabel="PSNR of the next frame, dB", ylabel="% of frames at or below", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_stability(long: stability.LongDreams, rows: list[Row], path: Path) -> None:
    """Each statistic by segment, a thin line a dream, the real game's mean dashed; FD-VGG16 beside its floor."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = stability.segment_names(long.length)
    figure, grid = plt.subplots(1, 5, figsize=(14, 3.2), layout="constrained")
    real = stability.statistics(long.real)
    for axes, (name, values) in zip(grid, stability.statistics(long.pairs).items(), strict=False):
        by_segment = values.mean(axis=2)
        axes.plot(by_segment.T, color="tab:blue", alpha=0.3, linewidth=1)
        axes.plot(by_segment.mean(axis=0), color="tab:blue", label="dreams")
        axes.axhline(real[name].mean(), color="tab:gray", linestyle="--", label="real")
        axes.set(title=f"{name}, grey levels", ylim=(0, None))
    _plot_frechet(grid[-1], [row for row in rows if row.name.startswith("FD-VGG16, ") and row.value is not None])
    for axes in grid:
        axes.set_xticks(range(len(names)), names, rotation=30, fontsize=8)
        axes.grid(alpha=0.3)
    grid[0].legend()
    figure.supxlabel("steps since the last real frame", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_frechet(axes: Any, rows: list[Row]) -> None:
    for i, row in enumerate(rows):
        assert row.value is not None
        axes.plot(i, row.value.value, "o", color="tab:blue")
        axes.vlines(i, row.value.low, row.value.high, color="tab:blue")
    if rows:
        axes.axhline(rows[0].baselines["real against real"].value, color="tab:gray", linestyle="--")
    axes.set(title="FD-VGG16", ylim=(0, None))  # last: a limit that is set keeps what comes later out of sight
