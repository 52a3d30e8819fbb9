"""The denoiser's training: noise-augmented context, the objective's loss, weighed by what shows in pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from neural_env.arrays import Key
from neural_env.evaluation.frames import psnr
from neural_env.training.latents import Windows
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.world.autoencoder import Autoencoder
from neural_env.world.conditioning import ContextNoise, corrupt
from neural_env.world.model import WorldModel
from neural_env.world.unet import UNet


class DenoiserStage:
    """Next-latent prediction, teacher-forced."""

    name = "denoiser"

    def __init__(self, world: WorldModel, training: Windows, validation: Windows, noise: ContextNoise | None = None):
        """`noise` corrupts the past; by default as the bundled worlds' was."""
        self._world = world
        self._noise = noise or ContextNoise()
        self._training = training
        self._validation = validation.evenly(32, 12)
        self._weight = channel_weight(world.autoencoder, self._validation[0]["latent"])

    def loss(self, module: UNet, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """The objective's loss on the next latent."""
        key_levels, key_context, key_objective = jax.random.split(key, 3)
        context, size = batch["context"], len(batch["latent"])
        levels = self._noise.levels(key_levels, size, context.shape[1])
        context = corrupt(key_context, context, levels)
        present = with_past(jax.random.fold_in(key, 3), size, module.context_dropout)
        network = module.bound(context, batch["actions"], levels, present)
        each = self._world.objective.loss(network, key_objective, batch["latent"], self._weight)
        return each.mean(), {}

    def batch(self, step: int, size: int) -> Batch:
        """Random training windows."""
        batch = self._training.batch(step, size)
        return {name: batch[name] for name in ("context", "actions", "latent")}

    def validate(self, module: UNet) -> dict[str, float]:
        """Teacher-forced PSNR, with true and with shuffled actions, beside copy-last.

        In the number of steps that suits the world. The reference is the auto-encoder's picture of the real latent, so
        the figures judge the denoiser alone.
        """
        world = with_unet(self._world, module)
        scores: dict[str, list[float]] = {"psnr": [], "psnr_shuffled": [], "psnr_copy_last": []}
        rng = np.random.default_rng(0)
        for batch in self._validation:
            real = decoded(world, batch["latent"])
            shuffled = batch["actions"].copy()
            shuffled[:, -1] = rng.permutation(shuffled[:, -1])
            true = _next_frame(world, batch["context"], batch["actions"])
            false = _next_frame(world, batch["context"], shuffled)
            scores["psnr"].append(float(psnr(np.asarray(true), real).mean()))
            scores["psnr_shuffled"].append(float(psnr(np.asarray(false), real).mean()))
            scores["psnr_copy_last"].append(float(psnr(decoded(world, batch["context"][:, -1]), real).mean()))
        return {name: float(np.mean(values)) for name, values in scores.items()}


def with_past(key: Key, batch: int, dropout: float) -> Bool[Array, " b"] | None:
    """Which items of a batch see their past; None: all, of a model without dropout (GameNGen section 3.2: p = 0.1)."""
    return jax.random.bernoulli(key, 1 - dropout, (batch,)) if dropout else None


def with_unet(world: WorldModel, unet: UNet) -> WorldModel:
    """A copy of the world with another denoiser."""
    graph, state = nnx.split(world)
    copy: WorldModel = nnx.merge(graph, state)
    copy.unet = unet
    return copy


@jax.jit
def _next_frame(world: WorldModel, context: jax.Array, actions: jax.Array) -> jax.Array:
    return world.decode(world.imagine(jax.random.key(0), context, actions, num_steps=world.num_steps))


def decoded(world: WorldModel, latent: np.ndarray | jax.Array) -> np.ndarray:
    """Latents [b, h, w, c] -> [0, 255] uint8 frames [b, H, W, 3], compiled."""
    return np.asarray(jax.jit(WorldModel.decode)(world, latent))


def channel_weight(autoencoder: Autoencoder, latent: np.ndarray) -> Float[Array, " c"]:
    """How much an error in each channel shows: the pixels' squared change per unit of it, mean 1.

    Standardised channels are alike in size and unlike in sight: the first principal component is a whole patch's
    brightness, the last a grain of its texture. A floor of a tenth keeps the grain from being forgotten.
    """
    base = autoencoder.decode(jnp.asarray(latent))
    step = 0.1
    gains = [
        jnp.square(autoencoder.decode(jnp.asarray(latent).at[..., c].add(step)) - base).mean()
        for c in range(latent.shape[-1])
    ]
    gain = jnp.stack(gains)
    return 0.9 * gain / gain.mean() + 0.1
