"""What a study is: arms that differ in one thing, and a question that their scores answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from flax import nnx

from neural_env.ablation.parts import Part, TeacherForced
from neural_env.envs.dials import Dials
from neural_env.game import GameConfig
from neural_env.world.model import ModelConfig, WorldModel

Player: TypeAlias = Literal["agent", "random"]
Change: TypeAlias = Callable[[ModelConfig], ModelConfig]
Build: TypeAlias = Callable[[ModelConfig, GameConfig, int], WorldModel]


def unchanged(model: ModelConfig) -> ModelConfig:
    """The sizes as they are."""
    return model


def plain(model: ModelConfig, game: GameConfig, seed: int) -> WorldModel:
    """The package's own world model, untrained."""
    return WorldModel(model, game, rngs=nnx.Rngs(seed))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the things compared."""

    name: str
    model: Change = unchanged  # the sizes that it has, of the study's
    build: Build = plain
    parts: tuple[Part, ...] = (TeacherForced(),)  # its training, one after the other
    dials: Mapping[str, Any] = field(default_factory=dict)  # those turned when it is scored: fields of `Dials`
    sampler: Mapping[str, Any] = field(default_factory=dict)  # the same of its objective's fields that leave weights be
    player: Player | None = None  # whose play it is trained on; None: whatever the study is given

    def dials_for(self, world: WorldModel) -> Dials:
        """How the trained arm is run: in as many steps as suit it, unless it is about them."""
        return Dials(**{"num_steps": world.num_steps, **self.dials})


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and the arms that answer it; the first is what the others are compared with."""

    question: str
    arms: tuple[Arm, ...]
    players: tuple[Player, ...] = ()  # who plays the episodes it is scored on; none: whoever made the training data
    whole: bool = False  # whether a given checkpoint stands for the first part of every arm, and not its encoder alone
    note: str = ""  # what its figures must be read with
    paper: str = ""  # what GameNGen found

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"a study compares at least two arms of different names, got {names}")
