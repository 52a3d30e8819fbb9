"""What the denoiser is told besides pictures: actions, noise levels, and the gist of the past as a whole."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from neural_env.arrays import Key, Latent
from neural_env.world.layers import conv, fourier_features

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


def sample_levels(key: Key, batch: int, frames: int, highest: float = CONTEXT_NOISE_MAX) -> Float[Array, "b n"]:
    """Training levels in [0, highest], independent per frame below a bound that each item draws for itself.

    The bound is the square of a uniform number: a third of the items are as good as clean. With the paper's even
    spread, a context of four clean frames would be one training item in thousands, and that is what play starts from.
    """
    key_item, key_frame = jax.random.split(key)
    bound = highest * jnp.square(jax.random.uniform(key_item, (batch, 1)))
    return bound * jax.random.uniform(key_frame, (batch, frames))


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


class Conditioner(nnx.Module):
    """One vector from the past frames, the actions [b, n], ln(sigma)/4 [b] and the context's noise levels [b, n]."""

    def __init__(
        self,
        num_actions: int,
        context: int,
        grid: tuple[int, int],
        channels: int,
        features: int,
        *,
        without_past: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = features
        # One table for each place in the context: an action's age matters as much as its kind.
        # Large at the start, or the model learns for an hour to do without them.
        init = nnx.initializers.normal(0.5)
        self.actions = nnx.List(
            [nnx.Embed(num_actions, features, embedding_init=init, rngs=rngs) for _ in range(context)]
        )
        self.levels = nnx.List([nnx.Embed(CONTEXT_NOISE_BUCKETS, features, rngs=rngs) for _ in range(context)])
        self.gist = Gist(grid, context * channels, features, rngs=rngs)
        self.noise = nnx.Linear(64, features, rngs=rngs)
        self.hidden = nnx.Linear(features, features, rngs=rngs)
        self.out = nnx.Linear(features, features, rngs=rngs)
        # What stands for gist and levels where there is no past; absent from worlds that always have one.
        self.no_past = nnx.Param(jnp.zeros(features)) if without_past else None

    def __call__(
        self,
        context: Float[Array, "b h w k"],
        actions: Int32[Array, "b n"],
        c_noise: Float[Array, " b"],
        levels: Float[Array, "b n"],
        present: Bool[Array, " b"] | None = None,
    ) -> Float[Array, "b e"]:
        """Returns the embedding [b, features] that modulates every block of the U-Net.

        Raises:
            ValueError: `present` is given, to a model that has always seen a past.
        """
        x = self.gist(context) + self.noise(fourier_features(c_noise, 64))
        buckets = bucket(levels)
        for i, (action, level) in enumerate(zip(self.actions, self.levels, strict=True)):
            x = x + action(actions[:, i]) + level(buckets[:, i])
        if present is not None:
            x = jnp.where(present[:, None], x, self._without_past(actions, c_noise))
        return nnx.silu(self.out(nnx.silu(self.hidden(x))))

    def _without_past(self, actions: Int32[Array, "b n"], c_noise: Float[Array, " b"]) -> Float[Array, "b e"]:
        if self.no_past is None:
            raise ValueError("this model always has a past: set UNetConfig.context_dropout and train it")
        x = self.no_past[...] + self.noise(fourier_features(c_noise, 64))
        for i, action in enumerate(self.actions):
            x = x + action(actions[:, i])
        return x
