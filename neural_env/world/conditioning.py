"""What the denoiser is told besides pictures: actions, noise levels, and the gist of the past as a whole.

Two ways to tell it the actions, behind one interface: a configuration `build`s a conditioner, whose call makes a
condition of what is `Told`, whose `block`s listen to it, and whose `vector` is the condition in one vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from neural_env.arrays import Key, Latent
from neural_env.world.layers import ModulatedBlock, conv, fourier_features

CONTEXT_NOISE_MAX = 0.7  # GameNGen section 3.2.1: level alpha ~ U(0, 0.7)
CONTEXT_NOISE_BUCKETS = 10  # GameNGen section 3.2.1: one learned embedding a bucket


def bucket(levels: Float[Array, "*b"]) -> Int32[Array, "*b"]:
    """The noise bucket, 0 to 9, of a level in [0, 0.7]."""
    index = jnp.floor(levels / CONTEXT_NOISE_MAX * CONTEXT_NOISE_BUCKETS).astype(jnp.int32)
    return jnp.clip(index, 0, CONTEXT_NOISE_BUCKETS - 1)


def corrupt(key: Key, context: Latent, levels: Float[Array, "b n"]) -> Latent:
    """Adds Gaussian noise of deviation `levels` to the context [b, n, h, w, c], each frame at its own level.

    The cure for drift: a model that was taught to see past noise in its context sees past its own errors
    (GameNGen section 3.2.1).
    """
    return context + levels[..., None, None, None] * jax.random.normal(key, context.shape)


@dataclass(frozen=True)
class ContextNoise:
    """How the past is corrupted in training: the levels of its frames, in [0, 0.7], each frame at its own.

    Raises `ValueError` for a level out of that range.
    """

    context_noise: float = CONTEXT_NOISE_MAX  # the highest level; 0 leaves the past clean
    spread: Literal["bounded", "even"] = "bounded"  # below a bound that each item draws, or evenly

    def __post_init__(self) -> None:
        if not 0 <= self.context_noise <= CONTEXT_NOISE_MAX:
            raise ValueError(f"context_noise is a level in [0, {CONTEXT_NOISE_MAX}], got {self.context_noise}")

    def levels(self, key: Key, batch: int, frames: int) -> Float[Array, "b n"]:
        """Of the frames of each item.

        `bounded`: the bound is the square of a uniform number, so a third of the items are as good as clean. With
        `even`, GameNGen's (section 3.2.1), a context of four clean frames is one training item in thousands, and that
        is what play starts from.
        """
        key_item, key_frame = jax.random.split(key)
        levels = self.context_noise * jax.random.uniform(key_frame, (batch, frames))
        if self.spread == "even":
            return levels
        return levels * jnp.square(jax.random.uniform(key_item, (batch, 1)))


class Told(NamedTuple):
    """All that a conditioner hears."""

    context: Float[Array, "b h w k"]  # past frames stacked in channels, oldest first
    actions: Int32[Array, "b n"]
    c_noise: Float[Array, " b"]  # of order 1: how noisy the sample is
    levels: Float[Array, "b n"]  # noise of each past frame, in [0, 0.7]
    present: Bool[Array, " b"] | None = None  # which items have a past; None: all, of a model that always has one
    c_step: Float[Array, " b"] | None = None  # in [0, 1]: how fine the sampler's steps are, to a model that is told


class Sizes(NamedTuple):
    """What a conditioner is built for."""

    actions: int  # of the game
    context: int  # past frames, and actions
    grid: tuple[int, int]  # of a latent
    channels: int  # of a latent
    features: int  # of the conditioning vector
    without_past: bool = False  # whether items without a past occur
    tells_step: bool = False  # whether the network is told the length of the sampler's step


class Listening(Protocol):
    """What a conditioner is to the U-Net."""

    def __call__(self, told: Told) -> Any:
        """Returns the condition, which only the conditioner and its blocks look into.

        Raises:
            ValueError: `told` lacks what the model was built to hear, or has what it was not.
        """
        ...

    def block(self, features_in: int, features_out: int, *, rngs: nnx.Rngs) -> Callable[..., Float[Array, "b h w d"]]:
        """A block of the U-Net: `block(x, condition)`."""
        ...

    def vector(self, condition: Any) -> Float[Array, "b e"]:
        """The condition as one vector."""
        ...


class Gist(nnx.Module):
    """The whole past in one vector: where the player is and how fast, which is how far every pixel is about to move.

    A picture shifts by one distance for each depth. Told that distance, every block can choose the convolutions that
    shift by it; left to find it out place by place, a network this small learns to blur instead.
    """

    def __init__(self, grid: tuple[int, int], channels: int, features: int, *, rngs: nnx.Rngs):
        h, w = (-(-side // 4) for side in grid)
        self.first = conv(channels, 64, stride=2, rngs=rngs)
        self.second = conv(64, 96, stride=2, rngs=rngs)
        self.out = nnx.Linear(h * w * 96, features, rngs=rngs)

    def __call__(self, context: Float[Array, "b h w k"]) -> Float[Array, "b e"]:
        """Returns the gist of the frames stacked in channels."""
        x = nnx.silu(self.second(nnx.silu(self.first(context))))
        return self.out(x.reshape(len(x), -1))


@dataclass(frozen=True)
class AdaGN:
    """Actions in the one vector that scales and shifts the features of every block: for small worlds."""

    kind: Literal["adagn"] = "adagn"

    def build(self, sizes: Sizes, *, rngs: nnx.Rngs) -> Conditioner:
        """The conditioner of this kind."""
        return Conditioner(sizes, rngs=rngs)


class Conditioner(nnx.Module):
    """One vector from the past frames, the actions [b, n], the sample's noise and the context's noise levels [b, n]."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
        features, ages = sizes.features, range(sizes.context)
        self.features = features
        # One table for each place in the context: an action's age matters as much as its kind.
        # Large at the start, or the model learns for an hour to do without them.
        init = nnx.initializers.normal(0.5)
        self.actions = nnx.List([nnx.Embed(sizes.actions, features, embedding_init=init, rngs=rngs) for _ in ages])
        self.levels = nnx.List([nnx.Embed(CONTEXT_NOISE_BUCKETS, features, rngs=rngs) for _ in ages])
        self.gist = Gist(sizes.grid, sizes.context * sizes.channels, features, rngs=rngs)
        self.noise = nnx.Linear(64, features, rngs=rngs)
        self.hidden = nnx.Linear(features, features, rngs=rngs)
        self.out = nnx.Linear(features, features, rngs=rngs)
        # What stands for gist and levels where there is no past; absent from worlds that always have one.
        self.no_past = nnx.Param(jnp.zeros(features)) if sizes.without_past else None
        self.step = nnx.Linear(64, features, rngs=rngs) if sizes.tells_step else None

    def __call__(self, told: Told) -> Float[Array, "b e"]:
        """Returns the embedding [b, features] that modulates every block of the U-Net.

        Raises:
            ValueError: `told` lacks what the model was built to hear, or has what it was not.
        """
        sample = _sample_noise(self.noise, self.step, told)
        x = self.gist(told.context) + sample
        buckets = bucket(told.levels)
        for i, (action, level) in enumerate(zip(self.actions, self.levels, strict=True)):
            x = x + action(told.actions[:, i]) + level(buckets[:, i])
        if told.present is not None:
            x = jnp.where(told.present[:, None], x, self._without_past(told.actions, sample))
        return nnx.silu(self.out(nnx.silu(self.hidden(x))))

    def block(self, features_in: int, features_out: int, *, rngs: nnx.Rngs) -> ModulatedBlock:
        """A block of the U-Net that listens to what `__call__` returns."""
        return ModulatedBlock(features_in, features_out, self.features, rngs=rngs)

    def vector(self, condition: Float[Array, "b e"]) -> Float[Array, "b e"]:
        """The condition as one vector."""
        return condition

    def _without_past(self, actions: Int32[Array, "b n"], sample: Float[Array, "b e"]) -> Float[Array, "b e"]:
        x = _learned(self.no_past)[...] + sample
        for i, action in enumerate(self.actions):
            x = x + action(actions[:, i])
        return x


@dataclass(frozen=True)
class CrossAttention:
    """Actions as a sequence of tokens that every block attends to, in the place of a text (GameNGen section 3.2)."""

    kind: Literal["cross_attention"] = "cross_attention"
    heads: int = 8  # of each attention; they divide the widths of the U-Net

    def build(self, sizes: Sizes, *, rngs: nnx.Rngs) -> TokenConditioner:
        """The conditioner of this kind."""
        return TokenConditioner(sizes, self.heads, rngs=rngs)


class Tokens(NamedTuple):
    """What an `AttendingBlock` listens to."""

    embedding: Float[Array, "b e"]  # noise levels
    actions: Float[Array, "b n e"]


class TokenConditioner(nnx.Module):
    """One learned embedding for each action and one for each age; the vector holds noise levels alone."""

    def __init__(self, sizes: Sizes, heads: int, *, rngs: nnx.Rngs):
        features = sizes.features
        self.features = features
        self.heads = heads
        self.actions = nnx.Embed(sizes.actions, features, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.ages = nnx.Embed(sizes.context, features, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.levels = nnx.List([nnx.Embed(CONTEXT_NOISE_BUCKETS, features, rngs=rngs) for _ in range(sizes.context)])
        self.noise = nnx.Linear(64, features, rngs=rngs)
        self.hidden = nnx.Linear(features, features, rngs=rngs)
        self.out = nnx.Linear(features, features, rngs=rngs)
        self.no_past = nnx.Param(jnp.zeros(features)) if sizes.without_past else None
        self.step = nnx.Linear(64, features, rngs=rngs) if sizes.tells_step else None

    def __call__(self, told: Told) -> Tokens:
        """Returns the vector of noise levels and the action tokens, oldest first.

        Raises:
            ValueError: `told` lacks what the model was built to hear, or has what it was not.
        """
        buckets = bucket(told.levels)
        past = sum(level(buckets[:, i]) for i, level in enumerate(self.levels)) / len(self.levels)
        if told.present is not None:
            past = jnp.where(told.present[:, None], past, _learned(self.no_past)[...])
        x = past + _sample_noise(self.noise, self.step, told)
        embedding = nnx.silu(self.out(nnx.silu(self.hidden(x))))
        return Tokens(embedding, self.actions(told.actions) + self.ages.embedding[...])

    def block(self, features_in: int, features_out: int, *, rngs: nnx.Rngs) -> AttendingBlock:
        """A block of the U-Net that listens to what `__call__` returns."""
        return AttendingBlock(features_in, features_out, self.features, self.heads, rngs=rngs)

    def vector(self, condition: Tokens) -> Float[Array, "b e"]:
        """The newest action's token and the noise levels, as one vector."""
        return condition.embedding + condition.actions[:, -1]


class AttendingBlock(nnx.Module):
    """A modulated block, then attention of every place to the action tokens; that part starts as the identity."""

    def __init__(self, features_in: int, features_out: int, embedding: int, heads: int, *, rngs: nnx.Rngs):
        self.block = ModulatedBlock(features_in, features_out, embedding, rngs=rngs)
        self.norm = nnx.RMSNorm(features_out, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=heads,
            in_features=features_out,
            in_kv_features=embedding,
            qkv_features=features_out,
            out_kernel_init=nnx.initializers.zeros,
            decode=False,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "b h w c"], condition: Tokens) -> Float[Array, "b h w d"]:
        """Returns features with `features_out` channels."""
        x = self.block(x, condition.embedding)
        places = self.norm(x).reshape(len(x), -1, x.shape[-1])
        heard: Float[Array, "b h w d"] = self.attention(places, condition.actions).reshape(x.shape)
        return x + heard


def _sample_noise(noise: nnx.Linear, step: nnx.Linear | None, told: Told) -> Float[Array, "b e"]:
    """What is said about the sample itself: how noisy it is and, to some, how long the sampler's step is."""
    embedding: Float[Array, "b e"] = noise(fourier_features(told.c_noise, 64))
    if step is not None and told.c_step is not None:
        return embedding + step(fourier_features(told.c_step, 64))
    if step is not None or told.c_step is not None:
        hears = "isn't told" if step is None else "must be told"
        raise ValueError(f"this network {hears} the length of the sampler's step: use the objective it was built for")
    return embedding


def _learned(no_past: nnx.Param[Array] | None) -> nnx.Param[Array]:
    if no_past is None:
        raise ValueError("this model always has a past: set UNetConfig.context_dropout and train it")
    return no_past
