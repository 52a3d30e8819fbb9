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
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from neural_env import checkpoint as checkpoints
from neural_env.ablation.parts import Material, OfDenoiser, Part
from neural_env.ablation.score import Exam, HeldOut, held_out
from neural_env.ablation.study import Arm, Player, Study
from neural_env.agents.player import read_agent
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.corpus import Corpus, game_of, thinned
from neural_env.data.episode import Split
from neural_env.data.policies import Policy
from neural_env.data.shards import Dataset, load_manifest, write_whole
from neural_env.evaluation.players import STICKY, players_of
from neural_env.evaluation.world import real_episodes, seeds_of
from neural_env.game import GameConfig, first_difference
from neural_env.training.autoencoder import AutoencoderStage, fit_linear, measure_latents
from neural_env.training.latents import Windows, encoded
from neural_env.training.loop import Batch, DeviceBatch, Logs, LoopConfig, Stage, finished, train
from neural_env.training.optimisers import OptimiserName
from neural_env.training.presets import model_of
from neural_env.training.run import some_frames
from neural_env.training.state import has_state
from neural_env.version import __version__
from neural_env.world.autoencoder import Autoencoder
from neural_env.world.diffusion import EDM
from neural_env.world.distilled import Distilled
from neural_env.world.model import PRESETS, ModelConfig, WorldModel
from neural_env.world.parameters import all_arrays, fingerprint
from neural_env.world.shortcut import Shortcut
from neural_env.world.velocity import VPrediction

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

    scenario: str  # what is played if neither the checkpoint nor the data say
    preset: str
    checkpoint: str | None  # its auto-encoder and sizes are taken; in a study of a whole world its denoiser too
    data: tuple[Path, ...]  # training episodes; none: they are played
    random_data: tuple[Path, ...]  # of random play, for the study that compares
    agent: Path | None  # who plays beside the random player
    player: Player | None  # who plays where an arm doesn't say; None: as the data were, else the agent if there is one
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

    def check(self) -> None:
        """Refuses at once what would fail after hours: arms that can't be built, trained, run or played.

        Raises:
            ValueError: a distilled world whose denoiser an arm trains on or runs in several steps; ages of a memory
                that the model sees anyway; no agent where one plays, or one of another game; data of another game.
        """
        for arm in self.study.arms:
            self._check_runs(arm)
        for player in self.players:
            self._policy(player)
        for player in self.study_players:
            for folder in self._given_folders(player):
                self._check_game(game_of(Dataset.open(folder, verify=False)), str(folder))
        _ = self.history  # builds every arm

    def _check_runs(self, arm: Arm) -> None:
        objective = arm.model(self.model).objective
        cure = "give a world before `train distill`, or choose other --arms"
        if isinstance(objective, Distilled) and any(isinstance(part, OfDenoiser) for part in self._parts(arm)):
            raise ValueError(
                f"{self.given.checkpoint} is distilled and learns from its teacher alone, the arm {arm.name!r} trains "
                f"its denoiser on: {cure}"
            )
        steps, most = arm.dials.get("num_steps", 1), objective.most_steps
        if most is not None and steps > most:
            raise ValueError(f"the arm {arm.name!r} makes {steps} steps a frame, its world at most {most}: {cure}")

    @cached_property
    def model(self) -> ModelConfig:
        """The sizes that arms change. Where arms are trained from nothing, a distilled world's are its teacher's."""
        if self.checkpoint is None:
            return model_of(self.given.preset)
        model = self.checkpoint.model
        if self.study.whole or not isinstance(model.objective, Distilled):
            return model
        teacher = model.objective.teacher
        return replace(model, objective=teacher, num_steps=_usual_steps(teacher))

    @cached_property
    def default_player(self) -> Player:
        """Who plays where an arm doesn't say: whoever played the data that were given."""
        if self.given.player is not None:
            return self.given.player
        if self.given.data:
            return player_of(self.given.data)
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
    def game(self) -> GameConfig:
        """The game that is played and dreamed: the checkpoint's, else the data's, else the scenario."""
        if self.checkpoint is not None:
            return self.checkpoint.game
        if given := (*self.given.data, *self.given.random_data):
            return game_of(Dataset.open(given[0], verify=False))
        return CollectConfig(out=self._folder, scenario=self.given.scenario).describe()

    def _check_game(self, game: GameConfig, whose: str) -> None:
        if difference := first_difference(self.game, game):
            what, mine, its = difference
            raise ValueError(
                f"the study is of a game with the {what} {mine!r}, {whose} has {its!r}: give checkpoint and data of "
                "one game"
            )

    def corpus(self, player: Player) -> Corpus:
        """The training data of a player, about `Sizes.frames` of them; of several players, about as many of each."""
        return self._corpora[player]

    @cached_property
    def _corpora(self) -> dict[Player, Corpus]:
        folders = {player: self._folders(player) for player in self.study_players}
        found = {player: Corpus.open(each, max_frames=self.sizes.frames) for player, each in folders.items()}
        for player, corpus in found.items():
            self._check_game(corpus.game, f"the {player}'s play")
        return alike(found)

    def _folders(self, player: Player) -> tuple[Path, ...]:
        if given := self._given_folders(player):
            return given
        config = self._collection(player)
        collect(config)
        return (Path(config.out),)

    def _given_folders(self, player: Player) -> tuple[Path, ...]:
        return self.given.random_data if player == "random" and len(self.study_players) > 1 else self.given.data

    @cached_property
    def study_players(self) -> tuple[Player, ...]:
        """Whose data the arms need; nobody's, if no arm is trained."""
        return tuple({arm.player or self.default_player: None for arm in self.study.arms if self._parts(arm)})

    def _parts(self, arm: Arm) -> tuple[Part, ...]:
        """What of the arm is trained here: of a whole world, the first part is there already."""
        return arm.parts[1:] if self.study.whole and self.checkpoint is not None else arm.parts

    def frames(self, arm: Arm) -> int:
        """How many frames the arm is trained on here."""
        return self.corpus(arm.player or self.default_player).num_frames("train") if self._parts(arm) else 0

    def trainings(self, seeds: tuple[int, ...]) -> Iterator[tuple[Arm, int]]:
        """Every training of the study, a whole seed after the other: cut early, it has compared something.

        What isn't trained is the same with every seed, and comes once.
        """
        return ((arm, seed) for seed in seeds for arm in self.study.arms if seed == seeds[0] or self._parts(arm))

    def _collection(self, player: Player) -> CollectConfig:
        return CollectConfig(
            out=self._folder / "data" / player,
            scenario=self.game.scenario,
            policy=self._agent_folder() if player == "agent" else None,
            resolution=self.game.resolution,
            frame_skip=self.game.frame_skip,
            episodes=self.sizes.collect,
            max_episode_steps=self.sizes.max_steps,
            workers=self.given.workers,
        )

    def _agent_folder(self) -> Path:
        if self.given.agent is None:
            scenario = self.game.scenario
            cure = f"train one (`neural-env train agent --scenario {scenario}`) and give it with --agent"
            other = "" if self.study.players else ", or let --player random play"
            raise ValueError(f"the study needs an agent that plays {scenario}: {cure}{other}")
        return self.given.agent

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The checkpoint's, or one trained on the play of all arms alike."""
        if self.checkpoint is not None:
            return self.checkpoint.world.autoencoder
        data = [self.corpus(player) for player in self.study_players]
        limit = min(self.sizes.frames, 30_000) // len(data)
        module = WorldModel(self.model, self.game, rngs=nnx.Rngs(0)).autoencoder
        loop = self._loop(self.sizes.autoencoder_steps, self.sizes.batch, 1e-3, 0)
        described = {
            "model": asdict(self.model.autoencoder),
            "data": [corpus.provenance() for corpus in data],
            "frames": limit,
            "loop": _lasting(loop),
            "finish": _described(measure_latents),
        }
        folder = self._part_folder("autoencoder", described)
        if (folder / _WEIGHTS).is_file():  # no frame need be read
            kept: Autoencoder = checkpoints.load_module(module, folder / _WEIGHTS)
            return kept
        frames = np.concatenate([some_frames(corpus, "train", limit) for corpus in data])
        if not has_state(folder / "state"):  # else the trained weights replace it anyway
            module = fit_linear(module, frames[:: max(1, len(frames) // 1024)])
        measured = partial(measure_latents, frames=frames[:: max(1, len(frames) // 4096)])
        stage = partial(AutoencoderStage, frames, frames[:64], 0)
        trained: Autoencoder = self._trained(stage, module, loop, folder, measured)
        return trained

    def examined(self) -> dict[str, Any]:
        """What the scores of equal weights follow from, besides the split; for JSON."""
        agent = fingerprint(all_arrays(read_agent(self._agent_folder()).policy)) if "agent" in self.players else None
        return {
            "game": asdict(self.game),
            "players": list(self.players),
            "agent": agent,
            "history": self.history,
            "episodes": [self.sizes.held_out, self.sizes.max_steps],
            "exam": asdict(self.sizes.exam),
        }

    def exam(self, split: Split, player: Player) -> HeldOut:
        """Held-out play, the same for every arm; played afresh, which equal seeds make equal."""
        if (split, player) not in self._exams:
            seeds = seeds_of(split, self.sizes.held_out)
            episodes = real_episodes(self.game, seeds, [self._policy(player)], self.sizes.max_steps)
            self._exams[split, player] = held_out(episodes, self.autoencoder, self.history, self.sizes.exam)
        return self._exams[split, player]

    def _policy(self, player: Player) -> Policy:
        (policy,) = players_of(self.game, [str(self._agent_folder()) if player == "agent" else STICKY])
        return policy

    @cached_property
    def _exams(self) -> dict[tuple[Split, Player], HeldOut]:
        return {}

    def world(self, arm: Arm, seed: int) -> tuple[WorldModel, list[str]]:
        """The arm's world as it is scored, trained or taken from where it was kept, and the folders of its parts.

        Raises:
            OutOfTime: it isn't trained yet.
        """
        whole = self.checkpoint if self.study.whole else None
        world = _with_autoencoder(self._untrained(arm, seed) if whole is None else whole.world, self.autoencoder)
        folders: list[str] = []
        parts = self._parts(arm)
        described: dict[str, Any] = self._origin(arm, seed) if parts else {}
        for part in parts:
            material = self._material(arm, world, seed)
            steps = max(1, round(part.share * self.sizes.steps))
            loop = self._loop(steps, max(1, self.sizes.batch // part.items), part.learning_rate, seed, part.optimiser)
            described = {"after": described, "part": _described(part), "loop": _lasting(loop)}
            folder = self._part_folder(part.name, described)
            module = self._trained(partial(part.stage, world, material), part.module(world), loop, folder)
            world = part.fitted(world, module)
            folders.append(folder.name)
        world.objective = replace(world.objective, **arm.sampler)
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

    def _loop(
        self, steps: int, batch: int, learning_rate: float, seed: int, optimiser: OptimiserName = "adamw"
    ) -> LoopConfig:
        minutes = max(0.0, (self._deadline - time.monotonic()) / 60)
        return LoopConfig(
            steps=steps,
            batch=batch,
            optimiser=optimiser,
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

    def _trained(
        self,
        stage: Callable[[], Stage[Any]],
        module: Any,
        loop: LoopConfig,
        folder: Path,
        finish: Callable[[Any], Any] = lambda module: module,
    ) -> Any:
        """The module, trained and then finished, or as it was kept; raises `OutOfTime`."""
        if (folder / _WEIGHTS).is_file():
            return checkpoints.load_module(module, folder / _WEIGHTS)
        if time.monotonic() > self._deadline:
            raise OutOfTime(f"{folder.name} is not trained")
        Console().print(f"train {folder.name}")
        module, state = train(_Unvalidated(stage()), module, loop, folder)
        if not finished(state, loop):
            raise OutOfTime(f"{folder.name} is at step {int(state.step)} of {loop.steps}")
        checkpoints.save_module(finish(module), folder / _WEIGHTS)
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


def player_of(folders: tuple[Path, ...]) -> Player:
    """Who played the data: at random, or somebody who knew how, if only in some of them."""
    policies = [policy for folder in folders for policy in load_manifest(folder).policy.split(" + ")]
    return "random" if all(policy.startswith(STICKY) for policy in policies) else "agent"


def alike(found: dict[Player, Corpus]) -> dict[Player, Corpus]:
    """The corpora with as many training frames as the smallest has, to a shard: players are compared, not amounts."""
    least = min((corpus.num_frames("train") for corpus in found.values()), default=0)
    return {
        player: corpus if corpus.num_frames("train") == least else _bounded(corpus, least)
        for player, corpus in found.items()
    }


def _bounded(corpus: Corpus, frames: int) -> Corpus:
    datasets = corpus.datasets
    return replace(corpus, datasets=tuple(thinned(dataset, max(1, frames // len(datasets))) for dataset in datasets))


def _usual_steps(objective: EDM | VPrediction | Shortcut) -> int:
    """How many steps suit a world of that objective: as in the presets, one where there is none."""
    return next((model.num_steps for model in PRESETS.values() if type(model.objective) is type(objective)), 1)
