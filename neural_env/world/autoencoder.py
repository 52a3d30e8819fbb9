"""The auto-encoder: a frame of patches, 8x8 and coded by 16 numbers each at 160x120, 16x16 by 48 at 320x240.

A linear path (each patch's principal components, the reader's weights its own for every row of patches) carries most
of the picture from the first step; a convolutional residual beside it learns the rest. All of the work is done on the
grid of patches, where a CPU convolves fastest; it is 15x20 at either size. `training.autoencoder.fit_linear` sets the
linear path in closed form.

Nothing is padded: 240 rows are 15 patches of 16. GameNGen's 256 are what three halvings of f=8 latents ask for; the
U-Net here crops odd sizes.

        frame [H, W, 3] -> patches [h, w, 192] -+-> linear ------+-> standardise -> latent [h, w, c]
                                                +-> conv blocks -+
        latent -> undo -+-> linear, one per row -+-> patches -> frame
                        +-> conv blocks ---------+
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from neural_env.arrays import Frames, Latent, Pixels
from neural_env.world.layers import Position, ResidualBlock, conv, zero_conv


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the auto-encoder."""

    patch: int = 8  # pixels along the side of a patch: the down-sampling factor f
    channels: int = 16  # numbers that code a patch
    encoder_width: int = 96  # features of the encoder's convolutions
    encoder_blocks: int = 2
    decoder_width: int = 128  # features of the decoder's convolutions
    decoder_blocks: int = 4

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """The latent's height and width for frames of `resolution` (height, width) pixels.

        Raises:
            ValueError: the resolution is not a multiple of the patch.
        """
        if any(side % self.patch for side in resolution):
            cure = "collect with --resize HEIGHT WIDTH, which averages areas"
            raise ValueError(f"resolution {resolution} must be a multiple of the patch size {self.patch}: {cure}")
        return resolution[0] // self.patch, resolution[1] // self.patch


def to_pixels(frames: Frames) -> Pixels:
    """[0, 255] uint8 -> [-1, 1] float32."""
    return frames.astype(jnp.float32) / 127.5 - 1.0


def to_frames(pixels: Pixels) -> Frames:
    """[-1, 1] float32 -> [0, 255] uint8, rounded, out-of-range values clipped."""
    return jnp.clip(jnp.round((pixels + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def to_patches(pixels: Float[Array, "b H W 3"], patch: int) -> Float[Array, "b h w p"]:
    """Cuts frames into a grid of flattened `patch` x `patch` x 3 squares."""
    b, height, width, c = pixels.shape
    x = pixels.reshape(b, height // patch, patch, width // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, height // patch, width // patch, patch * patch * c)


def from_patches(patches: Float[Array, "b h w p"], patch: int) -> Float[Array, "b H W 3"]:
    """Undoes `to_patches`."""
    b, h, w, _ = patches.shape
    x = patches.reshape(b, h, w, patch, patch, 3)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * patch, w * patch, 3)


class LinearReader(nnx.Module):
    """Patches from codes, linearly: weights shared along a row of patches, a mean patch for every place."""

    def __init__(self, grid: tuple[int, int], channels: int, features: int):
        self.kernel = nnx.Param(jnp.zeros((grid[0], channels, features)))
        self.bias = nnx.Param(jnp.zeros((*grid, features)))

    def __call__(self, codes: Float[Array, "b h w c"]) -> Float[Array, "b h w p"]:
        """Returns flattened patches."""
        return jnp.einsum("bhwc,hcp->bhwp", codes, self.kernel[...]) + self.bias[...]


class Encoder(nnx.Module):
    """Patches to codes, not yet standardised."""

    def __init__(self, config: AutoencoderConfig, grid: tuple[int, int], *, rngs: nnx.Rngs):
        patch_features = 3 * config.patch**2
        self.linear = nnx.Linear(patch_features, config.channels, rngs=rngs)
        self.stem = conv(patch_features, config.encoder_width, size=1, rngs=rngs)
        self.position = Position(grid, config.encoder_width, rngs=rngs)
        self.blocks = nnx.List([ResidualBlock(config.encoder_width, rngs=rngs) for _ in range(config.encoder_blocks)])
        self.head = zero_conv(config.encoder_width, config.channels, rngs=rngs)

    def __call__(self, patches: Float[Array, "b h w p"]) -> Float[Array, "b h w c"]:
        """Returns the codes of the patches."""
        h = self.position(self.stem(patches))
        for block in self.blocks:
            h = block(h)
        return self.linear(patches) + self.head(h)


class Decoder(nnx.Module):
    """Codes to patches; GameNGen fine-tunes this half alone."""

    def __init__(self, config: AutoencoderConfig, grid: tuple[int, int], *, rngs: nnx.Rngs):
        patch_features = 3 * config.patch**2
        self.linear = LinearReader(grid, config.channels, patch_features)
        self.stem = conv(config.channels, config.decoder_width, rngs=rngs)
        self.position = Position(grid, config.decoder_width, rngs=rngs)
        self.blocks = nnx.List([ResidualBlock(config.decoder_width, rngs=rngs) for _ in range(config.decoder_blocks)])
        self.norm = nnx.RMSNorm(config.decoder_width, rngs=rngs)
        self.head = zero_conv(config.decoder_width, patch_features, size=1, rngs=rngs)

    def __call__(self, codes: Float[Array, "b h w c"]) -> Float[Array, "b h w p"]:
        """Returns flattened patches, nominally in [-1, 1]."""
        h = self.position(self.stem(codes))
        for block in self.blocks:
            h = block(h)
        return self.linear(codes) + self.head(nnx.silu(self.norm(h)))


class Autoencoder(nnx.Module):
    """Frames to standardised latents and back."""

    def __init__(self, config: AutoencoderConfig, resolution: tuple[int, int], *, rngs: nnx.Rngs):
        grid = config.grid(resolution)
        self.patch = config.patch
        self.encoder = Encoder(config, grid, rngs=rngs)
        self.decoder = Decoder(config, grid, rngs=rngs)
        # Measured on the training frames once the auto-encoder is trained; not learned.
        self.latent_mean = nnx.Variable(jnp.zeros(config.channels))
        self.latent_std = nnx.Variable(jnp.ones(config.channels))

    def encode(self, pixels: Pixels) -> Latent:
        """Codes of `pixels` in [-1, 1], mean 0 and deviation 1 per channel over the training frames."""
        return (self.codes(pixels) - self.latent_mean[...]) / self.latent_std[...]

    def decode(self, latent: Latent) -> Pixels:
        """Pixels of a standardised latent, nominally in [-1, 1]; not clipped, so that a loss sees overshoot."""
        return self.pixels(latent * self.latent_std[...] + self.latent_mean[...])

    def codes(self, pixels: Pixels) -> Float[Array, "b h w c"]:
        """Codes before standardisation: what the auto-encoder's own training works on."""
        return self.encoder(to_patches(pixels, self.patch))

    def pixels(self, codes: Float[Array, "b h w c"]) -> Pixels:
        """Pixels of codes that are not standardised."""
        return from_patches(self.decoder(codes), self.patch)
