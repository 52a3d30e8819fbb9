"""The dream in gymnax's interface, for trainers that compile environment and agent together.

    env, params = make("take_cover")
    observation, state = env.reset(key, params)
    observation, state, reward, done, info = env.step(key, state, action, params)

Everything that is an array is in `params`, the world's weights included, so one compiled trainer serves every world of
a shape. Written against https://github.com/RobertTLange/gymnax, which need not be installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Shaped

from neural_env import checkpoint as files
from neural_env.arrays import Key
from neural_env.envs import core
from neural_env.envs.arguments import one_of, time_limit
from neural_env.envs.core import DreamState
from neural_env.envs.dials import Dials
from neural_env.game import GameConfig
from neural_env.world.model import WorldModel


@flax.struct.dataclass
class EnvParams:
    """What a trainer passes on: under `vmap` over dreams it is the same for all (`in_axes=None`)."""

    world: WorldModel
    starts: DreamState  # every leaf [k, ...]: real contexts that episodes begin from
    first: Array  # [k, ...] what each of them shows
    dials: Dials
    max_steps_in_episode: int  # -1: no limit


@flax.struct.dataclass
class EnvState:
    """An episode; fixed shapes."""

    dream: DreamState
    time: Int32[Array, ""]  # steps so far
    terminated: Bool[Array, ""]


@dataclass(frozen=True)
class Discrete:
    """The integers 0 to n - 1."""

    n: int
    shape: tuple[int, ...] = ()
    dtype: Any = jnp.int32

    def sample(self, key: Key) -> Array:
        """One of them, drawn evenly."""
        return jax.random.randint(key, self.shape, 0, self.n, self.dtype)

    def contains(self, x: Array) -> Array:
        """Whether x is one."""
        return (jnp.asarray(x) >= 0) & (jnp.asarray(x) < self.n)


@dataclass(frozen=True)
class Box:
    """Arrays of one shape and type, their entries in [low, high]."""

    low: float
    high: float
    shape: tuple[int, ...]
    dtype: Any

    def sample(self, key: Key) -> Array:
        """One of them: even where the box is bounded, normal where it isn't."""
        if np.isinf(self.high):
            return jax.random.normal(key, self.shape, self.dtype)
        return jax.random.uniform(key, self.shape, minval=self.low, maxval=self.high + 1).astype(self.dtype)

    def contains(self, x: Array) -> Array:
        """Whether x is one."""
        return jnp.all((x >= self.low) & (x <= self.high))


class NeuralDoom:
    """Doom, dreamed. `step` begins the next episode in the step that ends one, as in all of gymnax.

    * Observation: "rgb", uint8 `[H, W, 3]`, or "latent", float32 `[h, w, c]`, for which the decoder is never run.
    * Reward: the scenario's own, unclipped. `done`: terminated, or out of time; `info` says which.
    * `info`: `discount` (0 where the episode terminated, else 1), `terminated`, `truncated`, and the game variables by
      name. They are of the step that was taken, the observation after an end is the next episode's.
    """

    def __init__(self, game: GameConfig, latent_shape: tuple[int, ...], observation: str, params: EnvParams):
        self._game, self._latent_shape, self._observation = game, latent_shape, observation
        self._observe: core.Observe = core.screen if observation == "rgb" else core.latent
        self.default_params = params

    @property
    def name(self) -> str:
        """The environment's name."""
        return "NeuralDoom-v0"

    @property
    def num_actions(self) -> int:
        """How many actions there are."""
        return len(self._game.action_names)

    def action_space(self, params: EnvParams | None = None) -> Discrete:
        """0 is the no-op, then the scenario's buttons."""
        return Discrete(self.num_actions)

    def observation_space(self, params: EnvParams | None = None) -> Box:
        """That of one dream."""
        if self._observation == "rgb":
            return Box(0, 255, (*self._game.resolution, 3), jnp.uint8)
        return Box(-np.inf, np.inf, self._latent_shape, jnp.float32)

    def reset(self, key: Key | Array, params: EnvParams | None = None) -> tuple[Shaped[Array, "..."], EnvState]:
        """One of the world's starts."""
        return self.reset_env(key, params or self.default_params)

    def step(
        self, key: Key | Array, state: EnvState, action: Int32[Array, ""], params: EnvParams | None = None
    ) -> tuple[Shaped[Array, "..."], EnvState, Float[Array, ""], Bool[Array, ""], dict[str, Array]]:
        """One step, and the beginning of the next episode where this one is done."""
        params = params or self.default_params
        key, key_reset = jax.random.split(_typed(key))
        observation, after, reward, done, info = self.step_env(key, state, action, params)
        first, beginning = self.reset_env(key_reset, params)
        after = jax.tree.map(lambda new, old: jnp.where(done, new, old), beginning, after)
        return jnp.where(done, first, observation), after, reward, done, info

    def reset_env(self, key: Key | Array, params: EnvParams) -> tuple[Shaped[Array, "..."], EnvState]:
        """`reset`; the observations of the starts are looked up, not decoded."""
        choice = jax.random.randint(_typed(key), (), 0, len(params.first))
        first, dream = jax.tree.map(lambda leaf: leaf[choice], (params.first, params.starts))
        return first, EnvState(dream=dream, time=jnp.int32(0), terminated=jnp.bool_(False))

    def step_env(
        self, key: Key | Array, state: EnvState, action: Int32[Array, ""], params: EnvParams
    ) -> tuple[Shaped[Array, "..."], EnvState, Float[Array, ""], Bool[Array, ""], dict[str, Array]]:
        """One step; nothing begins anew."""
        action = jnp.asarray(action, jnp.int32)
        seen = core.step(params.world, _typed(key), state.dream, action, params.dials, self._observe)
        after = EnvState(dream=seen.state, time=state.time + 1, terminated=seen.terminated)
        done = self.is_terminal(after, params)
        info = {
            "discount": self.discount(after, params),
            "terminated": seen.terminated,
            "truncated": done & ~seen.terminated,
            **dict(zip(self._game.variable_names, seen.info.variables, strict=True)),
        }
        return seen.observation, after, seen.reward, done, info

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: Any = None) -> Shaped[Array, "..."]:
        """What a state shows."""
        return self._observe((params or self.default_params).world, state.dream)

    def is_terminal(self, state: EnvState, params: EnvParams) -> Bool[Array, ""]:
        """Whether the episode is over, for whatever reason."""
        limit = params.max_steps_in_episode
        return state.terminated | ((state.time >= limit) & (limit != -1))

    def discount(self, state: EnvState, params: EnvParams) -> Float[Array, ""]:
        """0 where nothing follows, 1 elsewhere: an episode that ran out of time would have gone on."""
        return jnp.where(state.terminated, 0.0, 1.0)


def make(
    checkpoint: str = "take_cover",
    *,
    observation: str = "rgb",
    dials: Dials | None = None,
    max_steps_in_episode: int | None = None,
) -> tuple[NeuralDoom, EnvParams]:
    """The environment of a world, and its parameters on the device.

    Args:
        checkpoint: name of a bundled world, a folder written by `neural-env bundle`, or `hf://owner/name`.
        observation: "rgb" or "latent".
        dials: how the model is run; None: with as many denoising steps as suit the world, all else plain.
        max_steps_in_episode: None: 2100 tics, 525 steps at frame skip 4; -1: no limit.

    Raises:
        CheckpointError: an unusable checkpoint.
        ValueError: another observation, or a number of steps below 1.
    """
    one_of("observation", observation, ("rgb", "latent"))
    loaded = files.load(checkpoint)
    limit = time_limit(max_steps_in_episode, loaded.game)
    starts = DreamState(jnp.asarray(loaded.starts.latents), jnp.asarray(loaded.starts.actions))
    first = starts.context[:, -1]
    if observation == "rgb":
        first = jax.jit(lambda world, latents: jax.lax.map(lambda x: world.decode(x[None])[0], latents))(
            loaded.world, first
        )
    params = EnvParams(
        world=jax.tree.map(jnp.asarray, loaded.world),
        starts=starts,
        first=first,
        dials=(dials or Dials(num_steps=loaded.world.num_steps)).on_host(),
        max_steps_in_episode=-1 if limit is None else limit,
    )
    return NeuralDoom(loaded.game, loaded.world.latent_shape, observation, params), params


def _typed(key: Key | Array) -> Key:
    """A key of either kind as a typed one."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
