"""The environment as pure functions of explicit state: under `jit`, `vmap` and `scan` they are the whole dream.

state = encode_context(world, frames, actions)
frame, state, outcome = step(world, key, state, action, dials...)      one transition, the caller's randomness
frame, carry, outcome = advance(world, carry, action, dials...)        one transition, the episode's own randomness
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt32

from neural_env.arrays import Key
from neural_env.world.model import WorldModel


class DreamState(NamedTuple):
    """All that the dream remembers; fixed shapes. The oldest frame falls out at each step."""

    context: Float[Array, "n h w c"]  # latents, oldest first; the last is the present frame
    actions: Int32[Array, " n-1"]  # actions[i] led from context[i] to context[i + 1]


class Carry(NamedTuple):
    """What an episode hands from step to step; equal carries and actions have equal futures."""

    key: UInt32[Array, " k"]  # `jax.random.key_data`: plain numbers, which the host and files can hold
    state: DreamState


class StepOutcome(NamedTuple):
    """What a step brings besides the frame and the state."""

    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    variables: Float[Array, " v"]
    termination_probability: Float[Array, ""]


def encode_context(world: WorldModel, frames: UInt8[Array, "n H W 3"], actions: Int32[Array, " n-1"]) -> DreamState:
    """The state whose past is these real frames and the actions between them."""
    return DreamState(world.encode(frames), actions)


def observe(world: WorldModel, state: DreamState) -> tuple[UInt8[Array, "H W 3"], Float[Array, " v"]]:
    """The present frame and variables of a state."""
    variables = world.read_variables(state.context[None], state.actions[None])
    return world.decode(state.context[-1:])[0], variables[0]


def step(
    world: WorldModel,
    key: Key,
    state: DreamState,
    action: Int32[Array, ""],
    *,
    num_steps: int = 1,
    context_noise: float | Float[Array, ""] = 0.0,
) -> tuple[UInt8[Array, "H W 3"], DreamState, StepOutcome]:
    """One transition of one dream.

    Args:
        world: the model.
        key: randomness of this transition: context noise, sample, termination.
        state: where the dream is.
        action: index into the game's action names.
        num_steps: denoising steps (static).
        context_noise: level in [0, 0.7] at which the context is corrupted.
    """
    key_imagine, key_end = jax.random.split(key)
    context = state.context[None]
    actions = jnp.append(state.actions, action)[None]
    latent = world.imagine(key_imagine, context, actions, num_steps=num_steps, context_noise=context_noise)
    outcome = world.foretell(context, actions, latent)
    probability = jax.nn.sigmoid(outcome.termination_logit[0])
    following = DreamState(jnp.concatenate([state.context[1:], latent]), actions[0, 1:])
    terminated = jax.random.bernoulli(key_end, probability)
    result = StepOutcome(outcome.reward[0], terminated, outcome.variables[0], probability)
    return world.decode(latent)[0], following, result


def advance(
    world: WorldModel, carry: Carry, action: Int32[Array, ""], **dials: Any
) -> tuple[UInt8[Array, "H W 3"], Carry, StepOutcome]:
    """`step` with the episode's own randomness: its key is split once a step."""
    key, key_step = jax.random.split(jax.random.wrap_key_data(carry.key))
    frame, state, outcome = step(world, key_step, carry.state, action, **dials)
    return frame, Carry(jax.random.key_data(key), state), outcome


def play(
    world: WorldModel, carry: Carry, actions: Int32[Array, " t"], **dials: Any
) -> tuple[UInt8[Array, "t H W 3"], Carry, StepOutcome]:
    """`advance` along a row of actions, one scan; terminations are reported and passed over."""

    def one(carry: Carry, action: Array) -> tuple[Carry, tuple[Array, StepOutcome]]:
        frame, carry, outcome = advance(world, carry, action, **dials)
        return carry, (frame, outcome)

    carry, (frames, outcomes) = jax.lax.scan(one, carry, actions)
    return frames, carry, outcomes


def rollout(
    world: WorldModel, key: Key, state: DreamState, actions: Int32[Array, " t"], **dials: Any
) -> tuple[UInt8[Array, "t H W 3"], DreamState, StepOutcome]:
    """`step` along a row of actions, one scan; terminations are reported and passed over."""

    def one(state: DreamState, x: tuple[Key, Array]) -> tuple[DreamState, tuple[Array, StepOutcome]]:
        frame, state, outcome = step(world, x[0], state, x[1], **dials)
        return state, (frame, outcome)

    state, (frames, outcomes) = jax.lax.scan(one, state, (jax.random.split(key, len(actions)), actions))
    return frames, state, outcomes


def bind(function: Callable[..., Any], world: WorldModel, **jit_options: Any) -> Callable[..., Any]:
    """`function(world, ...)` compiled, with the world's arrays laid out once instead of at every call."""
    leaves, tree = jax.tree.flatten(world)

    def call(leaves: list[jax.Array], *args: Any, **kwargs: Any) -> Any:
        return function(jax.tree.unflatten(tree, leaves), *args, **kwargs)

    compiled = jax.jit(call, **jit_options)
    return lambda *args, **kwargs: compiled(leaves, *args, **kwargs)
