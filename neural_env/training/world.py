"""`neural-env world SCENARIO PRESET MINUTES`: from nothing to a scored world, unattended, within a budget.

::

    random play -> agent -> its play -> autoencoder -> denoiser -> outcome -> rollout -> distill -> decoder
                -> bundle -> evaluate

    OUT/progress.json   what is done, what it took, how many steps each stage is given
    OUT/data/ agent/ run/ world/ report/     the stages' own files

A step is given its share of what is left of the budget, so what one saves the later ones have. How many updates fit
into a stage's minutes is measured in its first tenth and then kept, for the learning rate falls over them. Whatever is
killed is run again and goes on. With `slice_minutes` the program ends after so long and `finished` is false.

A machine that is lent for minutes keeps nothing: with `carry`, what the next slice can't make again quickly is packed
into files of at most 16 MB there, and taken from there. Episodes and latents aren't among it: equal seeds give equal
episodes, and encoding takes seconds on the machines that are lent so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console

from neural_env.agents.player import read_agent_game
from neural_env.checkpoint import read_game, read_model
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.mixture import Mixture
from neural_env.data.shards import write_whole
from neural_env.data.vizdoom import checked_resolution, scenario_named
from neural_env.evaluation.run import EvaluateConfig, evaluate
from neural_env.runtime import usable_cores
from neural_env.training import carry
from neural_env.training.agent import AgentRun, train_agent
from neural_env.training.loop import LoopConfig
from neural_env.training.presets import label_of, model_of
from neural_env.training.run import (
    AutoencoderRun,
    BundleRun,
    DecoderRun,
    DenoiserRun,
    DistillRun,
    OutcomeRun,
    RolloutRun,
    TrainConfig,
    bundle,
    train_autoencoder,
    train_decoder,
    train_denoiser,
    train_distill,
    train_outcome,
    train_rollout,
)
from neural_env.world.conditioning import ContextNoise
from neural_env.world.model import ModelConfig, usual_screen

SHARES = {  # of the budget
    "random_play": 0.03,
    "agent": 0.20,
    "agent_play": 0.05,
    "autoencoder": 0.16,
    "denoiser": 0.36,
    "outcome": 0.07,
    "rollout": 0.10,
    "distill": 0.08,
    "decoder": 0.04,  # after all that changes the denoiser, for it learns to see through the denoiser's errors
    "bundle": 0.01,
    "evaluate": 0.10,
}
_TRAIN: dict[str, tuple[type[TrainConfig], Callable[[Any], None]]] = {
    "autoencoder": (AutoencoderRun, train_autoencoder),
    "denoiser": (DenoiserRun, train_denoiser),
    "outcome": (OutcomeRun, train_outcome),
    "rollout": (RolloutRun, train_rollout),
    "distill": (DistillRun, train_distill),
    "decoder": (DecoderRun, train_decoder),
}
_MEASURED = 0.1  # of a stage's minutes, before it is said how many updates it makes
_UNKNOWN_STEPS = 1_000_000  # until then: the learning rate stays at its highest
_MARGIN = 0.95  # of the time that is left when the updates are counted
_ACCELERATED_BATCH = 4  # times that of two CPU cores
_DENOISER_CLIP = 10.0  # at 1 the gradients of just the batches with something rare in them would be cut


@dataclass(frozen=True, kw_only=True)
class WorldRun:
    """Make a world of a scenario: data, agent, every stage, checkpoint and scores; run again, it goes on."""

    scenario: Annotated[str, tyro.conf.Positional]  # what to play
    preset: Annotated[str, tyro.conf.Positional]  # the model: a preset, or a .json file of what differs from one
    minutes: Annotated[float, tyro.conf.Positional]  # the budget, of all slices together
    out: Path | None = None  # the folder of everything; by default out/worlds/SCENARIO-PRESET
    resolution: tuple[int, int] | None = None  # height and width of the game; by default 240 320 for base, else 120 160
    agent: Path | None = None  # a trained one; by default runs/agents/SCENARIO if it plays at that resolution, else new
    episodes: int = 600  # of random play, and as many of the agent's
    max_episode_steps: int = 525  # an episode is cut off after so many steps
    max_frames_per_dataset: int | None = None  # bounds what is read; by default what there is time to encode
    init_from: str | None = None  # a world whose auto-encoder and denoiser learn on, of as many actions
    mixture: Mixture = field(default_factory=lambda: Mixture(uniform=0.55, events=0.45, lead=6))  # of denoising
    without: tuple[Literal["rollout", "distill", "decoder"], ...] = ()  # stages that the recipe is to leave out
    noise: ContextNoise = field(default_factory=ContextNoise)  # by which the denoiser's past is corrupted
    evaluation_episodes: int = 30  # of test seeds
    evaluation_rollouts: int = 64  # dreams
    workers: int = usable_cores()  # games played at a time
    seed: int = 0  # of all trainings
    slice_minutes: float | None = None  # end after about so long, to be run again
    carry: Path | None = None  # folder of what goes from slice to slice, in files of at most 16 MB

    def __post_init__(self) -> None:
        self.model.autoencoder.grid(self.screen)
        self._check_origin()
        for name in ("minutes", "slice_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0, got {value}")
        if self.episodes < 12:
            raise ValueError(f"episodes must be at least 12, so that every split has some, got {self.episodes}")
        if self.agent is not None and (plays := read_agent_game(self.agent).resolution) != self.screen:
            cure = "give another --agent, or none to have one trained"
            raise ValueError(f"the agent {self.agent} plays at {plays}, the world is made at {self.screen}: {cure}")

    def _check_origin(self) -> None:
        if self.init_from is None:
            return
        parent, cure = read_model(self.init_from), "choose another, or begin from nothing"
        there, here = (len(actions) for actions in (read_game(self.init_from).action_names, self._actions()))
        if there != here:
            raise ValueError(f"{self.init_from} has {there} actions, {self.scenario} has {here}: {cure}")
        if (parent.autoencoder, parent.unet) != (self.model.autoencoder, self.model.unet):
            raise ValueError(f"{self.init_from} is of other sizes than the preset {label_of(self.preset)}: {cure}")

    def _actions(self) -> tuple[str, ...]:
        return scenario_named(self.scenario).action_names

    @property
    def max_frames(self) -> int:
        """Of a dataset. Two CPU cores encode 350 in a second: those of two datasets take a twentieth of the budget."""
        if self.max_frames_per_dataset is not None:
            return self.max_frames_per_dataset
        return max(2_000, int(300 * self.minutes)) if jax.default_backend() == "cpu" else 200_000

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return self.out or Path("out/worlds") / f"{self.scenario}-{label_of(self.preset)}"

    @property
    def screen(self) -> tuple[int, int]:
        """Height and width of the game's frames."""
        return checked_resolution(self.resolution or usual_screen(self.preset, self.model))

    @property
    def model(self) -> ModelConfig:
        """What the preset stands for."""
        return model_of(self.preset)

    @property
    def trained_agent(self) -> Path | None:
        """The agent that needs no training."""
        if self.agent is not None:
            return self.agent
        usual = Path("runs/agents") / self.scenario
        there = (usual / "config.json").is_file() and read_agent_game(usual).resolution == self.screen
        return usual if there else None


def make_world(run: WorldRun) -> bool:
    """Goes on with the world; whether it is finished.

    Raises:
        ValueError: the folder or the carried files hold another run.
        EngineCrashed, NonFiniteLoss, TrainingStateError: from the stages; run again to go on.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    if run.carry is not None and not (run.folder / "progress.json").exists():
        carry.unpack(run.carry, run.folder)
    maker = _Maker(run)
    try:
        finished = maker.go_on()
    finally:
        if run.carry is not None:
            carry.pack(run.folder, run.carry, left_out=maker.left_out())
    said = f"the world is in {run.folder / 'world'}" if finished else "the slice is over; run again to go on"
    Console().print(said, soft_wrap=True)
    return finished


class _Maker:
    """One slice."""

    def __init__(self, run: WorldRun) -> None:
        self.run = run
        self._end = time.monotonic() + (60 * run.slice_minutes if run.slice_minutes is not None else float("inf"))
        self._at_work = False
        self._path = run.folder / "progress.json"
        self._progress = self._begun()

    def go_on(self) -> bool:
        """Steps that aren't done, in order; whether all are."""
        for name in self._steps():
            while name not in self._progress["done"]:
                if not self._fits(name):
                    return False
                began, self._at_work = time.monotonic(), True
                over = self._step(name)
                self._progress["spent"][name] = self._spent(name) + time.monotonic() - began
                if over or self._left(name) <= 0:
                    self._progress["done"].append(name)
                self._save()
        return True

    def left_out(self) -> list[str]:
        """What needn't be carried: what is made again, and the states of stages that are done."""
        done = [f"run/{name}/state" for name in self._progress["done"]]
        if "agent" in self._progress["done"]:
            done += ["agent/state", "agent/versions"]
        return ["data", "run/latents", *done]

    def _begun(self) -> dict[str, Any]:
        free = ("out", "workers", "slice_minutes", "carry", "agent")
        model = {"preset": label_of(self.run.preset), "model": asdict(self.run.model)}  # a file's content, not its path
        given = {"resolution": self.run.screen, "max_frames_per_dataset": self.run.max_frames}
        asked = {**asdict(self.run), **model, **given}
        settings = {k: v for k, v in asked.items() if k not in free}
        settings = json.loads(json.dumps(settings))  # as they are found: lists for tuples
        fresh = {"run": settings, "batch": self._batch(), "done": [], "allowed": {}, "spent": {}, "steps": {}}
        if not self._path.exists():
            return fresh
        found: dict[str, Any] = json.loads(self._path.read_text())
        for name, value in settings.items():
            if found["run"].get(name, value) != value:  # a setting that there wasn't had today's default
                cure = "give another --out, or the same settings to go on with it"
                raise ValueError(f"{self.run.folder} holds a run with {name} {found['run'].get(name)!r}: {cure}")
        return found

    def _batch(self) -> int:
        return 1 if jax.default_backend() == "cpu" else _ACCELERATED_BATCH

    def _save(self) -> None:
        write_whole(self._path, (json.dumps(self._progress, indent=1) + "\n").encode())

    def _steps(self) -> list[str]:
        left_out = (*self.run.without, *(["agent"] if self.run.trained_agent else []))
        return [name for name in SHARES if name not in left_out]

    def _spent(self, name: str) -> float:
        return float(self._progress["spent"].get(name, 0.0))

    def _left(self, name: str) -> float:
        """Seconds of the budget that the step has; fixed when it begins, from what is left then."""
        allowed = self._progress["allowed"]
        if name not in allowed:
            open_steps = [step for step in self._steps() if step not in self._progress["done"]]
            rest = 60 * self.run.minutes - sum(self._progress["spent"].values())
            allowed[name] = max(0.0, rest) * SHARES[name] / sum(SHARES[step] for step in open_steps)
            self._save()
        return float(allowed[name]) - self._spent(name)

    def _fits(self, name: str) -> bool:
        """Whether the slice has time for something of the step: half a minute, or all of what can't be cut."""
        slice_left = self._end - time.monotonic()
        needed = min(30.0, self._left(name)) if name in (*_TRAIN, "agent") else self._left(name)
        return not self._at_work or slice_left > needed  # every slice makes something, or there would be no end

    def _minutes(self, name: str) -> float:
        return max(0.0, min(self._left(name), self._end - time.monotonic())) / 60

    def _step(self, name: str) -> bool:
        """Makes the step, or as much of it as fits; whether it is done."""
        self._data_are_there(name)
        Console().print(f"{name}: {self._left(name) / 60:.1f} minutes of the budget")
        if name in _TRAIN:
            return self._train(name)
        others: dict[str, Callable[[], bool]] = {
            "agent": self._train_agent,
            "bundle": self._bundle,
            "evaluate": self._evaluate,
        }
        return others.get(name, partial(self._play, name))()

    def _data_are_there(self, name: str) -> None:
        """Plays again what a machine that keeps nothing has lost."""
        for play in ("random_play", "agent_play"):
            if name != play and play in self._progress["done"] and name != "evaluate":
                self._play(play)

    def _play(self, name: str) -> bool:
        run = self.run
        collect(
            CollectConfig(
                out=run.folder / "data" / name,
                scenario=run.scenario,
                policy=None if name == "random_play" else run.trained_agent or run.folder / "agent",
                episodes=run.episodes,
                resolution=run.screen,
                first_seed=0 if name == "random_play" else 1_000_000,
                max_episode_steps=run.max_episode_steps,
                workers=run.workers,
            )
        )
        return True

    def _train_agent(self) -> bool:
        tiny = self.run.preset == "tiny"
        run = AgentRun(
            out=self.run.folder / "agent",
            scenario=self.run.scenario,
            preset="tiny" if tiny else "fast",
            reward="scenario",
            resolution=self.run.screen,
            total_steps=10_000_000,
            max_episode_steps=self.run.max_episode_steps,
            workers=self.run.workers,
            seed=self.run.seed,
            max_minutes=self._minutes("agent"),
            checkpoint_minutes=1.0,
        )
        train_agent(run)
        return False  # the minutes end it

    def _train(self, name: str) -> bool:
        config, train = _TRAIN[name]
        steps = self._progress["steps"].get(name)
        if steps is None:
            minutes = min(self._minutes(name), _MEASURED * self._left(name) / 60)
            train(self._stage(config, _UNKNOWN_STEPS, minutes))
            self._progress["steps"][name] = self._updates_that_fit(name, minutes)
            return False
        train(self._stage(config, steps, self._minutes(name)))
        return self._made(name) >= int(steps)

    def _updates_that_fit(self, name: str, minutes: float) -> int:
        """By the median speed between two lines of the log: neither compilation nor an interruption counts."""
        log = (self.run.folder / "run" / name / "metrics.jsonl").read_text().splitlines()
        lines = [line for line in map(json.loads, log) if line["split"] == "train"]
        pairs = [(b["step"] - a["step"], b["time"] - a["time"]) for a, b in pairwise(lines)]
        rates = [steps / seconds for steps, seconds in pairs if steps > 0 and seconds > 0]
        left = self._left(name) - 60 * minutes
        return self._made(name) + max(1, int(_MARGIN * left * (median(rates) if rates else 0.0)))

    def _made(self, name: str) -> int:
        return int(json.loads((self.run.folder / "run" / name / "stage.json").read_text())["steps"])

    def _stage(self, config: type[TrainConfig], steps: int, minutes: float) -> TrainConfig:
        run = self.run
        data = tuple(run.folder / "data" / name for name in ("random_play", "agent_play"))
        plain = config(data=data, out=run.folder / "run", preset=run.preset)
        loop: LoopConfig = replace(
            plain.loop,
            steps=steps,
            batch=plain.loop.batch * self._progress["batch"],
            warmup=min(plain.loop.warmup, max(1, steps // 10)),
            seed=run.seed,
            max_minutes=minutes,
            checkpoint_minutes=1.0,
            validate_minutes=10.0,
            log_every=10,
        )
        stage = replace(plain, loop=loop, max_frames_per_dataset=run.max_frames)
        if isinstance(stage, AutoencoderRun | DenoiserRun):
            stage = replace(stage, init_from=run.init_from)
        if isinstance(stage, DenoiserRun):
            stage = replace(stage, loop=replace(loop, clip=_DENOISER_CLIP), mixture=run.mixture, noise=run.noise)
        return stage

    def _bundle(self) -> bool:
        run = self.run
        data = tuple(run.folder / "data" / name for name in ("random_play", "agent_play"))
        bundle(
            BundleRun(
                data=data,
                run=run.folder / "run",
                out=run.folder / "world",
                preset=run.preset,
                max_frames_per_dataset=run.max_frames,
            )
        )
        return True

    def _evaluate(self) -> bool:
        evaluate(
            EvaluateConfig(
                checkpoint=str(self.run.folder / "world"),
                out=self.run.folder / "report",
                episodes=self.run.evaluation_episodes,
                rollouts=self.run.evaluation_rollouts,
                write=True,
            )
        )
        return True
