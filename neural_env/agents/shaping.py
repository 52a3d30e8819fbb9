"""A reward for getting out of harm's way, that leaves the best way to play what it was.

Potential-based shaping (Ng, Harada and Russell 1999): a step from s to s' is paid gamma * Phi(s') - Phi(s) on top. Over
an episode that adds up to what its first state makes it, so no other policy becomes the best; but where a dream is cut
off after a few steps, what is still to come counts. Phi is less the price of danger.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from neural_env.envs.core import DreamState
from neural_env.world.danger import Danger


class Shaping(NamedTuple):
    """What `danger` is worth."""

    danger: Danger
    price: float  # in reward, of harm that is certain to come with the next step
    gamma: float  # the agent's discount a step

    def __call__(self, before: DreamState, after: DreamState, terminated: Bool[Array, " n"]) -> Float[Array, " n"]:
        """Paid for a step from `before` to `after`, every leaf `[n, ...]`; where the game is over, danger is too."""
        left = jnp.where(terminated, 0.0, self.potential(after))
        return self.gamma * left - self.potential(before)

    def potential(self, states: DreamState) -> Float[Array, " n"]:
        """Phi, never above 0."""
        return -self.price * self.danger(states.context.astype(jnp.float32), states.actions)
