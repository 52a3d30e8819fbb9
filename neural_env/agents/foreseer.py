"""An agent that sees as danger is seen: for who imitates planning, whose choices are mostly about harm.

The network of `world.danger` has looked at every recorded game, an agent that imitates at some thousand moments.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, UInt8

from neural_env.agents.eyes import latents
from neural_env.agents.policy import ActorCritic, ForeseerConfig
from neural_env.world.danger import Danger
from neural_env.world.parameters import parameters, replaced


class Foreseer(ActorCritic):
    """Policy and value read off the features that danger is read off.

    Its convolutions are XLA's own, slow inside PPO's loop on a CPU.
    """

    def __init__(self, config: ForeseerConfig, num_actions: int, grid: tuple[int, int], *, rngs: nnx.Rngs):
        self.config = config
        self.num_actions = num_actions
        self.resolution = self.view_shape = grid
        self.danger = Danger(grid, config.picture_channels, config.stack, num_actions, rngs=rngs)
        self._add_heads(self.danger.width, rngs)

    def features(self, frames: UInt8[Array, "s b h w c"], past_actions: Int32[Array, "b k"]) -> Float[Array, "b f"]:
        """Of the codes of latents; before the game began, no action was taken."""
        return self.danger.features(jnp.moveaxis(latents(frames), 0, 1), past_actions)


def that_knows(policy: ActorCritic, danger: Danger) -> ActorCritic:
    """The agent with what is known of danger, if it is one that sees so."""
    if not isinstance(policy, Foreseer):
        return policy
    return replaced(policy, {f"danger.{name}": array for name, array in parameters(danger).items()})
