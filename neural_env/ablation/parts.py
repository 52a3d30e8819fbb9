"""The parts that an arm's training is made of: each takes a world and leaves one of its modules better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from flax import nnx

from neural_env.data.shards import Dataset
from neural_env.training.decoder import DecoderStage, pairs_of, with_decoder
from neural_env.training.denoiser import DenoiserStage
from neural_env.training.latents import Windows
from neural_env.training.loop import Stage
from neural_env.world.conditioning import CONTEXT_NOISE_MAX
from neural_env.world.model import WorldModel


class Material(NamedTuple):
    """What a part learns from."""

    dataset: Dataset
    windows: Windows  # of its training split, pictures only
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

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """The training of the module, for `training.loop.train`. What validates it is the study, not the stage."""
        ...

    def module(self, world: WorldModel) -> nnx.Module:
        """What is trained."""
        ...

    def fitted(self, world: WorldModel, module: Any) -> WorldModel:
        """The world with that module."""
        ...


@dataclass(frozen=True)
class TeacherForced:
    """The denoiser, on true pasts."""

    context_noise: float = CONTEXT_NOISE_MAX  # highest level at which they are corrupted; 0: never
    share: float = 1.0
    name: str = "denoiser"

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """`DenoiserStage`."""
        return DenoiserStage(world, material.windows, material.windows, self.context_noise)

    def module(self, world: WorldModel) -> nnx.Module:
        """The U-Net."""
        return world.unet

    def fitted(self, world: WorldModel, module: Any) -> WorldModel:
        """The world with that U-Net."""
        world.unet = module
        return world


@dataclass(frozen=True)
class FineDecoder:
    """The decoder alone, on real latents and on those that the denoiser predicts."""

    share: float = 0.3
    name: str = "decoder"

    def stage(self, world: WorldModel, material: Material) -> Stage[Any]:
        """`DecoderStage`."""
        pairs = pairs_of(world, material.dataset, "train", material.windows, material.frames)
        few = type(pairs)(*(array[:64] for array in pairs))
        return DecoderStage(world.autoencoder, pairs, few, material.seed)

    def module(self, world: WorldModel) -> nnx.Module:
        """The decoder."""
        return world.autoencoder.decoder

    def fitted(self, world: WorldModel, module: Any) -> WorldModel:
        """The world with that decoder; its auto-encoder is its own from now on."""
        world.autoencoder = with_decoder(world.autoencoder, module)
        return world
