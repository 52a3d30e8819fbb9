"""What a step brings besides a picture: reward, termination and the game variables, read from latents.

Termination is foretold from the past and the action alone: the real game shows no frame after the last one, so a model
that looked at the next frame would learn that a frozen picture means death, which no dream ever shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32

from neural_env.arrays import Latent
from neural_env.world.layers import conv


@dataclass(frozen=True)
class OutcomeConfig:
    """Sizes of the outcome model."""

    width: int = 32  # features of the first convolution; the second has twice as many
    hidden: int = 128  # features of the dense layer


class Outcome(NamedTuple):
    """The outcome of one transition, batched."""

    reward: Float[Array, " b"]  # in the scenario's own units, unclipped
    termination_logit: Float[Array, " b"]  # log-odds that the episode ends with this transition
    variables: Float[Array, "b v"]  # after the transition, in the game's own units


def symlog(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """sign(x) ln(1 + |x|): tames rewards of any size (DreamerV3, arXiv 2301.04104, eq. 9)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


class Trunk(nnx.Module):
    """Two stride-2 convolutions and a dense layer over a stack of latents and the actions."""

    def __init__(
        self, config: OutcomeConfig, grid: tuple[int, int], channels: int, actions: int, outputs: int, *, rngs: nnx.Rngs
    ):
        h, w = (-(-side // 4) for side in grid)
        self.first = conv(channels, config.width, stride=2, rngs=rngs)
        self.second = conv(config.width, 2 * config.width, stride=2, rngs=rngs)
        self.dense = nnx.Linear(h * w * 2 * config.width + actions, config.hidden, rngs=rngs)
        self.out = nnx.Linear(config.hidden, outputs, rngs=rngs)

    def __call__(self, stacked: Float[Array, "b h w k"], actions: Float[Array, "b a"]) -> Float[Array, "b o"]:
        """Returns the outputs; `actions` are one-hot, flattened."""
        x = nnx.silu(self.second(nnx.silu(self.first(stacked))))
        x = jnp.concatenate([x.reshape(len(x), -1), actions], axis=-1)
        return self.out(nnx.silu(self.dense(x)))


class OutcomeModel(nnx.Module):
    """Two trunks: one foretells termination, one reads reward and variables off the transition."""

    def __init__(
        self,
        config: OutcomeConfig,
        grid: tuple[int, int],
        channels: int,
        context: int,
        num_actions: int,
        num_variables: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.num_actions = num_actions
        self.hazard = Trunk(config, grid, context * channels, context * num_actions, 1, rngs=rngs)
        self.readout = Trunk(config, grid, 2 * channels, num_actions, 1 + num_variables, rngs=rngs)
        # Range of the variables over the training data: the readout predicts on a unit scale. Measured, not learned.
        self.variable_mean = nnx.Variable(jnp.zeros(num_variables))
        self.variable_std = nnx.Variable(jnp.ones(num_variables))

    def raw(
        self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n"], latent: Latent
    ) -> tuple[Float[Array, " b"], Float[Array, " b"], Float[Array, "b v"]]:
        """Returns symlog reward, termination logit, standardised variables: the quantities that training fits."""
        one_hot = jax.nn.one_hot(actions, self.num_actions)
        past = jnp.concatenate(jnp.moveaxis(context, 1, 0), axis=-1)
        hazard = self.hazard(past, one_hot.reshape(len(one_hot), -1))
        reward, variables = self._read(context[:, -1], one_hot[:, -1], latent)
        return reward, hazard[:, 0], variables

    def __call__(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n"], latent: Latent) -> Outcome:
        """Outcome of `actions[:, -1]`, which led from the last frame of `context` to `latent`."""
        reward, termination_logit, variables = self.raw(context, actions, latent)
        return Outcome(symexp(reward), termination_logit, self._in_game_units(variables))

    def variables(self, previous: Latent, action: Int32[Array, " b"], latent: Latent) -> Float[Array, "b v"]:
        """The variables alone, read off the transition from `previous` to `latent`."""
        one_hot = jax.nn.one_hot(action, self.num_actions)
        return self._in_game_units(self._read(previous, one_hot, latent)[1])

    def _read(
        self, previous: Latent, one_hot: Float[Array, "b a"], latent: Latent
    ) -> tuple[Float[Array, " b"], Float[Array, "b v"]]:
        readout = self.readout(jnp.concatenate([previous, latent], axis=-1), one_hot)
        return readout[:, 0], readout[:, 1:]

    def _in_game_units(self, variables: Float[Array, "b v"]) -> Float[Array, "b v"]:
        return variables * self.variable_std[...] + self.variable_mean[...]
