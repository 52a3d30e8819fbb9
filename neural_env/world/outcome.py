"""What a step brings besides a picture: reward, termination and the game variables, read from latents.

Termination is foretold from the past and the action alone: the real game shows no frame after the last one, so a model
that looked at the next frame would learn that a frozen picture means death, which no dream ever shows.

There are two kinds of outcome model, each made by its configuration and trained by what its `losses` returns. Presets
have the binned one. The one of points made the first release's world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int32

from neural_env.arrays import Latent
from neural_env.world.layers import Position, ResidualBlock, conv


class Outcome(NamedTuple):
    """The outcome of one transition, batched."""

    reward: Float[Array, " b"]  # in the scenario's own units, unclipped, if the episode goes on
    termination_logit: Float[Array, " b"]  # log-odds that the episode ends with this transition
    variables: Float[Array, "b v"]  # after the transition, in the game's own units
    last_reward: Float[Array, " b"]  # the reward if the episode ends with this transition
    # The variables if the episode goes on, expected from the past and the action alone; of points, as read.
    foreseen: Float[Array, "b v"]


class Truth(NamedTuple):
    """What the real game answered, batched."""

    reward: Float[Array, " b"]
    ends: Float[Array, " b"]  # 1 where the transition terminated the episode
    variables: Float[Array, "b v"]


class OutcomeModel(Protocol):
    """What the world, and the training of outcomes, ask of either kind; all of it batched and on latents."""

    num_actions: int

    def __call__(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n"], latent: Latent) -> Outcome:
        """Outcome of `actions[:, -1]`, which led from the last frame of `context` to `latent`."""
        ...

    def variables(self, previous: Latent, action: Int32[Array, " b"], latent: Latent) -> Float[Array, "b v"]:
        """The variables alone, read off the transition from `previous` to `latent`."""
        ...

    def losses(
        self,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        latent: Latent,
        truth: Truth,
        over_drawn: float | Float[Array, ""],
    ) -> dict[str, Float[Array, " b"]]:
        """Each item's losses by name; `hazard` is termination's.

        Terminations are `over_drawn` times as likely in the batch as in the game, in log-odds.
        """
        ...

    def statistics(self, rewards: np.ndarray, variables: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays that are measured on rewards [m] and variables [m, v] of training data, not learned."""
        ...


class Trunk(nnx.Module):
    """Two stride-2 convolutions and a dense layer over a stack of latents and the actions."""

    def __init__(
        self,
        width: int,
        hidden: int,
        grid: tuple[int, int],
        channels: int,
        actions: int,
        outputs: int,
        *,
        rngs: nnx.Rngs,
    ):
        h, w = (-(-side // 4) for side in grid)
        self.first = conv(channels, width, stride=2, rngs=rngs)
        self.second = conv(width, 2 * width, stride=2, rngs=rngs)
        self.dense = nnx.Linear(h * w * 2 * width + actions, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, outputs, rngs=rngs)

    def __call__(self, stacked: Float[Array, "b h w k"], actions: Float[Array, "b a"]) -> Float[Array, "b o"]:
        """Returns the outputs; `actions` are one-hot, flattened."""
        x = nnx.silu(self.second(nnx.silu(self.first(stacked))))
        x = jnp.concatenate([x.reshape(len(x), -1), actions], axis=-1)
        return self.out(nnx.silu(self.dense(x)))


# Points: the first release's.


def symlog(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """sign(x) ln(1 + |x|): tames rewards of any size (DreamerV3, arXiv 2301.04104, eq. 9)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


@dataclass(frozen=True)
class PointConfig:
    """Sizes of an outcome model that regresses."""

    kind: Literal["points"] = "points"  # its name in a configuration
    width: int = 32  # features of the first convolution; the second has twice as many
    hidden: int = 128  # features of the dense layer

    def build(
        self, grid: tuple[int, int], channels: int, context: int, actions: int, variables: int, *, rngs: nnx.Rngs
    ) -> PointOutcomes:
        """The model for latents of that grid and those channels."""
        return PointOutcomes(self, grid, channels, context, actions, variables, rngs=rngs)


class PointOutcomes(nnx.Module):
    """Two trunks: one foretells termination, one regresses symlog reward and variables on the transition."""

    def __init__(
        self,
        config: PointConfig,
        grid: tuple[int, int],
        channels: int,
        context: int,
        num_actions: int,
        num_variables: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.num_actions = num_actions
        sizes = config.width, config.hidden, grid
        self.hazard = Trunk(*sizes, context * channels, context * num_actions, 1, rngs=rngs)
        self.readout = Trunk(*sizes, 2 * channels, num_actions, 1 + num_variables, rngs=rngs)
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
        symlog_reward, termination_logit, variables = self.raw(context, actions, latent)
        reward = symexp(symlog_reward)
        read = self._in_game_units(variables)
        return Outcome(reward, termination_logit, read, reward, read)  # it foresees none of them

    def variables(self, previous: Latent, action: Int32[Array, " b"], latent: Latent) -> Float[Array, "b v"]:
        """The variables alone, read off the transition from `previous` to `latent`."""
        one_hot = jax.nn.one_hot(action, self.num_actions)
        return self._in_game_units(self._read(previous, one_hot, latent)[1])

    def losses(
        self,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        latent: Latent,
        truth: Truth,
        over_drawn: float | Float[Array, ""],
    ) -> dict[str, Float[Array, " b"]]:
        """Cross-entropy of termination, squared errors of the rest."""
        reward, logit, variables = self.raw(context, actions, latent)
        target = (truth.variables - self.variable_mean[...]) / self.variable_std[...]
        squared = jnp.square(variables - target).sum(axis=-1) / max(target.shape[-1], 1)  # a game may have no variables
        return {
            "hazard": optax.sigmoid_binary_cross_entropy(logit + over_drawn, truth.ends),
            "reward": jnp.square(reward - symlog(truth.reward)),
            "variables": (1 - truth.ends) * squared,  # the picture after the last transition tells nothing of them
        }

    def statistics(self, rewards: np.ndarray, variables: np.ndarray) -> dict[str, np.ndarray]:
        """Mean and deviation of the variables."""
        return {"variable_mean": variables.mean(axis=0), "variable_std": np.maximum(variables.std(axis=0), 1e-3)}

    def _read(
        self, previous: Latent, one_hot: Float[Array, "b a"], latent: Latent
    ) -> tuple[Float[Array, " b"], Float[Array, "b v"]]:
        readout = self.readout(jnp.concatenate([previous, latent], axis=-1), one_hot)
        return readout[:, 0], readout[:, 1:]

    def _in_game_units(self, variables: Float[Array, "b v"]) -> Float[Array, "b v"]:
        return variables * self.variable_std[...] + self.variable_mean[...]


# Bins: the presets'.


@dataclass(frozen=True)
class BinnedConfig:
    """Sizes of an outcome model that predicts distributions."""

    kind: Literal["bins"] = "bins"  # its name in a configuration
    bins: int = 33  # values that a reward or variable is a mixture of, over the range it has in the training data
    width: int = 32  # features of the convolutions on the full grid
    blocks: int = 2  # residual blocks on the full grid
    hidden: int = 128  # features of the dense layers

    def build(
        self, grid: tuple[int, int], channels: int, context: int, actions: int, variables: int, *, rngs: nnx.Rngs
    ) -> BinnedOutcomes:
        """The model for latents of that grid and those channels."""
        return BinnedOutcomes(self, grid, channels, context, actions, variables, rngs=rngs)


class Foresight(nnx.Module):
    """What is about to happen, from the past and the actions: a trunk that never leaves the grid's full resolution.

    A fireball is a patch or two wide, so nothing is pooled before the last stride. The variables' present
    distributions join the features, for how much one is hurt counts where one is about to be hit.
    """

    def __init__(
        self,
        config: BinnedConfig,
        grid: tuple[int, int],
        channels: int,
        actions: int,
        variables: int,
        *,
        rngs: nnx.Rngs,
    ):
        h, w = (-(-side // 2) for side in grid)
        width, hidden = config.width, config.hidden
        self.stem = conv(channels, width, rngs=rngs)
        self.position = Position(grid, width, rngs=rngs)
        self.blocks = nnx.List([ResidualBlock(width, rngs=rngs) for _ in range(config.blocks)])
        self.down = conv(width, width, stride=2, rngs=rngs)
        self.dense = nnx.Linear(h * w * width + actions, hidden, rngs=rngs)
        self.joint = nnx.Linear(hidden + variables * config.bins, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, 1, rngs=rngs)
        self.rest = nnx.Linear(hidden, (1 + variables) * config.bins, rngs=rngs)

    def __call__(
        self, past: Float[Array, "b h w k"], actions: Float[Array, "b a"], present: Float[Array, "b p"]
    ) -> tuple[Float[Array, " b"], Float[Array, "b o"]]:
        """Termination's log-odds, and logits of the last reward and of the variables after the transition."""
        x = self.features(past, actions, present)
        return self.out(x)[:, 0], self.rest(x)

    def features(
        self, past: Float[Array, "b h w k"], actions: Float[Array, "b a"], present: Float[Array, "b p"]
    ) -> Float[Array, "b d"]:
        """What both are read off."""
        x = self.position(self.stem(past))
        for block in self.blocks:
            x = block(x)
        x = nnx.silu(self.down(nnx.silu(x)))
        x = nnx.silu(self.dense(jnp.concatenate([x.reshape(len(x), -1), actions], axis=-1)))
        hidden: jax.Array = nnx.silu(self.joint(jnp.concatenate([x, present], axis=-1)))
        return hidden


def two_hot(x: Float[Array, "*b"], bins: Float[Array, " k"]) -> Float[Array, "*b k"]:
    """Weights of the two bins around `x` whose mean is `x`, 0 elsewhere (DreamerV3, arXiv 2301.04104, eq. 9).

    `bins` ascend; what lies outside of them counts as the nearest.
    """
    number = jnp.arange(len(bins), dtype=jnp.float32)
    return jax.nn.relu(1 - jnp.abs(jnp.interp(x, bins, number)[..., None] - number))


def spread(lowest: float, highest: float, count: int) -> np.ndarray:
    """Bins at even distances over a range; one of no width is widened, for bins ascend."""
    low, high = (lowest, highest) if highest > lowest else (lowest - 1, highest + 1)
    return np.linspace(low, high, count)


class BinnedOutcomes(nnx.Module):
    """Distributions over bins, whose means are exact and never leave the range that the game has.

    The readout reads the variables and the reward off the transition; the hazard foretells from the past. The hazard
    also foretells the variables after the transition: being hurt is more frequent than dying and looks the same, so it
    learns from the one what it needs for the other.
    """

    def __init__(
        self,
        config: BinnedConfig,
        grid: tuple[int, int],
        channels: int,
        context: int,
        num_actions: int,
        num_variables: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.num_actions = num_actions
        self.hazard = Foresight(config, grid, context * channels, context * num_actions, num_variables, rngs=rngs)
        outputs = (1 + num_variables) * config.bins
        self.readout = Trunk(config.width, config.hidden, grid, 2 * channels, num_actions, outputs, rngs=rngs)
        # The values of the bins. Measured, not learned.
        self.reward_bins = nnx.Variable(jnp.linspace(-1.0, 1.0, config.bins))
        self.variable_bins = nnx.Variable(jnp.tile(jnp.linspace(-1.0, 1.0, config.bins), (num_variables, 1)))

    def __call__(self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n"], latent: Latent) -> Outcome:
        """Outcome of `actions[:, -1]`, which led from the last frame of `context` to `latent`."""
        reward, variables = self._read(context[:, -1], actions[:, -1], latent)
        termination_logit, last_reward, foreseen = self._foresee(context, actions)
        return Outcome(
            jax.nn.softmax(reward) @ self.reward_bins[...],
            termination_logit,
            self._means(variables),
            jax.nn.softmax(last_reward) @ self.reward_bins[...],
            self._means(foreseen),
        )

    def variables(self, previous: Latent, action: Int32[Array, " b"], latent: Latent) -> Float[Array, "b v"]:
        """The variables alone, read off the transition from `previous` to `latent`."""
        return self._means(self._read(previous, action, latent)[1])

    def losses(
        self,
        context: Float[Array, "b n h w c"],
        actions: Int32[Array, "b n"],
        latent: Latent,
        truth: Truth,
        over_drawn: float | Float[Array, ""],
    ) -> dict[str, Float[Array, " b"]]:
        """Cross-entropies; the picture after the last transition tells nothing, so the readout learns from the rest."""
        reward, variables = self._read(context[:, -1], actions[:, -1], latent)
        logit, last_reward, foreseen = self._foresee(context, actions)
        paid = two_hot(truth.reward, self.reward_bins[...])
        after = jax.vmap(two_hot, in_axes=(1, 0), out_axes=1)(truth.variables, self.variable_bins[...])
        lives = 1 - truth.ends
        return {
            "hazard": optax.sigmoid_binary_cross_entropy(logit + over_drawn, truth.ends),
            "reward": lives * optax.softmax_cross_entropy(reward, paid),
            "last_reward": truth.ends * optax.softmax_cross_entropy(last_reward, paid),
            "variables": lives * optax.softmax_cross_entropy(variables, after).sum(axis=-1),
            "foreseen": lives * optax.softmax_cross_entropy(foreseen, after).sum(axis=-1),
        }

    def statistics(self, rewards: np.ndarray, variables: np.ndarray) -> dict[str, np.ndarray]:
        """The bins: even over each variable's range, even in symlog over that of the rewards, which vary in size."""
        k = len(self.reward_bins[...])
        low, high = (float(symlog(jnp.float32(edge))) for edge in (rewards.min(), rewards.max()))
        ranges = [spread(float(column.min()), float(column.max()), k) for column in variables.T]
        return {
            "reward_bins": np.asarray(symexp(jnp.asarray(spread(low, high, k)))),
            "variable_bins": np.reshape(ranges, (len(ranges), k)),
        }

    def _read(
        self, previous: Latent, action: Int32[Array, " b"], latent: Latent
    ) -> tuple[Float[Array, "b k"], Float[Array, "b v k"]]:
        """Logits of the reward and of the variables."""
        one_hot = jax.nn.one_hot(action, self.num_actions)
        return self._cut(self.readout(jnp.concatenate([previous, latent], axis=-1), one_hot))

    def _foresee(
        self, context: Float[Array, "b n h w c"], actions: Int32[Array, "b n"]
    ) -> tuple[Float[Array, " b"], Float[Array, "b k"], Float[Array, "b v k"]]:
        """Log-odds of termination, logits of the last reward and of the variables after the transition."""
        one_hot = jax.nn.one_hot(actions, self.num_actions)
        past = jnp.concatenate(jnp.moveaxis(context, 1, 0), axis=-1)
        previous, action = context[:, -2:][:, 0], actions[:, -2:][:, 0]  # of a past of one frame: that frame
        present = jax.nn.softmax(self._read(previous, action, context[:, -1])[1])
        flat = [x.reshape(len(x), -1) for x in (one_hot, jax.lax.stop_gradient(present))]
        logit, rest = self.hazard(past, *flat)
        return logit, *self._cut(rest)

    def _cut(self, logits: Float[Array, "b o"]) -> tuple[Float[Array, "b k"], Float[Array, "b v k"]]:
        each = logits.astype(jnp.float32).reshape(len(logits), -1, len(self.reward_bins[...]))
        return each[:, 0], each[:, 1:]

    def _means(self, logits: Float[Array, "b v k"]) -> Float[Array, "b v"]:
        return jnp.einsum("bvk,vk->bv", jax.nn.softmax(logits), self.variable_bins[...])


OutcomeConfig: TypeAlias = PointConfig | BinnedConfig
"""Which kind of outcome model, and its sizes."""
