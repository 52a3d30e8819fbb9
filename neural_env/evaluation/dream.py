"""An agent's score in its own dream, in the scenario's reward: beside its real one, how far the dream flatters it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from neural_env.agents.dreams import DreamsConfig, observe
from neural_env.agents.policy import ActorCritic, Memory, act, begin
from neural_env.agents.policy import observe as remember
from neural_env.arrays import Key
from neural_env.checkpoint import Checkpoint
from neural_env.envs import core
from neural_env.envs.core import DreamState
from neural_env.world.model import WorldModel

_CHUNK = 25  # steps between two looks at whether anybody is alive
_TOGETHER = 4  # dreams that a CPU steps together, as in `envs.batch`


class DreamScores(NamedTuple):
    """Of each whole dream."""

    returns: np.ndarray  # [m] in the scenario's own reward, as foretold
    steps: np.ndarray  # [m]
    died: np.ndarray  # [m] bool: it ended before the limit


class _Playing(NamedTuple):
    states: DreamState
    memory: Memory
    alive: Bool[Array, " n"]
    returns: Float[Array, " n"]
    steps: Int32[Array, " n"]


def play_dreams(
    policy: ActorCritic,
    world: Checkpoint,
    config: DreamsConfig,
    *,
    episodes: int,
    max_steps: int,
    seed: int = 0,
    at_random: bool = False,
) -> DreamScores:
    """Plays whole dreams from the world's own starts: no horizon, no shaped rewards, no repeated actions.

    Args:
        policy: who plays, by drawn actions.
        world: the world.
        config: what the agent looks at and how the model is run.
        episodes: how many.
        max_steps: after which a dream is cut off.
        seed: of everything.
        at_random: each action as likely as the others, whatever the policy says.
    """
    arrays = jax.tree.map(jnp.asarray, world.world)
    rows = np.random.default_rng([seed, 4]).integers(len(world.starts.actions), size=episodes)
    states = DreamState(jnp.asarray(world.starts.latents[rows], jnp.float32), jnp.asarray(world.starts.actions[rows]))
    key = jax.random.key(seed)
    playing = core.bind(partial(_begun, config=config), arrays)(policy, states)
    some_steps = core.bind(partial(_some_steps, config=config, max_steps=max_steps, at_random=at_random), arrays)
    for number in range(-(-max_steps // _CHUNK)):
        playing = some_steps(policy, playing, jax.random.fold_in(key, number))
        if not np.asarray(playing.alive).any():
            break
    return DreamScores(np.asarray(playing.returns), np.asarray(playing.steps), ~np.asarray(playing.alive))


def _begun(world: WorldModel, policy: ActorCritic, states: DreamState, *, config: DreamsConfig) -> _Playing:
    n = len(states.actions)
    seen = jax.lax.map(lambda state: observe(config)(world, state), states, batch_size=_TOGETHER)
    return _Playing(states, begin(policy, seen), jnp.ones(n, bool), jnp.zeros(n), jnp.zeros(n, jnp.int32))


def _some_steps(
    world: WorldModel,
    policy: ActorCritic,
    playing: _Playing,
    key: Key,
    *,
    config: DreamsConfig,
    max_steps: int,
    at_random: bool,
) -> _Playing:
    """`_CHUNK` steps of every dream; those that are over go on unseen and earn nothing."""

    def step(row: tuple[Key, DreamState, Array]) -> core.Step:
        return core.step(world, *row, dials=config.dials(world), observe=observe(config))

    def one(playing: _Playing, key: Key) -> tuple[_Playing, None]:
        key_act, key_step = jax.random.split(key)
        actions = act(policy, playing.memory, key_act).actions
        if at_random:
            actions = jax.random.randint(key_act, actions.shape, 0, policy.num_actions, jnp.int32)
        rows = (jax.random.split(key_step, len(actions)), playing.states, actions)
        stepped = jax.lax.map(step, rows, batch_size=_TOGETHER)
        counts = playing.alive & (playing.steps < max_steps)
        memory = remember(policy, playing.memory, stepped.observation, actions, jnp.zeros_like(counts))
        return _Playing(
            stepped.state,
            memory,
            playing.alive & ~(stepped.terminated & counts),
            playing.returns + jnp.where(counts, stepped.reward, 0.0),
            playing.steps + counts,
        ), None

    return jax.lax.scan(one, playing, jax.random.split(key, _CHUNK))[0]
