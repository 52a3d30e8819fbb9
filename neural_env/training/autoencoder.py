"""The auto-encoder's training: principal components in closed form, then the residual by gradient."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from neural_env.arrays import Key
from neural_env.evaluation.frames import psnr
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.world.autoencoder import Autoencoder, to_frames, to_patches, to_pixels
from neural_env.world.parameters import replaced

CODE_NOISE = 0.05  # deviation added to codes in training: the decoder must bear a denoiser's small errors


class AutoencoderStage:
    """Mean squared error of the pixels, which is what PSNR measures."""

    name = "autoencoder"

    def __init__(self, frames: UInt8[np.ndarray, "n H W 3"], validation: UInt8[np.ndarray, "m H W 3"], seed: int):
        self._frames = frames
        self._validation = validation
        self._seed = seed

    def loss(self, module: Autoencoder, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """Squared error in [-1, 1] pixels after a pass through slightly noisy codes."""
        pixels = to_pixels(batch["frames"])
        codes = module.codes(pixels)
        noise = CODE_NOISE * jax.random.normal(key, codes.shape)
        error = jnp.square(module.pixels(codes + noise) - pixels).mean()
        # Keeps the codes near unit variance, so that the noise keeps its meaning.
        spread = jnp.square(jnp.log(codes.std(axis=(0, 1, 2)) + 1e-6)).mean()
        return error + 1e-3 * spread, {"psnr": 10 * jnp.log10(4.0 / error)}

    def batch(self, step: int, size: int) -> Batch:
        """Random training frames."""
        rng = np.random.default_rng([self._seed, step])
        return {"frames": self._frames[np.sort(rng.integers(len(self._frames), size=size))]}

    def validate(self, module: Autoencoder) -> dict[str, float]:
        """Mean PSNR of reconstructed validation frames."""
        return {"psnr": float(np.mean([psnr(a, b).mean() for a, b in reconstructions(module, self._validation)]))}


@jax.jit
def _reconstruct(module: Autoencoder, frames: jax.Array) -> jax.Array:
    return to_frames(module.pixels(module.codes(to_pixels(frames))))


def reconstructions(
    module: Autoencoder, frames: UInt8[np.ndarray, "n H W 3"], size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of frames and what the auto-encoder makes of them, in full batches; what is left over is left out."""
    size = min(size, len(frames))
    for start in range(0, len(frames) - size + 1, size):
        chunk = frames[start : start + size]
        yield chunk, np.asarray(_reconstruct(module, chunk))


def fit_linear(module: Autoencoder, frames: UInt8[np.ndarray, "n H W 3"]) -> Autoencoder:
    """Sets the linear path: whitened principal components of the patches, read back by least squares row by row.

    On a scenario whose camera never pitches this alone is most of the way: a row of patches holds one kind of thing.
    """
    patches = np.asarray(to_patches(to_pixels(jnp.asarray(frames)), module.patch), np.float64)  # n h w p
    channels = module.latent_mean.shape[0]
    mean, components = _whitening(patches.reshape(-1, patches.shape[-1]), channels)
    codes = (patches - mean) @ components
    readers, biases = zip(*(_row_reader(codes[:, r], patches[:, r]) for r in range(patches.shape[1])), strict=True)
    arrays = {
        "encoder.linear.kernel": components,
        "encoder.linear.bias": -mean @ components,
        "decoder.linear.kernel": np.stack(readers),
        "decoder.linear.bias": np.stack(biases),
    }
    return replaced(module, {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()})


def _whitening(patches: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [p] and scaled components [p, c]: codes of unit variance."""
    mean = patches.mean(axis=0)
    centred = patches - mean
    variance, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    return mean, vectors[:, ::-1][:, :channels] / np.sqrt(np.maximum(variance[::-1][:channels], 1e-8))


def _row_reader(codes: np.ndarray, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares weights [c, p] common to a row, and the mean left over at each place [w, p]."""
    code_mean, patch_mean = codes.mean(axis=0), patches.mean(axis=0)
    x = (codes - code_mean).reshape(-1, codes.shape[-1])
    y = (patches - patch_mean).reshape(-1, patches.shape[-1])
    kernel = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ y)
    return kernel, patch_mean - code_mean @ kernel


def measure_latents(module: Autoencoder, frames: UInt8[np.ndarray, "n H W 3"], size: int = 64) -> Autoencoder:
    """Sets the mean and deviation that standardise the latents."""
    size = min(size, len(frames))
    codes = jax.jit(lambda m, f: m.codes(to_pixels(f)))
    chunks = [codes(module, frames[i : i + size]) for i in range(0, len(frames) - size + 1, size)]
    every = np.concatenate([np.asarray(chunk) for chunk in chunks]).astype(np.float64)
    mean, std = every.mean(axis=(0, 1, 2)), every.std(axis=(0, 1, 2))
    return replaced(
        module,
        {"latent_mean": jnp.asarray(mean, jnp.float32), "latent_std": jnp.asarray(std, jnp.float32)},
    )
