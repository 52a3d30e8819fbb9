"""The parts that an arm's training is made of: each takes a world and leaves one of its modules better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from flax import nnx

from neural_env.data.corpus import Corpus
from neural_env.training.decoder import DecoderStage, pairs_of, with_decoder
from neural_env.training.denoiser import DenoiserStage
from neural_env.training.distill import DistillConfig, DistillStage
from neural_env.training.latents import Windows
from neural_env.training.loop import Stage
from neural_env.training.optimisers import OptimiserName
from neural_env.training.rollout import RolloutConfig, RolloutStage
from neural_env.world.conditioning import ContextNoise
from neural_env.world.distilled import Distilled
from neural_env.world.model import WorldModel


class Material(NamedTuple):
    """What a part learns from."""

    corpus: Corpus
    windows: Callable[[int], Windows]  # of its training split, pictures only, that go on for so many frames
    frames: int  # at most so many decoded frames held in memory
    seed: int


class Part(Protocol):
    """One stage of training. A frozen dataclass: equal parts, worlds and data are trained once, for all studies."""

    @property
    def name(self) -> str:
        """Of its folder."""
        ...

    @property
    def share(self) -> float:
        """Of the steps of the study."""
        ...

    @property
    def learning_rate(self) -> float:
        """At its highest."""
        ...

    @property
    def optimiser(self) -> OptimiserName:
        """See `training.optimisers`."""
        ...

    @property
    def items(self) -> int:
        """What a window of a batch counts for: as many are drawn fewer."""
        ...

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """The training of the module, for `training.loop.train`. What validates it is the study, not the stage."""
        ...

    def module(self, world: WorldModel) -> nnx.Module:
        """What is trained."""
        ...

    def fitted(self, world: WorldModel, module: Any) -> WorldModel:
        """The world with that module."""
        ...


class OfDenoiser:
    """A part that trains the U-Net."""

    def module(self, world: WorldModel) -> nnx.Module:
        """The U-Net."""
        return world.unet

    def fitted(self, world: WorldModel, module: Any) -> WorldModel:
        """The world with that U-Net."""
        world.unet = module
        return world


@dataclass(frozen=True)
class TeacherForced(OfDenoiser):
    """The denoiser, on true pasts."""

    noise: ContextNoise = field(default_factory=ContextNoise)  # by which they are corrupted
    share: float = 1.0
    learning_rate: float = 1e-3
    optimiser: OptimiserName = "adamw"
    items: int = 1
    name: str = "denoiser"

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """`DenoiserStage`."""
        windows = material.windows(1)
        return DenoiserStage(world, windows, windows, self.noise)


@dataclass(frozen=True)
class OwnFrames(OfDenoiser):
    """The denoiser, after frames that it dreamed itself."""

    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    share: float = 0.2
    learning_rate: float = 2e-4
    optimiser: OptimiserName = "adamw"
    items: int = RolloutConfig.frames
    name: str = "rollout"

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """`RolloutStage`."""
        windows = material.windows(self.rollout.frames)
        return RolloutStage(world, windows, windows.evenly(16, 1), self.rollout)


@dataclass(frozen=True)
class OneStep(OfDenoiser):
    """The denoiser, distilled to one step."""

    distill: DistillConfig = field(default_factory=DistillConfig)
    share: float = 0.3
    learning_rate: float = 2e-4
    optimiser: OptimiserName = "adamw"
    items: int = 1
    name: str = "distill"

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """`DistillStage`."""
        windows = material.windows(1)
        return DistillStage(world, windows, windows, self.distill)

    def fitted(self, world: WorldModel, module: Any) -> WorldModel:
        """The student's world."""
        world.objective = Distilled(teacher=world.objective)  # type: ignore[arg-type]
        world.num_steps = 1
        return super().fitted(world, module)


@dataclass(frozen=True)
class FineDecoder:
    """The decoder alone, on real latents and on those that the denoiser predicts."""

    share: float = 0.3
    learning_rate: float = 3e-4
    optimiser: OptimiserName = "adamw"
    items: int = 1
    name: str = "decoder"

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """`DecoderStage`."""
        pairs = pairs_of(world, material.corpus, "train", material.windows(1), material.frames)
        few = type(pairs)(*(array[:64] for array in pairs))
        return DecoderStage(world.autoencoder, pairs, few, material.seed)

    def module(self, world: WorldModel) -> nnx.Module:
        """The decoder."""
        return world.autoencoder.decoder

    def fitted(self, world: WorldModel, module: Any) -> WorldModel:
        """The world with that decoder; its auto-encoder is its own from now on."""
        world.autoencoder = with_decoder(world.autoencoder, module)
        return world
