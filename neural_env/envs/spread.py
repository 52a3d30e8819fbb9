"""How unsure a dream is of its next frame, as a pure function: the measure of `wrappers.Disagreement`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from neural_env.arrays import Frames, Key
from neural_env.envs.core import PLAIN, DreamState, step
from neural_env.envs.dials import Dials
from neural_env.world.model import WorldModel


def spread(frames: Frames) -> Float[Array, ""]:
    """Standard deviation of each colour of each pixel over frames `[k, H, W, 3]`, averaged: grey levels, 0 to 127.5."""
    return jnp.std(frames.astype(jnp.float32), axis=0).mean()


def disagreement(
    world: WorldModel, key: Key, state: DreamState, action: Int32[Array, ""], samples: int, dials: Dials = PLAIN
) -> Float[Array, ""]:
    """The spread of `samples` versions (static) of the frame that this action leads to, each with luck of its own."""
    keys = jax.random.split(key, samples)
    return spread(jax.vmap(lambda luck: step(world, luck, state, action, dials).observation)(keys))
