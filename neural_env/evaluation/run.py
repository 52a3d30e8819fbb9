"""`neural-env evaluate world`: how true a world is on held-out seeds, as a table, a page, JSON and pictures."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from neural_env import checkpoint as checkpoints
from neural_env.checkpoint import Checkpoint
from neural_env.command import command_line
from neural_env.data.episode import Episode, Split
from neural_env.data.shards import write_whole
from neural_env.evaluation.drift import curves
from neural_env.evaluation.film import side_by_side, write_film
from neural_env.evaluation.page import page
from neural_env.evaluation.players import STICKY, players_of
from neural_env.evaluation.plots import draw
from neural_env.evaluation.study import BUDGETS, Budget, BudgetName, Study, study
from neural_env.evaluation.world import Dials, real_episodes, seeds_of
from neural_env.game import TICS_PER_SECOND, GameConfig
from neural_env.runtime import usable_cores
from neural_env.world.model import WorldModel

FORMAT = "neural_env.report/1"
_CAPTIONS = {
    "drift": "PSNR by autoregressive step: mean and quartiles",
    "rollout": "The first roll-out",
    "spread": "The next frame: how many are how close",
    "termination": "Termination: of the steps given this probability, how many ended; the number of steps beside it",
    "stability": "Dreams left to themselves, by segment; dashed: the real game",
    "long_dream": "One dream left to itself",
    "worst_frames": "Worst cases: the next frames that are furthest from the truth",
    "worst_rollout": "Worst case: the roll-out that drifts furthest",
}


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """What is played and how much of it is measured."""

    budget: BudgetName = "quick"  # how much is measured: quick takes minutes, full is for figures to publish
    episodes: int | None = None  # real episodes, of as many seeds; by default as the budget says
    rollouts: int | None = None  # dreams of the autoregressive rows; by default as the budget says
    policies: tuple[str, ...] = (STICKY,)  # who plays, taking turns: sticky_random, uniform_random, agents' folders
    num_steps: int | None = None  # denoising steps a frame; by default as many as suit the world
    context_noise: float = 0.0  # level at which the past is corrupted
    split: Split = "test"  # whose seeds are played; choose dials on validation, report on test
    first_seed: int = 0  # the first seeds of the split from here on

    def __post_init__(self) -> None:
        for name in ("episodes", "rollouts", "num_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def amounts(self) -> Budget:
        """The budget with the numbers that were given instead of its own."""
        given = {name: value for name in ("episodes", "rollouts") if (value := getattr(self, name)) is not None}
        return replace(BUDGETS[self.budget], **given)

    def dials(self, world: WorldModel) -> Dials:
        """How the dream is run."""
        return Dials(self.num_steps or world.num_steps, self.context_noise)

    def play(self, game: GameConfig) -> list[Episode]:
        """The real episodes."""
        seeds = seeds_of(self.split, self.amounts().episodes, self.first_seed)
        return real_episodes(game, seeds, players_of(game, self.policies))


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ScoringConfig):
    """Score a world against the real game on held-out seeds."""

    checkpoint: str = "take_cover"  # bundled world, a checkpoint folder, or hf://owner/name
    out: Path = Path("report")  # folder for report.html, report.json, pictures and films
    write: bool = False  # keep the scores in the checkpoint's config.json


def evaluate(config: EvaluateConfig) -> None:
    """Measures, prints, draws and keeps.

    Raises:
        CheckpointError: there is no such world, or no such agent.
        ValueError: the episodes are too few or too short.
    """
    if config.write and config.checkpoint.startswith(checkpoints.HUB):
        cure = "copy its folder and score that, or leave --write out"
        raise ValueError(f"{config.checkpoint} is on the Hugging Face Hub, where scores can't be written: {cure}")
    loaded = checkpoints.load(config.checkpoint)
    episodes = config.play(loaded.game)
    found = study(loaded, config.dials(loaded.world), episodes, config.amounts())
    report = report_of(config, loaded, episodes, found)
    console = Console()
    for grid in tables(found, title=title_of(report)):
        console.print(grid)
    write_report(report, found, config.out)
    console.print(f"report: {config.out / 'report.html'}, numbers: {config.out / 'report.json'}", soft_wrap=True)
    if config.write:
        kept = replace(loaded, scores={**found.scores, "command": report["command"], "bars": report["bars"]})
        checkpoints.write_scores(kept, checkpoints.resolve(config.checkpoint))


def title_of(report: dict[str, Any]) -> str:
    """What was measured on what."""
    steps = report["scores"]["dials"]["num_steps"]
    return (
        f"{report['checkpoint']}: {report['episodes']} episodes of {report['split']} seeds, {steps} step(s) a frame; "
        "95 % intervals over episodes"
    )


def command_of(config: EvaluateConfig) -> str:
    """The command line that measures the same again."""
    return command_line("neural-env evaluate world", asdict(config), left_out=("pictures", "write", "out"))


def report_of(config: EvaluateConfig, loaded: Checkpoint, episodes: Sequence[Episode], found: Study) -> dict[str, Any]:
    """Everything that is known, as JSON has it."""
    return {
        "format": FORMAT,
        "checkpoint": config.checkpoint,
        "scenario": loaded.game.scenario,
        "game": asdict(loaded.game),
        "provenance": loaded.provenance,
        "split": config.split,
        "seeds": [episodes[0].seed, episodes[-1].seed],
        "episodes": len(episodes),
        "steps": sum(map(len, episodes)),
        "players": dict(Counter(episode.policy for episode in episodes)),
        "budget": asdict(config.amounts()),
        "command": command_of(config),
        "machine": machine(),
        "seconds": found.seconds,
        "bars": [bar.record() for bar in found.bars],
        "rows": [row.record() for row in found.rows],
        "curves": {"autoregressive_psnr": curves(found.drift)},
        "scores": found.scores,
    }


def machine() -> str:
    """Where this runs, in words."""
    device = jax.devices()[0]
    accelerator = "no accelerator" if device.platform == "cpu" else device.device_kind
    return f"{usable_cores()} cores ({platform.machine()}), {accelerator}"


def tables(found: Study, *, title: str) -> list[Table]:
    """The rows and the bars as people read them."""
    grid = Table(title=title, title_justify="left")
    grid.add_column("", no_wrap=True)  # a row is looked for by its name
    grid.add_column("dream")
    grid.add_column("baselines")
    section = ""
    for row in found.rows:
        if row.section != section:
            grid.add_section()
            grid.add_row(f"[bold]{row.section}[/]", "", "")
            section = row.section
        baselines = ", ".join(f"{value.value:.{row.digits}f} {name}" for name, value in row.baselines.items())
        shown = row.note if row.value is None else f"{row.show()} {row.unit}".strip()
        grid.add_row(row.name, shown, baselines, style="dim" if row.value is None else None)
    bars = Table("bar", "asked", "found", "", title="bars", title_justify="left")
    for bar in found.bars:
        bars.add_row(bar.name, bar.asked, bar.found, f"[{_COLOURS[bar.met]}]{bar.verdict}[/]")
    return [grid, bars]


_COLOURS = {True: "green", False: "red", None: "dim"}


def write_report(report: dict[str, Any], found: Study, out: Path) -> None:
    """Writes pictures, films, report.json and, last, report.html.

    Without the package that makes pictures or films there are none, and a note says so.
    """
    drawn = _or_none("pictures", lambda: draw(found, out))
    films = _or_none("films", lambda: _films(report, found, out))
    write_whole(out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    pictures = {caption: drawn[name] for name, caption in _CAPTIONS.items() if name in drawn}
    write_whole(out / "report.html", page(report, pictures, films).encode())


def _or_none(what: str, made: Callable[[], dict[str, Path]]) -> dict[str, Path]:
    try:
        return made()
    except ImportError as error:
        Console().print(f"the report has no {what}: {error}")
        return {}


def _films(report: dict[str, Any], found: Study, out: Path) -> dict[str, Path]:
    rate = TICS_PER_SECOND / report["game"]["frame_skip"]
    worst = int(found.drift.psnr.mean(axis=1).argmin())
    paths: dict[str, Path] = {}
    for caption, which in {"The first roll-out": 0, "The roll-out that drifts furthest": worst}.items():
        path = out / f"rollout_{which}.mp4"
        pairs = zip(found.rollouts.real[which], found.rollouts.dreamed[which], strict=True)
        write_film((side_by_side(*pair) for pair in pairs), path, rate)
        paths[caption] = path
    last = out / "long_dream.mp4"
    real = found.rollouts.real[0]
    ending = ((real[i % len(real)], frame) for i, frame in enumerate(found.long.last))
    write_film((side_by_side(*pair) for pair in ending), last, rate)
    note = "right the last steps of a dream left to itself, left some of the real game, of other moments"
    return {**paths, f"After {found.long.length} steps: {note}": last}
