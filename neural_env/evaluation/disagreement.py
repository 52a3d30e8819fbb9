"""Whether `Disagreement` foretells how wrong a world is: measured against the real game, not assumed.

python -m neural_env.evaluation.disagreement --episodes 20 --split validation

Dream and real game take the same sticky-random actions. Every `horizon` steps the dream is brought back to the truth;
in between it is left to itself. So a step has an age, the number of steps that the dream saw only itself, and since
error grows with age, a predictor is worth something only if it does better than to count steps. That is why age stands
among the predictors, and why there is a correlation at equal age.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neural_env.data.episode import Split
from neural_env.data.policies import StickyRandom
from neural_env.evaluation.world import seeds_of
from neural_env.wrappers.disagreement import Disagreement
from neural_env.wrappers.shadow_mode import ShadowMode
from neural_env.wrappers.spread import KINDS

_RESAMPLES = 1000
Values = np.ndarray  # [m] float64


@dataclass(frozen=True, kw_only=True)
class DisagreementConfig:
    """Correlate disagreement with true error."""

    checkpoint: str = "take_cover"  # bundled world, a checkpoint folder, or hf://owner/name
    num_steps: int | None = None  # denoising steps a frame; by default as many as suit the world
    context_noise: float = 0.0  # level at which the past is corrupted
    samples: int = 4  # versions of the next frame
    horizon: int = 32  # steps that the dream is left to itself
    windows: int = 2  # of so many steps each, an episode at most
    episodes: int = 20  # real episodes
    split: Split = "validation"  # whose seeds are played
    first_seed: int = 0  # the first seeds of the split from here on
    out: Path = Path("disagreement.png")  # the scatter plot


class Steps(NamedTuple):
    """One row a step, over all episodes."""

    episode: np.ndarray  # [m] which episode: its steps are drawn together when resampling
    age: np.ndarray  # [m] steps since the dream last saw real frames, 1 and up
    error: np.ndarray  # [m] mean squared error of the frame, grey levels squared
    predictors: dict[str, np.ndarray]  # each [m]


def run(config: DisagreementConfig) -> None:
    """Measures, prints and draws."""
    steps = play(config)
    console = Console()
    console.print(table(steps, title=f"{len(steps.error)} steps of {config.episodes} {config.split} episodes"))
    scatter(steps, config.out)
    console.print(f"scatter plot: {config.out}", soft_wrap=True)


def play(config: DisagreementConfig) -> Steps:
    """The steps of all episodes; those at which the real game ends, and shows no frame, are left out."""
    env = gym.make(
        "neural_env:NeuralDoom-v0",
        checkpoint=config.checkpoint,
        num_steps=config.num_steps,
        context_noise=config.context_noise,
    )
    for kind in KINDS:
        env = Disagreement(env, config.samples, kind, info_key=kind)
    shadow = ShadowMode(env, sync=config.horizon, metrics=["psnr"])
    rows: list[tuple[float, ...]] = []
    for episode, seed in enumerate(track(seeds_of(config.split, config.episodes, config.first_seed), "episodes")):
        rows += [(episode, *row) for row in _episode(shadow, seed, config.windows * config.horizon)]
    shadow.close()
    episodes, ages, errors, *predicted = np.array(rows, np.float64).T
    return Steps(episodes, ages, errors, dict(zip(KINDS, predicted, strict=True)) | {"age": ages})


def _episode(env: ShadowMode, seed: int, steps: int) -> list[tuple[float, ...]]:
    policy = StickyRandom(int(env.action_space.n))  # type: ignore[attr-defined]
    policy.reset(np.random.default_rng([seed, 1]))
    frame, _ = env.reset(seed=seed)
    rows: list[tuple[float, ...]] = []
    for _ in range(steps):
        frame, _, terminated, truncated, info = env.step(np.int64(policy.act(frame, np.empty(0))))
        if terminated or truncated:
            break
        told = info["shadow"]
        error = np.square(frame.astype(np.float64) - told["real_obs"]).mean()
        rows.append((told["steps_since_sync"], error, *(info[kind] for kind in KINDS)))
    return rows


def pearson(x: Values, y: Values) -> float:
    """Linear correlation; 0 if either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 0 else 0.0


def spearman(x: Values, y: Values) -> float:
    """Linear correlation of the ranks."""
    return pearson(ranks(x), ranks(y))


def ranks(x: Values) -> Values:
    """Ranks from 0 on, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    shared: Values = (last - (counts - 1) / 2)[inverse]
    return shared


def at_equal_age(steps: Steps, x: Values, rows: np.ndarray) -> float:
    """Spearman's correlation within each age, weighed by its number of steps: what counting steps can't explain."""
    ages = steps.age[rows]
    total = 0.0
    for age in np.unique(ages):
        same = rows[ages == age]
        total += len(same) * spearman(x[same], steps.error[same])
    return total / len(rows)


def intervals(steps: Steps, statistic: Callable[[np.ndarray], float]) -> tuple[float, float, float]:
    """A statistic of the rows, and its 95 % bootstrap interval over whole episodes (percentiles)."""
    rng = np.random.default_rng(0)
    of_episode = [np.flatnonzero(steps.episode == e) for e in np.unique(steps.episode)]
    drawn = [
        statistic(np.concatenate([of_episode[i] for i in rng.integers(len(of_episode), size=len(of_episode))]))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return statistic(np.arange(len(steps.error))), float(low), float(high)


def table(steps: Steps, *, title: str) -> Table:
    """Correlations of each predictor with the frame's mean squared error."""
    grid = Table(title=title, title_justify="left")
    for heading in ("predictor of the error", "mean", "Pearson", "Spearman", "Spearman at equal age"):
        grid.add_column(heading)
    for name, x in steps.predictors.items():
        statistics: tuple[Callable[[np.ndarray], float], ...] = (
            lambda rows, x=x: pearson(x[rows], steps.error[rows]),  # type: ignore[misc]
            lambda rows, x=x: spearman(x[rows], steps.error[rows]),  # type: ignore[misc]
            lambda rows, x=x: at_equal_age(steps, x, rows),  # type: ignore[misc]
        )
        shown = ["{:.2f} [{:.2f}, {:.2f}]".format(*intervals(steps, statistic)) for statistic in statistics]
        grid.add_row(name, f"{x.mean():.3f}", *(shown if name != "age" else [*shown[:2], ""]))
    return grid


def scatter(steps: Steps, path: Path) -> None:
    """Disagreement against error, a point a step, coloured by age."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(KINDS), figsize=(10, 4), layout="constrained", sharey=True)
    for panel, kind in zip(axes, KINDS, strict=True):
        points = panel.scatter(steps.predictors[kind], np.sqrt(steps.error), c=steps.age, s=6, cmap="viridis")
        panel.set(title=f"kind={kind!r}", xlabel="disagreement, grey levels")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("root mean squared error, grey levels")
    figure.colorbar(points, ax=axes, label="steps since the dream saw real frames")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    run(tyro.cli(DisagreementConfig))
