"""Building blocks that the auto-encoder, the denoiser and the outcome model share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


def conv(features_in: int, features_out: int, *, rngs: nnx.Rngs, size: int = 3, stride: int = 1) -> nnx.Conv:
    """A `size` x `size` convolution with zero padding."""
    return nnx.Conv(features_in, features_out, (size, size), strides=(stride, stride), padding="SAME", rngs=rngs)


def zero_conv(features_in: int, features_out: int, *, rngs: nnx.Rngs, size: int = 3) -> nnx.Conv:
    """A convolution that starts as zero, so that the branch that it ends starts as no change."""
    return nnx.Conv(
        features_in, features_out, (size, size), padding="SAME", kernel_init=nnx.initializers.zeros, rngs=rngs
    )


def resize_to(x: Float[Array, "b h w c"], height: int, width: int) -> Float[Array, "b H W c"]:
    """Doubles by nearest neighbour, then crops: undoes a stride-2 convolution of an odd size."""
    doubled = x.repeat(2, axis=1).repeat(2, axis=2)
    return doubled[:, :height, :width]


def fourier_features(x: Float[Array, "*b"], features: int) -> Float[Array, "*b features"]:
    """Sines and cosines of `x` (of order 1) at geometric frequencies from 1 to 100."""
    frequency = jnp.geomspace(1.0, 100.0, features // 2)
    phase = x[..., None] * frequency
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


class Position(nnx.Module):
    """A learned map added to the features: Doom's camera never pitches, so rows differ in kind (wall, floor, HUD)."""

    def __init__(self, grid: tuple[int, int], features: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(0.02 * jax.random.normal(rngs.params(), (*grid, features)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Adds the table to every item of the batch."""
        return x + self.table[...]


class ResidualBlock(nnx.Module):
    """Two convolutions around a skip; starts as the identity."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.norm = nnx.RMSNorm(features, rngs=rngs)
        self.first = conv(features, features, rngs=rngs)
        self.second = zero_conv(features, features, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns features of the same shape."""
        return x + self.second(jax.nn.silu(self.first(jax.nn.silu(self.norm(x)))))


class ModulatedBlock(nnx.Module):
    """A residual block whose normalised features are scaled and shifted by the conditioning vector (AdaGN, FiLM)."""

    def __init__(self, features_in: int, features_out: int, embedding: int, *, rngs: nnx.Rngs):
        self.norm_in = nnx.RMSNorm(features_in, rngs=rngs)
        self.first = conv(features_in, features_out, rngs=rngs)
        self.modulation = nnx.Linear(embedding, 2 * features_out, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.norm = nnx.RMSNorm(features_out, use_scale=False, rngs=rngs)
        self.second = zero_conv(features_out, features_out, rngs=rngs)
        self.skip = None if features_in == features_out else conv(features_in, features_out, size=1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"]) -> Float[Array, "b h w d"]:
        """Returns features with `features_out` channels."""
        scale, shift = jnp.split(self.modulation(embedding)[:, None, None], 2, axis=-1)
        h = self.norm(self.first(jax.nn.silu(self.norm_in(x))))
        h = self.second(jax.nn.silu(h * (1 + scale) + shift))
        return h + (x if self.skip is None else self.skip(x))
