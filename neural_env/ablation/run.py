"""`neural-env ablate STUDY`: one question, answered by a table and a plot.

::

    OUT/STUDY/SPLIT/result.json, table.md, plot.png
    OUT/STUDY/SPLIT/scores/ARM-SEED.json     what was measured; an arm is scored once

The rest of OUT is `bench.Bench`'s, which trains.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import jax
import tyro
from rich.console import Console

from neural_env.ablation.bench import Bench, Given, OutOfTime, Sizes, arms_and_seeds
from neural_env.ablation.report import Result, table, write
from neural_env.ablation.score import Exam, score
from neural_env.ablation.studies import STUDIES
from neural_env.ablation.study import Arm, Study
from neural_env.data.episode import Split
from neural_env.data.shards import write_whole
from neural_env.world.model import PRESETS

StudyName: TypeAlias = Literal[
    "steps",
    "level",
    "context",
    "noise",
    "data",
    "objective",
    "conditioning",
    "guidance",
    "rollout",
    "decoder",
    "memory",
]

SMOKE = Sizes(
    frames=1_000,
    collect=16,
    max_steps=60,
    autoencoder_steps=4,
    steps=4,
    batch=4,
    held_out=4,
    exam=Exam(windows=16, rollouts=4, horizon=8),
)
_SMOKE_ARMS = 2  # trained arms of a smoke run; what only evaluates has all of them


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """Train and score the arms of a study alike; interrupted and run again, it goes on."""

    study: Annotated[StudyName, tyro.conf.Positional]  # which question
    out: Path = Path("out/ablations")  # the folder of all studies: equal parts of them are trained once
    scenario: str = "take_cover"  # what is played if no data are given
    preset: str = "small"  # sizes of the model
    checkpoint: str | None = None  # a world: its sizes and auto-encoder are used; studies that only evaluate judge it
    data: tuple[Path, ...] = ()  # training episodes; by default they are played: by the agent, else at random
    random_data: tuple[Path, ...] = ()  # those of random play, which the study `data` compares with
    agent: Path | None = None  # who plays; by default runs/agents/SCENARIO, if there is one
    steps: int = Sizes.steps  # updates of each arm's denoiser; other parts of a recipe have their share of it
    autoencoder_steps: int = Sizes.autoencoder_steps
    batch: int = Sizes.batch
    frames: int = Sizes.frames  # of training data, about
    seeds: tuple[int, ...] = (0,)  # of the trainings: every arm is trained with each
    held_out: int = Sizes.held_out  # episodes that arms are scored on
    windows: int = Exam.windows  # teacher-forced predictions in them
    rollouts: int = Exam.rollouts  # dreams that begin in them
    horizon: int = Exam.horizon  # steps of each
    arms: tuple[str, ...] = ()  # only these; by default all
    test: bool = False  # score on test seeds, for the final figures; by default on validation seeds
    smoke: bool = False  # the same in a minute: a tiny model, a few steps, data of a few seconds
    max_minutes: float | None = None  # stop after so long; run again to go on
    workers: int = 2  # games played at a time while collecting

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset!r}; there are {sorted(PRESETS)}")
        for name in ("steps", "autoencoder_steps", "batch", "frames", "held_out", "windows", "rollouts", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {self.seeds}")
        names = [arm.name for arm in STUDIES[self.study].arms]
        if unknown := sorted(set(self.arms) - set(names)):
            raise ValueError(f"the study {self.study} has no arm {unknown[0]!r}; choose from {names}")

    @property
    def split(self) -> Split:
        """Whose seeds the scores are measured on."""
        return "test" if self.test else "validation"


def ablate(config: AblateConfig) -> Result:
    """Trains what isn't trained, scores what isn't scored, prints the table, writes the report and returns it.

    Raises:
        ValueError: no agent where the study needs one, or held-out episodes that are too short.
        NonFiniteLoss, TrainingStateError, ShardError, EngineCrashed: from training and playing.
    """
    began = time.monotonic()
    study = _chosen(config)
    deadline = float("inf") if config.max_minutes is None else began + 60 * config.max_minutes
    bench = Bench(_given(config, study), _sizes(config), study, config.out, deadline)
    folder = config.out / config.study / config.split
    result = _empty(config, study, bench)
    out_of_time = ""
    for arm, seed in arms_and_seeds(study, config.seeds):
        try:
            result["arms"][arm.name][str(seed)] = _scores(bench, arm, seed, config, folder / "scores")
        except OutOfTime as why:
            out_of_time = str(why)
            break
    _tell(result, folder, out_of_time)
    return result


def _tell(result: Result, folder: Path, out_of_time: str) -> None:
    console = Console()
    if any(result["arms"].values()):
        write(result, folder)
        console.print(table(result))
        console.print(f"table, plot and figures in {folder}", soft_wrap=True)
    if out_of_time:
        console.print(f"out of time: {out_of_time}; run again to go on", soft_wrap=True)


def _chosen(config: AblateConfig) -> Study:
    study = STUDIES[config.study]
    arms = tuple(arm for arm in study.arms if not config.arms or arm.name in config.arms)
    trainings = {(arm.model, arm.build, arm.parts, arm.player) for arm in arms}
    if config.smoke and not config.arms and len(trainings) > 1:
        arms = arms[:_SMOKE_ARMS]
    return replace(study, arms=arms)


def _given(config: AblateConfig, study: Study) -> Given:
    agent = config.agent
    usual = Path("runs/agents") / config.scenario
    needed = not config.smoke or "agent" in study.players
    if agent is None and needed and (usual / "config.json").is_file():
        agent = usual
    return Given(
        scenario=config.scenario,
        preset="tiny" if config.smoke else config.preset,
        checkpoint=config.checkpoint,
        data=config.data,
        random_data=config.random_data,
        agent=agent,
        workers=config.workers,
    )


def _sizes(config: AblateConfig) -> Sizes:
    if config.smoke:
        return SMOKE
    exam = Exam(config.windows, config.rollouts, config.horizon)
    return Sizes(
        frames=config.frames,
        autoencoder_steps=config.autoencoder_steps,
        steps=config.steps,
        batch=config.batch,
        held_out=config.held_out,
        exam=exam,
    )


def _empty(config: AblateConfig, study: Study, bench: Bench) -> Result:
    """The report before anything is measured."""
    return {
        "study": config.study,
        "question": study.question,
        "paper": study.paper,
        "command": command_of(config),
        "split": config.split,
        "players": list(bench.players),
        "seeds": list(config.seeds),
        "horizon": bench.sizes.exam.horizon,
        "device": jax.devices()[0].device_kind,
        "frames": {player: bench.corpus(player).num_frames("train") for player in bench.study_players},
        "arms": {arm.name: {} for arm in study.arms},
    }


def _scores(bench: Bench, arm: Arm, seed: int, config: AblateConfig, folder: Path) -> dict[str, Any]:
    """What was measured before of the same weights in the same way, or what is measured now."""
    world, parts = bench.world(arm, seed)
    conditions = {
        "parts": parts,
        "checkpoint": config.checkpoint,
        "exam": [bench.history, bench.sizes.held_out, *vars(bench.sizes.exam).values()],
    }
    path = folder / f"{re.sub(r'[^a-z0-9.]+', '-', arm.name.lower())}-{seed}.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept.pop("conditions") == conditions:
            return kept
    horizon = bench.sizes.exam.horizon
    measured: dict[str, Any] = {
        player: score(world, bench.exam(config.split, player), arm.dials, horizon) for player in bench.players
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps({"conditions": conditions, **measured}, indent=1) + "\n").encode())
    return measured


def command_of(config: AblateConfig) -> str:
    """The command line that measures the same again."""
    words = [f"neural-env ablate {config.study}"]
    for field in fields(AblateConfig):
        value = getattr(config, field.name)
        if field.name in ("study", "out", "workers", "max_minutes") or value == field.default:
            continue
        option = "--" + field.name.replace("_", "-")
        if value is True:
            words.append(option)
        else:
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"{option} {shown}")
    return " ".join(words)
