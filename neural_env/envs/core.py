"""The environment as pure functions of explicit state: under `jit`, `vmap`, `scan` and `grad` they are the whole dream.

obs, state = reset(world, key, starts)                                  one of the starts
state = encode_context(world, frames, actions)                          or the caller's own real frames
obs, state, reward, terminated, info = step(world, key, state, action)  one transition, the caller's randomness
obs, carry, reward, terminated, info = advance(world, carry, action)    one transition, the episode's own randomness
obs, carry, rewards, terminated, infos = rollout(world, carry, actions) `advance` along a row of actions, one scan

`dials` says how the model is run, `observe` what is shown: `screen` decodes, `latent` doesn't.

One player is dreamed. A world that players share would have a leading axis `p` on `action`, on the observation and on
`DreamState`'s leaves, and one key: nothing here but `step`'s call of the model counts axes from the front.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Shaped, UInt8, UInt32

from neural_env.arrays import Key
from neural_env.envs.dials import Dials
from neural_env.world.model import WorldModel

PLAIN = Dials()  # one step a frame, a clean past, no guidance


class DreamState(NamedTuple):
    """All that the dream remembers; fixed shapes. The oldest frame falls out at each step."""

    context: Float[Array, "*k n h w c"]  # latents, oldest first; the last is the present frame
    actions: Int32[Array, "*k n-1"]  # actions[i] led from context[i] to context[i + 1]


class Carry(NamedTuple):
    """What an episode hands from step to step; equal carries and actions have equal futures."""

    key: UInt32[Array, " k"]  # `jax.random.key_data`: plain numbers, which the host and files can hold
    state: DreamState


class Info(NamedTuple):
    """What a step says beside what it pays."""

    variables: Float[Array, "*t v"]  # the game's, after the step
    termination_probability: Float[Array, "*t"]  # as foretold, whatever `Dials.termination` makes of it
    foreseen: Float[Array, "*t v"]  # as expected before the picture was dreamed, if the episode goes on


class Step(NamedTuple):
    """What a step brings; `rollout` gives every field but the state an axis `t`."""

    observation: Shaped[Array, "..."]
    state: Any  # `DreamState` of `step`, `Carry` of the others
    reward: Float[Array, "*t"]  # the scenario's own, unclipped
    terminated: Bool[Array, "*t"]
    info: Info


@runtime_checkable
class Observe(Protocol):
    """What a state shows."""

    def __call__(self, world: WorldModel, state: DreamState) -> Shaped[Array, "..."]:
        """Returns the observation."""
        ...


def screen(world: WorldModel, state: DreamState) -> UInt8[Array, "H W 3"]:
    """The present frame."""
    return world.decode(state.context[-1:])[0]


def latent(world: WorldModel, state: DreamState) -> Float[Array, "h w c"]:
    """The present frame as the model has it: the decoder is not run."""
    return state.context[-1]


def variables(world: WorldModel, state: DreamState) -> Float[Array, " v"]:
    """The present game variables of a state."""
    return world.read_variables(state.context[None], state.actions[None])[0]


def encode_context(world: WorldModel, frames: UInt8[Array, "n H W 3"], actions: Int32[Array, " n-1"]) -> DreamState:
    """The state whose past is these real frames and the actions between them."""
    return DreamState(world.encode(frames), actions)


def reset(
    world: WorldModel, key: Key, starts: DreamState, observe: Observe = screen
) -> tuple[Shaped[Array, "..."], DreamState]:
    """One of `starts` (every leaf `[k, ...]`), each as likely as the others, and what it shows."""
    choice = jax.random.randint(key, (), 0, len(starts.actions))
    state: DreamState = jax.tree.map(lambda leaf: leaf[choice], starts)
    return observe(world, state), state


def step(
    world: WorldModel,
    key: Key,
    state: DreamState,
    action: Int32[Array, ""],
    dials: Dials = PLAIN,
    observe: Observe = screen,
) -> Step:
    """One transition of one dream.

    Args:
        world: the model.
        key: randomness of this transition: context noise, sample, termination.
        state: where the dream is.
        action: index into the game's action names.
        dials: how the model is run.
        observe: what is shown of the state that follows (static).

    Raises:
        ValueError: guidance of a world that was trained without context dropout.
    """
    key_imagine, key_end = jax.random.split(key)
    context = state.context[None]
    actions = jnp.append(state.actions, action)[None]
    following = world.imagine(
        key_imagine,
        context,
        actions,
        num_steps=dials.num_steps,
        context_noise=dials.context_noise,
        guidance=dials.guidance,
        temperature=dials.temperature,
    )
    outcome = world.foretell(context, actions, following)
    logit = outcome.termination_logit[0]
    after = DreamState(jnp.concatenate([state.context[1:], following]), actions[0, 1:])
    info = Info(outcome.variables[0], jax.nn.sigmoid(logit), outcome.foreseen[0])
    ended = _ends(key_end, logit, dials)
    reward = jnp.where(ended, outcome.last_reward[0], outcome.reward[0])
    return Step(observe(world, after), after, reward, ended, info)


def advance(
    world: WorldModel, carry: Carry, action: Int32[Array, ""], dials: Dials = PLAIN, observe: Observe = screen
) -> Step:
    """`step` with the episode's own randomness: its key is split once a step; the state is the next carry."""
    key, key_step = jax.random.split(jax.random.wrap_key_data(carry.key))
    after = step(world, key_step, carry.state, action, dials, observe)
    return after._replace(state=Carry(jax.random.key_data(key), after.state))


def rollout(
    world: WorldModel, carry: Carry, actions: Int32[Array, " t"], dials: Dials = PLAIN, observe: Observe = screen
) -> Step:
    """`advance` along a row of actions, one scan; terminations are reported and passed over."""

    def one(carry: Carry, action: Array) -> tuple[Carry, Step]:
        after = advance(world, carry, action, dials, observe)
        return after.state, after._replace(state=None)

    carry, steps = jax.lax.scan(one, carry, actions)
    return steps._replace(state=carry)


def carry_from(key: Key, state: DreamState) -> Carry:
    """The carry of an episode that begins here, with this randomness."""
    return Carry(jax.random.key_data(key), state)


def _ends(key: Key, logit: Float[Array, ""], dials: Dials) -> Bool[Array, ""]:
    """Whether the episode ends, of log-odds `logit`.

    Drawn with the odds' own temperature: logit / T, as a categorical is tempered (Ha and Schmidhuber 2018, arXiv
    1803.10122, make their dream of take_cover harder so). At T = 0 the likelier of the two happens.
    """
    if dials.termination == "never":
        return jnp.zeros((), bool)
    if dials.termination == "threshold":
        return logit > 0
    warm = jnp.asarray(dials.temperature) > 0
    tempered = jax.nn.sigmoid(logit / jnp.where(warm, dials.temperature, 1.0))
    return jax.random.bernoulli(key, jnp.where(warm, tempered, logit > 0))


def bind(function: Any, world: WorldModel, **jit_options: Any) -> Any:
    """`function(world, ...)` compiled, with the world's arrays laid out once instead of at every call."""
    leaves, tree = jax.tree.flatten(world)

    def call(leaves: list[jax.Array], *args: Any, **kwargs: Any) -> Any:
        return function(jax.tree.unflatten(tree, leaves), *args, **kwargs)

    compiled = jax.jit(call, **jit_options)
    return lambda *args, **kwargs: compiled(leaves, *args, **kwargs)
