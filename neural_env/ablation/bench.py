"""What the arms of a study share: data, an auto-encoder, held-out play; and the folder where trained parts are kept.

A part's folder is named by a hash of all that it follows from: sizes, data, the parts before it, settings, seed. So a
command that was killed goes on where it was, equal parts of several studies are trained once, and no part is ever
mistaken for another.

::

    OUT/data/PLAYER/           episodes that were played for the studies, if none were given
    OUT/parts/NAME-HASH/       made.json (what it is), state/, metrics.jsonl, weights.safetensors once it is trained
    OUT/latents/               the data, encoded
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import track

from neural_env import checkpoint as checkpoints
from neural_env.ablation.parts import Material
from neural_env.ablation.score import Exam, HeldOut, held_out
from neural_env.ablation.study import Arm, Player, Study
from neural_env.agents.player import load_agent
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.corpus import Corpus
from neural_env.data.episode import Episode, Split
from neural_env.data.play import play
from neural_env.data.policies import Policy, StickyRandom
from neural_env.data.shards import write_whole
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.world import seeds_of
from neural_env.training.autoencoder import AutoencoderStage, fit_linear, measure_latents
from neural_env.training.latents import Windows, encoded
from neural_env.training.loop import Batch, DeviceBatch, Logs, LoopConfig, Stage, finished, train
from neural_env.training.run import some_frames
from neural_env.training.state import has_state
from neural_env.version import __version__
from neural_env.world.autoencoder import Autoencoder
from neural_env.world.model import PRESETS, ModelConfig, WorldModel
from neural_env.world.parameters import all_arrays, fingerprint

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is played, trained and scored."""

    frames: int = 100_000  # of training data an arm, about
    collect: int = 600  # episodes that are played if no data are given
    max_steps: int = 525  # of an episode
    autoencoder_steps: int = 3_000
    steps: int = 6_000  # of an arm's denoiser; other parts have their share of it
    batch: int = 32
    held_out: int = 16  # episodes that the arms are scored on
    exam: Exam = field(default_factory=Exam)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a study starts from."""

    scenario: str
    preset: str
    checkpoint: str | None  # its auto-encoder and sizes are taken; in a study of a whole world its denoiser too
    data: tuple[Path, ...]  # training episodes; none: they are played
    random_data: tuple[Path, ...]  # of random play, for the study that compares
    agent: Path | None  # who plays beside the random player
    workers: int


class OutOfTime(RuntimeError):
    """The minutes allowed are used up; what is trained is kept."""


class Bench:
    """Everything of a study but its arms' scores."""

    def __init__(self, given: Given, sizes: Sizes, study: Study, folder: Path, deadline: float):
        """`deadline`: time (`time.monotonic`) at which training stops."""
        self.given = given
        self.sizes = sizes
        self.study = study
        self._folder = folder
        self._deadline = deadline

    @cached_property
    def checkpoint(self) -> checkpoints.Checkpoint | None:
        """The world that was given."""
        return None if self.given.checkpoint is None else checkpoints.load(self.given.checkpoint)

    @cached_property
    def model(self) -> ModelConfig:
        """The sizes that arms change."""
        return PRESETS[self.given.preset] if self.checkpoint is None else self.checkpoint.model

    @property
    def default_player(self) -> Player:
        """Who plays where an arm doesn't say."""
        return "random" if self.given.agent is None else "agent"

    @property
    def players(self) -> tuple[Player, ...]:
        """Who plays the held-out episodes."""
        return self.study.players or (self.default_player,)

    @cached_property
    def history(self) -> int:
        """The longest past that any arm looks at: all are trained and scored where there is that much."""
        return max(int(nnx.eval_shape(partial(self._untrained, arm, 0)).context) for arm in self.study.arms)

    def _untrained(self, arm: Arm, seed: int) -> WorldModel:
        return arm.build(arm.model(self.model), self.game, seed)

    @cached_property
    def game(self) -> Any:
        """The game that is played and dreamed."""
        if self.checkpoint is not None:
            return self.checkpoint.game
        return self.corpus(self.default_player).game

    def corpus(self, player: Player) -> Corpus:
        """The training data of a player, about `Sizes.frames` of them."""
        if player not in self._corpora:
            self._corpora[player] = Corpus.open(self._folders(player), max_frames=self.sizes.frames)
        return self._corpora[player]

    @cached_property
    def _corpora(self) -> dict[Player, Corpus]:
        return {}

    def _folders(self, player: Player) -> tuple[Path, ...]:
        given = self.given.random_data if player == "random" and len(self.study_players) > 1 else self.given.data
        if given:
            return given
        config = self._collection(player)
        collect(config)
        return (Path(config.out),)

    @property
    def study_players(self) -> tuple[Player, ...]:
        """Whose data the arms need."""
        return tuple({arm.player or self.default_player: None for arm in self.study.arms})

    def _collection(self, player: Player) -> CollectConfig:
        policy = self._agent_folder() if player == "agent" else None
        return CollectConfig(
            out=self._folder / "data" / player,
            scenario=self.given.scenario,
            policy=policy,
            episodes=self.sizes.collect,
            max_episode_steps=self.sizes.max_steps,
            workers=self.given.workers,
        )

    def _agent_folder(self) -> Path:
        if self.given.agent is None:
            cure = f"train one (`neural-env train agent --scenario {self.given.scenario}`) and give it with --agent"
            raise ValueError(f"the study needs an agent that plays {self.given.scenario}: {cure}")
        return self.given.agent

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The checkpoint's, or one trained on the play of all arms alike."""
        if self.checkpoint is not None:
            return self.checkpoint.world.autoencoder
        data = [self.corpus(player) for player in self.study_players]
        limit = min(self.sizes.frames, 30_000) // len(data)
        frames = np.concatenate([some_frames(corpus, "train", limit) for corpus in data])
        module = WorldModel(self.model, self.game, rngs=nnx.Rngs(0)).autoencoder
        described = {"model": asdict(self.model.autoencoder), "data": [corpus.provenance() for corpus in data]}
        loop = self._loop(self.sizes.autoencoder_steps, self.sizes.batch, 1e-3, 0)
        folder = self._part_folder("autoencoder", {**described, "loop": _lasting(loop)})
        if not has_state(folder / "state"):  # else the trained weights replace it anyway
            module = fit_linear(module, frames[:: max(1, len(frames) // 1024)])
        fitted = self._trained(lambda: AutoencoderStage(frames, frames[:64], 0), module, loop, folder)
        return measure_latents(fitted, frames[:: max(1, len(frames) // 4096)])

    def exam(self, split: Split, player: Player) -> HeldOut:
        """Held-out play, the same for every arm; played afresh, which equal seeds make equal."""
        if (split, player) not in self._exams:
            episodes = self._play(player, seeds_of(split, self.sizes.held_out))
            self._exams[split, player] = held_out(episodes, self.autoencoder, self.history, self.sizes.exam)
        return self._exams[split, player]

    @cached_property
    def _exams(self) -> dict[tuple[Split, Player], HeldOut]:
        return {}

    def _play(self, player: Player, seeds: list[int]) -> list[Episode]:
        game = self.game
        policy: Policy = StickyRandom(len(game.action_names))
        if player == "agent":
            policy = load_agent(self._agent_folder())
        with closing(RealDoom(game.scenario, game.resolution, game.frame_skip)) as env:
            limit = self.sizes.max_steps
            return [play(env, policy, seed=seed, max_steps=limit) for seed in track(seeds, f"the {player} plays")]

    def world(self, arm: Arm, seed: int) -> tuple[WorldModel, list[str]]:
        """The arm's world, trained or taken from where it was kept, and the folders of its parts.

        Raises:
            OutOfTime: it isn't trained yet.
        """
        if self.study.whole and self.checkpoint is not None:
            world, parts = self.checkpoint.world, arm.parts[1:]
        else:
            world, parts = self._untrained(arm, seed), arm.parts
        world = _with_autoencoder(world, self.autoencoder)
        folders: list[str] = []
        described: dict[str, Any] = self._origin(arm, seed)
        for part in parts:
            material = self._material(arm, world, seed)
            steps = max(1, round(part.share * self.sizes.steps))
            loop = self._loop(steps, max(1, self.sizes.batch // part.items), part.learning_rate, seed)
            described = {"after": described, "part": _described(part), "loop": _lasting(loop)}
            folder = self._part_folder(part.name, described)
            module = self._trained(partial(part.stage, world, material), part.module(world), loop, folder)
            world = part.fitted(world, module)
            folders.append(folder.name)
        return world, folders

    def _origin(self, arm: Arm, seed: int) -> dict[str, Any]:
        player = arm.player or self.default_player
        origin = {"autoencoder": fingerprint(all_arrays(self.autoencoder)), "history": self.history}
        if self.study.whole and self.checkpoint is not None:
            origin["unet"] = fingerprint(all_arrays(self.checkpoint.world.unet))
        return {
            **origin,
            "model": asdict(arm.model(self.model)),
            "build": _described(arm.build),
            "data": self.corpus(player).provenance(),
            "seed": seed,
            "code_version": __version__,
        }

    def _material(self, arm: Arm, world: WorldModel, seed: int) -> Material:
        corpus = self.corpus(arm.player or self.default_player)
        data = encoded(corpus, "train", self.autoencoder, self._folder / "latents")
        reach = data.windows(self.history)

        def weigh(starts: np.ndarray, windows: np.ndarray) -> np.ndarray:
            return np.isin(windows, reach).astype(np.float64)

        def windows(ahead: int) -> Windows:
            return Windows(data, world.context, seed, pictures_only=True, weigh=weigh, ahead=ahead)

        return Material(corpus, windows, min(self.sizes.frames, 8_000), seed)

    def _loop(self, steps: int, batch: int, learning_rate: float, seed: int) -> LoopConfig:
        minutes = max(0.0, (self._deadline - time.monotonic()) / 60)
        return LoopConfig(
            steps=steps,
            batch=batch,
            learning_rate=learning_rate,
            warmup=min(200, steps // 4),
            seed=seed,
            max_minutes=None if minutes == float("inf") else minutes,
            checkpoint_minutes=1.0,
            validate_minutes=float("inf"),
        )

    def _part_folder(self, name: str, described: dict[str, Any]) -> Path:
        text = json.dumps(described, indent=1, sort_keys=True)
        folder = self._folder / "parts" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "made.json", (text + "\n").encode())
        return folder

    def _trained(self, stage: Callable[[], Stage[Any]], module: Any, loop: LoopConfig, folder: Path) -> Any:
        if (folder / _WEIGHTS).is_file():
            return checkpoints.load_module(module, folder / _WEIGHTS)
        if time.monotonic() > self._deadline:
            raise OutOfTime(f"{folder.name} is not trained")
        Console().print(f"train {folder.name}")
        module, state = train(_Unvalidated(stage()), module, loop, folder)
        if not finished(state, loop):
            raise OutOfTime(f"{folder.name} is at step {int(state.step)} of {loop.steps}")
        checkpoints.save_module(module, folder / _WEIGHTS)
        return checkpoints.load_module(module, folder / _WEIGHTS)  # placed as at any other time: one compilation


class _Unvalidated:
    """A stage that leaves validation to the study."""

    def __init__(self, stage: Stage[Any]):
        self.name = stage.name
        self._stage = stage

    def loss(self, module: Any, batch: DeviceBatch, key: Any) -> tuple[jax.Array, Logs]:
        """The stage's."""
        return self._stage.loss(module, batch, key)

    def batch(self, step: int, size: int) -> Batch:
        """The stage's."""
        return self._stage.batch(step, size)

    def validate(self, module: Any) -> dict[str, float]:
        """Nothing."""
        return {}


def _lasting(loop: LoopConfig) -> dict[str, Any]:
    """What of its settings a training's result follows from."""
    free = ("max_minutes", "checkpoint_minutes", "validate_minutes", "log_every")
    return {name: value for name, value in asdict(loop).items() if name not in free}


def _described(thing: Any) -> Any:
    """A frozen dataclass by its type and fields, a function by its name: what tells parts and builds apart."""
    if is_dataclass(thing):
        return {"type": type(thing).__name__, **asdict(thing)}  # type: ignore[arg-type]
    return thing.__name__


def _with_autoencoder(world: WorldModel, autoencoder: Autoencoder) -> WorldModel:
    """A copy of the world with that auto-encoder: parts replace modules, and the checkpoint's must stay."""
    graph, state = nnx.split(world)
    copy: WorldModel = nnx.merge(graph, state)
    copy.autoencoder = autoencoder
    return copy


def arms_and_seeds(study: Study, seeds: tuple[int, ...]) -> Iterator[tuple[Arm, int]]:
    """Every training of a study, a whole seed after the other: cut early, it has compared something."""
    return ((arm, seed) for seed in seeds for arm in study.arms)
