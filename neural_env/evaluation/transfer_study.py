"""`neural-env transfer` several times over: a sweep of one dial, or rounds of an agent's own data.

::

    --sweep num_steps --values 1 4       does a one-step world teach as well as a four-step one?
    --sweep temperature --values 0.5 1.0 1.15
    --sweep disagreement --values 0 1
    --rounds 2 --old-data D              agent -> its games -> world learns from them too -> agent

A sweep plays validation seeds unless told otherwise: nothing is tuned on test seeds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from rich.console import Console

from neural_env.agents.dreams import DreamsConfig
from neural_env.data.shards import write_whole
from neural_env.evaluation.transfer import TransferConfig, transfer
from neural_env.training.refresh import RefreshConfig, refresh, require_teachable

Scores = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StudyConfig(TransferConfig):
    """Train agents in a dream only and score them in the real game, once or several times over."""

    sweep: str | None = None  # a setting of the dreams to try several values of
    values: tuple[str, ...] = ()  # its values
    rounds: int = 0  # times that the agent's own games are added to the world's data
    old_data: tuple[Path, ...] = ()  # datasets that the world was trained on
    new_episodes: int = 200  # real games that the agent plays for each round
    denoiser_steps: int = 2_000  # updates of the denoiser each round
    outcome_steps: int = 1_000  # updates of the outcome model each round

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.sweep) != bool(self.values):
            raise ValueError("a sweep needs a setting and its values: give --sweep and --values")
        if self.sweep and self.rounds:
            raise ValueError("a sweep and rounds are two studies: give --sweep or --rounds")
        if self.rounds and not self.old_data:
            raise ValueError("rounds go on with the data that the world was trained on: give --old-data")
        if self.sweep:
            self.swept()

    def transfer(self, out: Path, **changes: Any) -> TransferConfig:
        """The settings of one transfer."""
        mine = {field.name: getattr(self, field.name) for field in fields(TransferConfig)}
        return TransferConfig(**{**mine, "out": out, **changes})

    def swept(self) -> dict[str, DreamsConfig]:
        """The dreams of each value."""
        name = str(self.sweep).replace("-", "_")
        kinds = {name: _kind(hint) for name, hint in get_type_hints(DreamsConfig).items()}
        if name not in kinds:
            raise ValueError(f"the dreams have no setting {self.sweep!r}; there are {', '.join(kinds)}")
        try:
            return {value: replace(self.dreams, **{name: kinds[name](value)}) for value in self.values}
        except ValueError as error:
            raise ValueError(f"--sweep {name} can't take {' '.join(self.values)}: {error}") from error


def _kind(hint: Any) -> Any:
    """What a value on the command line is read as."""
    return next((kind for kind in (int, float) if kind in (hint, *get_args(hint))), str)


def study(config: StudyConfig) -> None:
    """Does what is asked; raises what `transfer` and `refresh` raise."""
    if config.sweep:
        _sweep(config)
    elif config.rounds:
        _rounds(config)
    else:
        transfer(config.transfer(config.out))


def _sweep(config: StudyConfig) -> None:
    reports = {}
    for value, dreams in config.swept().items():
        out = config.out / f"{config.sweep}={value}"
        reports[value] = transfer(config.transfer(out, dreams=dreams, film=False, split=config.split or "validation"))
    _tell(config.out, str(config.sweep), reports, [spent(report) for report in reports.values()])


def _rounds(config: StudyConfig) -> None:
    """Round 0 is the world as it is; each later one has learnt from the games of the first agent before.

    Each agent goes on as what it was: the second as the second.
    """
    require_teachable(config.checkpoint)  # before round 0 takes its hours
    reports: dict[str, Scores] = {}
    checkpoint, data = config.checkpoint, config.old_data
    for number in range(config.rounds + 1):
        folder = config.out / f"round-{number}"
        before = config.out / f"round-{number - 1}" / "agents"
        began = {"init_from": before} if number else {}
        if number:
            step = RefreshConfig(
                out=folder,
                checkpoint=checkpoint,
                data=data,
                agent=before / "seed-0",
                episodes=config.new_episodes,
                first_seed=1_000_000 * (number + 1),  # `world` plays from 1,000,000 on; no two rounds share one
                denoiser_steps=config.denoiser_steps,
                outcome_steps=config.outcome_steps,
                max_episode_steps=config.max_episode_steps,
            )
            checkpoint, data = str(refresh(step)), (*data, step.games)
        reports[str(number)] = transfer(config.transfer(folder, checkpoint=checkpoint, **began))
    _tell(config.out, "round", reports, list(accumulate(map(spent, reports.values()), Spent.plus)))


class Spent(NamedTuple):
    """What an agent has cost, the mean of those of a row."""

    steps: float  # dreamed
    minutes: float

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.steps + other.steps, self.minutes + other.minutes)


def spent(report: Scores) -> Spent:
    """By the trainings of one transfer; what their agents began as isn't counted."""
    row = report["rows"]["dream"]
    return Spent(sum(seed["steps"] for seed in row["seeds"]) / len(row["seeds"]), row["minutes"])


def _tell(out: Path, name: str, reports: dict[str, Scores], costs: list[Spent]) -> None:
    text = markdown(name, reports, costs)
    short = {
        value: {"rows": report["rows"], "command": report["command"], **cost._asdict()}
        for (value, report), cost in zip(reports.items(), costs, strict=True)
    }
    write_whole(out / "study.json", (json.dumps(short, indent=2) + "\n").encode())
    write_whole(out / "study.md", text.encode())
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


def markdown(name: str, reports: dict[str, Scores], costs: list[Spent]) -> str:
    """A row a value; `costs` are what an agent of each has cost from its very beginning."""
    columns = (
        *(name, "real score", "95 % of the mean", "in the dream", "dream / real", "real frames"),
        *("dreamed steps an agent", "minutes an agent"),
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (value, report), cost in zip(reports.items(), costs, strict=True):
        row = report["rows"]["dream"]
        low, high = row["confidence_95"]
        flattery = "-" if row["flattery"] is None else f"{row['flattery']:.2f}"
        frames = "-" if row["real_frames"] is None else f"{row['real_frames']:,d}"
        dreamed = row["dream"]["mean_return"]
        lines.append(
            f"| {value} | {row['mean_return']:.1f} | {low:.1f} to {high:.1f} | {dreamed:.1f} | {flattery} | {frames} "
            f"| {cost.steps:,.0f} | {cost.minutes:.1f} |"
        )
    settings = next(iter(reports.values()))["settings"]
    seeds = f"{settings['seeds']} agent(s) each, {settings['episodes']} real games of {settings['split']} seeds each."
    return "\n".join([*lines, "", seeds, ""])
