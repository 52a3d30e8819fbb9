"""`neural-env evaluate world`: its scores on held-out seeds, printed, drawn and, if asked, kept in its checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from neural_env import checkpoint as checkpoints
from neural_env.data.episode import Split
from neural_env.evaluation.film import write_strip
from neural_env.evaluation.report import measure, plot_drift, table
from neural_env.evaluation.world import Dials, RolloutScores, long_dream

_AGES = (1, 25, 50, 100, 150, 200)  # steps of the long dream that its picture shows
_STEPS = (1, 4, 8, 16, 32, 64)  # steps of the roll-out that its picture shows


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score a world against the real game on held-out seeds."""

    checkpoint: str = "take_cover"  # bundled world, or a checkpoint folder
    num_steps: int = 1  # denoising steps a frame
    context_noise: float = 0.0  # level at which the past is corrupted
    episodes: int = 20  # real episodes, of as many test seeds
    rollouts: int = 64  # dreams that the autoregressive rows are averaged over
    split: Split = "test"  # whose seeds are played; choose dials on validation, report on test
    first_seed: int = 0  # the first seeds of the split from here on
    pictures: Path | None = None  # folder for drift.png, rollout.png and long_dream.png
    write: bool = False  # keep the scores in the checkpoint's config.json


def evaluate(config: EvaluateConfig) -> None:
    """Measures, prints, draws and keeps."""
    loaded = checkpoints.load(config.checkpoint)
    dials = Dials(config.num_steps, config.context_noise)
    scores, dreams = measure(
        loaded,
        dials,
        split=config.split,
        episodes=config.episodes,
        first_seed=config.first_seed,
        rollouts=config.rollouts,
    )
    title = (
        f"{config.checkpoint}: {config.episodes} episodes of {config.split} seeds, {config.num_steps} step(s) a frame"
    )
    Console().print(table(scores, loaded.game.variable_names, title=title))
    if config.pictures is not None:
        _draw(config.pictures, loaded, dials, dreams)
    if config.write:
        kept = replace(loaded, scores={**scores, "command": command_of(config)})
        checkpoints.write_scores(kept, checkpoints.resolve(config.checkpoint))


def command_of(config: EvaluateConfig) -> str:
    """The command line that measures the same again."""
    values = {name: value for name, value in asdict(config).items() if name not in ("pictures", "write")}
    return " ".join(["neural-env evaluate world", *(f"--{n.replace('_', '-')} {value}" for n, value in values.items())])


def _draw(folder: Path, loaded: checkpoints.Checkpoint, dials: Dials, dreams: RolloutScores) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plot_drift(dreams, folder / "drift.png")
    shown = [step - 1 for step in _STEPS if step <= len(dreams.real)]
    rows = [("real", dreams.real[shown]), ("dream", dreams.dreamed[shown])]
    write_strip(rows, [f"step {i + 1}" for i in shown], folder / "rollout.png")
    long = long_dream(loaded.world, loaded.starts, dials, _AGES[-1])
    ages = np.array(_AGES) - 1
    write_strip([("dream", long[ages])], [f"step {age}" for age in _AGES], folder / "long_dream.png")
    Console().print(f"pictures in {folder}")
