"""How soon the player is hurt, read off what is seen: what makes a missile on its way count before it hits.

What the outcome model foretells reaches one step. A missile takes twenty, and in a dream it fades on the way: who
learns in dreams of few steps must be told at their end what the picture there is worth.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32

from neural_env.world.outcome import BinnedConfig, Foresight

DISCOUNT = 0.92  # a step: danger that is eight steps away counts half
REACH = 16  # steps beyond which there is none

_SIZES = BinnedConfig(bins=1)  # of the trunk; a mixture over bins isn't asked of it


class Danger(nnx.Module):
    """E[DISCOUNT^k], `k` the steps until the player is next hurt or dies; 0 if that is REACH steps away or more.

    The expectation is over how those play whose games it learned from, for it isn't told what will be done.
    """

    def __init__(self, grid: tuple[int, int], channels: int, context: int, num_actions: int, *, rngs: nnx.Rngs):
        self.num_actions = num_actions
        self.trunk = Foresight(_SIZES, grid, context * channels, (context - 1) * num_actions, 0, rngs=rngs)

    def __call__(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n-1"]) -> Float[Array, " b"]:
        """In (0, 1), of the last frame of each context; `actions` lie between its frames."""
        return jax.nn.sigmoid(self.logits(context, actions))

    def logits(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n-1"]) -> Float[Array, " b"]:
        """Log-odds of the same: what training fits."""
        return self.trunk.out(self.features(context, actions))[:, 0]

    @property
    def width(self) -> int:
        """Number of its features."""
        return _SIZES.hidden

    def features(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n-1"]) -> Float[Array, "b d"]:
        """What danger is read off; an action that there is none of, such as `num_actions`, counts as none taken."""
        past = jnp.concatenate(jnp.moveaxis(context, 1, 0), axis=-1)
        one_hot = jax.nn.one_hot(actions, self.num_actions).reshape(len(past), -1)
        return self.trunk.features(past, one_hot, jnp.zeros((len(past), 0)))
