"""Eyes that see latents: an agent can learn in a dream without the decoder, and play the real game with the encoder.

::

    in the dream                     next latent --codes--> network
    in the real game   screen --encoder--> latent --codes--> network

A code is a latent as 8 bits a number, so that to the rest of the agent it is a small picture of many colours.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from neural_env.arrays import Frames, Latent
from neural_env.world.autoencoder import Autoencoder, AutoencoderConfig, to_patches, to_pixels

_RANGE = 6.0  # deviations of a latent that a code spans, either way: a step of a code is 0.05 deviations


def codes(latent: Latent) -> UInt8[Array, "*b h w c"]:
    """Latents `[*b, h, w, c]`, of mean 0 and deviation 1, as [0, 255] uint8; 6 deviations and more are the same."""
    return jnp.clip(jnp.round((latent / _RANGE + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def latents(seen: UInt8[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """What `codes` made them of, to half a step."""
    return (seen.astype(jnp.float32) / 127.5 - 1.0) * _RANGE


class Eyes(nnx.Module):
    """The half of a world's auto-encoder that makes latents of screens."""

    def __init__(self, autoencoder: Autoencoder, config: AutoencoderConfig):
        self.config = config
        self.encoder = autoencoder.encoder
        self.latent_mean = autoencoder.latent_mean
        self.latent_std = autoencoder.latent_std

    def __call__(self, frames: Frames) -> UInt8[Array, "b h w c"]:
        """Codes of screens [b, H, W, 3]: equal to `codes(world.encode(frames))`."""
        latent = self.encoder(to_patches(to_pixels(frames), self.config.patch))
        return codes((latent - self.latent_mean[...]) / self.latent_std[...])


def blind(config: AutoencoderConfig, resolution: tuple[int, int]) -> Eyes:
    """Eyes of these sizes that have learned nothing: what a file's arrays are put into."""
    return Eyes(Autoencoder(config, resolution, rngs=nnx.Rngs(0)), config)
