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
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import jax
import tyro
from rich.console import Console

from neural_env import checkpoint as checkpoints
from neural_env.ablation.bench import Bench, Given, OutOfTime, Sizes
from neural_env.ablation.report import Result, table, write
from neural_env.ablation.score import Exam, score
from neural_env.ablation.studies import STUDIES
from neural_env.ablation.study import Arm, Player, Study
from neural_env.command import command_line
from neural_env.data.episode import Split
from neural_env.data.shards import load_manifest, write_whole
from neural_env.training.presets import model_of
from neural_env.version import __version__
from neural_env.world.parameters import all_arrays, fingerprint

StudyName: TypeAlias = Literal[
    "steps",
    "level",
    "context",
    "noise",
    "data",
    "objective",
    "first",
    "optimiser",
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
_SMOKE_ARMS = 3  # of a smoke run, no two trained alike; a study whose arms are all trained alike has all of them
_SMOKED = ("preset", "steps", "autoencoder_steps", "batch", "frames", "held_out", "windows", "rollouts", "horizon")


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """Train and score the arms of a study alike; interrupted and run again, it goes on."""

    study: Annotated[StudyName, tyro.conf.Positional]  # which question
    out: Path = Path("out/ablations")  # the folder of all studies: equal parts of them are trained once
    scenario: str | None = None  # what is played; by default what the checkpoint or the data are of, else take_cover
    preset: str = "small"  # the model: a preset, or a .json file of what differs from one
    checkpoint: str | None = None  # a world: its sizes and auto-encoder are used; studies that only evaluate judge it
    data: tuple[Path, ...] = ()  # training episodes; by default they are played: by the agent, else at random
    random_data: tuple[Path, ...] = ()  # those of random play, which the study `data` compares with
    agent: Path | None = None  # who plays; by default runs/agents/SCENARIO, if there is one
    player: Player | None = None  # who plays on held-out seeds; by default whoever played the data, else the agent
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
        model_of(self.preset)  # which refuses what is none
        for name in ("steps", "autoencoder_steps", "batch", "frames", "held_out", "windows", "rollouts", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {self.seeds}")
        defaults = {field.name: field.default for field in fields(self)}
        if self.smoke and (given := [name for name in _SMOKED if getattr(self, name) != defaults[name]]):
            raise ValueError(f"a smoke run has sizes of its own: leave out --{given[0].replace('_', '-')}, or --smoke")
        names = [arm.name for arm in STUDIES[self.study].arms]
        if unknown := sorted(set(self.arms) - set(names)):
            raise ValueError(f"the study {self.study} has no arm {unknown[0]!r}; choose from {names}")
        if len(set(self.arms)) == 1:
            raise ValueError(f"one arm is compared with nothing: give --arms {self.arms[0]!r} and others of {names}")
        if self.player and (players := STUDIES[self.study].players):
            raise ValueError(
                f"the study {self.study} is scored on the play of {' and '.join(players)}: leave out --player"
            )

    @property
    def split(self) -> Split:
        """Whose seeds the scores are measured on."""
        return "test" if self.test else "validation"


def ablate(config: AblateConfig) -> Result:
    """Trains what isn't trained, scores what isn't scored, prints the table, writes the report and returns it.

    Raises:
        ValueError: no agent where the study needs one; checkpoint, data and scenario of different games; a study that
            a distilled world or the model's context has no place for; held-out episodes that are too short.
        CheckpointError, ShardError: an unusable world, agent or dataset.
        NonFiniteLoss, TrainingStateError, EngineCrashed: from training and playing.
    """
    began = time.monotonic()
    study = _chosen(config)
    deadline = float("inf") if config.max_minutes is None else began + 60 * config.max_minutes
    bench = Bench(_given(config, study), _sizes(config), study, config.out, deadline)
    bench.check()
    folder = config.out / config.study / config.split
    result = _empty(config, study, bench)
    out_of_time = ""
    for arm, seed in bench.trainings(config.seeds):
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
    if config.smoke and not config.arms:
        arms = _differently_trained(arms)
    return replace(study, arms=arms)


def _differently_trained(arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
    """The first arm of each training, a few; all arms if there is but one training."""
    first: dict[Any, Arm] = {}
    for arm in arms:
        first.setdefault((arm.model, arm.build, arm.parts, arm.player), arm)
    return arms if len(first) == 1 else tuple(first.values())[:_SMOKE_ARMS]


def _given(config: AblateConfig, study: Study) -> Given:
    scenario, player = _scenario(config), config.player
    usual = Path("runs/agents") / scenario
    agent = usual if config.agent is None and (usual / "config.json").is_file() else config.agent
    if config.smoke and config.agent is None and not config.data and not study.players:
        player = player or "random"  # who needs no training, so that a smoke run is the same everywhere
    return Given(
        scenario=scenario,
        preset="tiny" if config.smoke else config.preset,
        checkpoint=config.checkpoint,
        data=config.data,
        random_data=config.random_data,
        agent=agent,
        player=player,
        workers=config.workers,
    )


def _scenario(config: AblateConfig) -> str:
    """What the checkpoint dreams, or the data were played in; else what is asked for."""
    found = None if config.checkpoint is None else checkpoints.read_game(config.checkpoint).scenario
    for folder in (*config.data, *config.random_data)[:1]:
        found = found or load_manifest(folder).scenario
    if found and config.scenario not in (None, found):
        raise ValueError(f"checkpoint or data are of {found!r}, not {config.scenario!r}: leave out --scenario")
    return found or config.scenario or "take_cover"


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
        "note": study.note,
        "paper": study.paper,
        "command": command_of(config),
        "split": config.split,
        "players": list(bench.players),
        "seeds": list(config.seeds),
        "horizon": bench.sizes.exam.horizon,
        "device": jax.devices()[0].device_kind,
        "frames": {arm.name: bench.frames(arm) for arm in study.arms},
        "arms": {arm.name: {} for arm in study.arms},
    }


def _scores(bench: Bench, arm: Arm, seed: int, config: AblateConfig, folder: Path) -> dict[str, Any]:
    """What was measured before of the same weights in the same way, or what is measured now."""
    world, parts = bench.world(arm, seed)
    dials = arm.dials_for(world)
    conditions = {
        "parts": parts,
        "weights": fingerprint(all_arrays(world)),
        "objective": asdict(world.objective),
        "dials": asdict(dials),
        "examined": bench.examined(),
        "code_version": __version__,
    }
    conditions = json.loads(json.dumps(conditions))  # as they are read again
    path = folder / f"{re.sub(r'[^a-z0-9.]+', '-', arm.name.lower())}-{seed}.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept.pop("conditions") == conditions:
            return kept
    horizon = bench.sizes.exam.horizon
    measured: dict[str, Any] = {
        player: score(world, bench.exam(config.split, player), dials, horizon) for player in bench.players
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps({"conditions": conditions, **measured}, indent=1) + "\n").encode())
    return measured


def command_of(config: AblateConfig) -> str:
    """The command line that measures the same again."""
    given = {field.name: getattr(config, field.name) for field in fields(config)}
    usual = {field.name: field.default for field in fields(config)}
    left_out = ("study", "out", "workers", "max_minutes")
    return command_line(f"neural-env ablate {config.study}", given, usual=usual, left_out=left_out)
