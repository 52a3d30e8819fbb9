"""Autoregressive training: the denoiser learns from contexts that it dreamed itself, where its own errors are.

Teacher forcing shows it true pasts only; in play it sees its own. So, from a real past, it dreams a few frames, without
gradient, and its objective asks for the true next frame after each of them. Some items are left teacher-forced, or it
would forget what it knew of clean pasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from neural_env.arrays import Key
from neural_env.evaluation.frames import psnr
from neural_env.training.denoiser import channel_weight, decoded, with_past, with_unet
from neural_env.training.latents import Windows
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.world.conditioning import ContextNoise, corrupt
from neural_env.world.model import WorldModel
from neural_env.world.unet import UNet

HORIZONS = (8, 16, 32)  # steps at which the dream is compared with the game


@dataclass(frozen=True)
class RolloutConfig:
    """How far the model sees itself."""

    frames: int = 6  # of a window to predict, all but the first after own frames; 2 to 16
    forced: float = 0.25  # share of the windows whose every context is true and noise-augmented, as in the stage before

    def __post_init__(self) -> None:
        if not 2 <= self.frames <= 16:
            raise ValueError(f"frames must be 2 to 16, got {self.frames}: with one, no context has an own frame in it")
        if not 0 <= self.forced < 1:
            raise ValueError(f"forced is a share of the windows in [0, 1), got {self.forced}")


class RolloutStage:
    """Next-latent prediction after the model's own frames."""

    name = "rollout"

    def __init__(
        self,
        world: WorldModel,
        training: Windows,
        validation: list[Batch],
        config: RolloutConfig,
        noise: ContextNoise | None = None,
    ):
        """`training` and `validation` go on for several frames; a window of `training` for `config.frames`.

        `noise` corrupts true pasts; by default as the bundled worlds' were.
        """
        self._noise = noise or ContextNoise()
        self._world = world
        self._training = training
        self._validation = validation
        self._config = config
        self._weight = channel_weight(world.autoencoder, validation[0]["latent"])

    def loss(self, module: UNet, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """The objective's loss on every frame of the windows, all at once once the dream is dreamed."""
        key_dream, key_forced, key_levels, key_context, key_past, key_objective = jax.random.split(key, 6)
        size, frames, n = len(batch["latent"]), self._config.frames, batch["context"].shape[1]
        own = jax.lax.stop_gradient(self._dream(module, batch, key_dream))
        forced = jax.random.bernoulli(key_forced, self._config.forced, (size,))
        past = jnp.where(forced[:, None, None, None, None], batch["following"][:, :-1], own)
        context = _slide(jnp.concatenate([batch["context"], past], axis=1), n, frames)
        actions = _slide(jnp.concatenate([batch["actions"], batch["steered"][:, 1:]], axis=1), n, frames)
        # Own frames come as in play: uncorrupted, and said to be so. What is wrong with them is for the model to see.
        levels = jnp.where(jnp.repeat(forced, frames)[:, None], self._noise.levels(key_levels, size * frames, n), 0.0)
        present = with_past(key_past, size * frames, module.context_dropout)
        network = module.bound(corrupt(key_context, context, levels), actions, levels, present)
        target = batch["following"].reshape(size * frames, *batch["latent"].shape[1:])
        each = self._world.objective.loss(network, key_objective, target, self._weight).reshape(size, frames)
        # The same amount of noise at every depth, on average: what grows along the row is what drift costs.
        return each.mean(), {"loss_first": each[:, 0].mean(), "loss_last": each[:, -1].mean()}

    def batch(self, step: int, size: int) -> Batch:
        """Random training windows."""
        batch = self._training.batch(step, size)
        return {name: batch[name] for name in ("context", "actions", "latent", "following", "steered")}

    def validate(self, module: UNet) -> dict[str, float]:
        """Autoregressive PSNR after 1, 8, 16, 32 steps (as far as the windows go), beside holding the present frame.

        The reference is the auto-encoder's picture of the real latent, as in the denoiser's validation.
        """
        world = with_unet(self._world, module)
        scores: dict[str, list[float]] = {}
        for batch in self._validation:
            dreamed = _dreamed(world, batch["context"], batch["actions"], batch["steered"])
            held = decoded(world, batch["context"][:, -1])
            for step in (1, *(horizon for horizon in HORIZONS if horizon <= dreamed.shape[1])):
                real = decoded(world, batch["following"][:, step - 1])
                dream = decoded(world, dreamed[:, step - 1])
                scores.setdefault(f"psnr_step_{step}", []).append(float(psnr(dream, real).mean()))
                scores.setdefault(f"psnr_step_{step}_copy_first", []).append(float(psnr(held, real).mean()))
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def _dream(self, module: UNet, batch: DeviceBatch, key: Key) -> Float[Array, "b k h w c"]:
        """The model's own frames after the present one, but for the last, which is in no context."""
        world = with_unet(self._world, module)
        return dream(world, key, batch["context"], batch["steered"][:, :-1], batch["actions"])


def dream(
    world: WorldModel,
    key: Key,
    context: Float[Array, "b n h w c"],
    steered: Int32[Array, "b k"],
    actions: Int32[Array, "b n"],
) -> Float[Array, "b k h w c"]:
    """The frames that `steered` lead to, each from the frames before it; `actions[:, -1]` is `steered[:, 0]`."""

    def step(
        carry: tuple[Float[Array, "b n h w c"], Int32[Array, "b n-1"]], row: tuple[Int32[Array, " b"], Int32[Array, ""]]
    ) -> tuple[tuple[Float[Array, "b n h w c"], Int32[Array, "b n-1"]], Float[Array, "b h w c"]]:
        (context, between), (action, index) = carry, row
        actions = jnp.concatenate([between, action[:, None]], axis=1)
        key_step = jax.random.fold_in(key, index)
        latent = world.imagine(key_step, context, actions, num_steps=world.num_steps)
        return (jnp.concatenate([context[:, 1:], latent[:, None]], axis=1), actions[:, 1:]), latent

    rows = steered.T, jnp.arange(steered.shape[1])
    _, latents = jax.lax.scan(step, (context, actions[:, :-1]), rows)
    return jnp.moveaxis(latents, 0, 1)


def _slide(rows: Array, n: int, count: int) -> Array:
    """The `count` spans of `n` that begin at each place of the second axis, item by item: [b * count, n, ...]."""
    spans = rows[:, jnp.arange(count)[:, None] + jnp.arange(n)]
    return spans.reshape(-1, *spans.shape[2:])


@jax.jit
def _dreamed(world: WorldModel, context: jax.Array, actions: jax.Array, steered: jax.Array) -> jax.Array:
    return dream(world, jax.random.key(0), context, steered, actions)
