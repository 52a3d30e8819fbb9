"""The decoder's fine-tuning: the decoder alone, squared error of the pixels (GameNGen section 3.2.2).

It learns on two kinds of latents: the encoder's, and those that the denoiser predicts from the true past, whose errors
it learns to see through. The dream goes on in latents and never feels the decoder, so nothing but the picture changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.progress import track

from neural_env.arrays import Key, Latent, Pixels
from neural_env.data.corpus import Corpus
from neural_env.data.episode import Split
from neural_env.evaluation.frames import psnr
from neural_env.game import HUD_SHARE
from neural_env.training.latents import Windows, frames_at
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.world.autoencoder import Autoencoder, Decoder, to_frames, to_pixels
from neural_env.world.model import WorldModel

_CHUNK = 64  # frames at a time outside of training


class Pairs(NamedTuple):
    """Frames, and what they are decoded from."""

    frames: np.ndarray  # [m, H, W, 3] uint8, the truth
    real: np.ndarray  # [m, h, w, c] latents of the frames
    predicted: np.ndarray  # [m, h, w, c] the denoiser's latents, from the true past


class DecoderStage:
    """Mean squared error of the pixels on real and on predicted latents."""

    name = "decoder"

    def __init__(self, autoencoder: Autoencoder, training: Pairs, validation: Pairs, seed: int):
        self._autoencoder = autoencoder
        self._training = training
        self._validation = validation
        self._seed = seed
        self._before = self._scores(autoencoder.decoder)

    def loss(self, module: Decoder, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """Squared error in [-1, 1] pixels, both kinds of latents alike."""
        pixels = to_pixels(batch["frames"])
        errors = {
            kind: jnp.square(self._decode(module, batch[kind].astype(jnp.float32)) - pixels).mean()
            for kind in ("real", "predicted")
        }
        logs = {f"psnr_{kind}": 10 * jnp.log10(4.0 / error) for kind, error in errors.items()}
        return (errors["real"] + errors["predicted"]) / 2, logs

    def batch(self, step: int, size: int) -> Batch:
        """Random training frames with their latents."""
        rng = np.random.default_rng([self._seed, step])
        chosen = np.sort(rng.integers(len(self._training.frames), size=size))
        return {name: array[chosen] for name, array in self._training._asdict().items()}

    def validate(self, module: Decoder) -> dict[str, float]:
        """PSNR on both kinds of latents, of the whole frame and of the HUD, and each one's gain over the start."""
        scores = self._scores(module)
        return scores | {f"{name}_gain": score - self._before[name] for name, score in scores.items()}

    def _decode(self, module: Decoder, latent: Latent) -> Pixels:
        return with_decoder(self._autoencoder, module).decode(latent)

    def _scores(self, module: Decoder) -> dict[str, float]:
        scores: dict[str, list[np.ndarray]] = {}
        for frames, real, predicted in _chunks(self._validation):
            top = frames.shape[1] - round(frames.shape[1] * HUD_SHARE)
            for kind, latent in (("real", real), ("predicted", predicted)):
                shown = np.asarray(_show(with_decoder(self._autoencoder, module), latent))
                scores.setdefault(f"psnr_{kind}", []).append(psnr(shown, frames))
                scores.setdefault(f"hud_psnr_{kind}", []).append(psnr(shown[:, top:], frames[:, top:]))
        return {name: float(np.concatenate(values).mean()) for name, values in scores.items()}


def pairs_of(world: WorldModel, corpus: Corpus, split: Split, windows: Windows, count: int) -> Pairs:
    """At most `count` pairs, spread evenly over the windows, whose next latents the denoiser predicts in one step."""
    last = windows.index[np.unique(np.linspace(0, len(windows.index) - 1, count).astype(int))]
    real, predicted = [], []
    for start in track(range(0, len(last), _CHUNK), description=f"predict {split}"):
        rows = np.minimum(np.arange(start, start + _CHUNK), len(last) - 1)  # one shape: the last row fills it up
        batch = windows.gather(last[rows])
        real.append(batch["latent"].astype(np.float16))
        predicted.append(np.asarray(_predict(world, batch["context"], batch["actions"]), np.float16))
    latents = (np.concatenate(parts)[: len(last)] for parts in (real, predicted))
    return Pairs(frames_at(corpus, split, last + 1), *latents)


@jax.jit
def _predict(world: WorldModel, context: jax.Array, actions: jax.Array) -> jax.Array:
    return world.imagine(jax.random.key(0), context, actions, num_steps=1)


def with_decoder(autoencoder: Autoencoder, decoder: Decoder) -> Autoencoder:
    """A copy of the auto-encoder with another decoder."""
    graph, state = nnx.split(autoencoder)
    copy: Autoencoder = nnx.merge(graph, state)
    copy.decoder = decoder
    return copy


@jax.jit
def _show(autoencoder: Autoencoder, latent: jax.Array) -> jax.Array:
    return to_frames(autoencoder.decode(latent.astype(jnp.float32)))


def _chunks(pairs: Pairs) -> Iterator[Pairs]:
    """Chunks of one size, so that nothing is compiled twice; what is left over is left out."""
    size = min(_CHUNK, len(pairs.frames))
    for start in range(0, len(pairs.frames) - size + 1, size):
        yield Pairs(*(array[start : start + size] for array in pairs))
