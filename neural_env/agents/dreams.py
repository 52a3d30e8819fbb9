"""Many dreams at once, as a `StepFn`: where an agent learns without the game.

::

    real contexts --begin--> Dreams --step(actions)--> Dreams, Transition     all pure, for `ppo.rollout_in_dream`
         ^                      |
         +---- ended, or as old as the horizon ----

A dream that runs for long is no longer true, and an agent finds out where it pays to be wrong (Ha and Schmidhuber 2018,
arXiv 1803.10122, section 4.2). The guards are here: a horizon after which a dream begins anew at a real context,
temperature and noise that make it harder to exploit, and a price on what the dream is unsure of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt32

from neural_env.agents.eyes import codes
from neural_env.agents.ppo import Transition
from neural_env.agents.shaping import Shaping
from neural_env.arrays import Key
from neural_env.envs import core
from neural_env.envs.arguments import CONTEXT_NOISE_MAX, TEMPERATURE_MAX
from neural_env.envs.core import DreamState
from neural_env.envs.dials import Dials, Termination
from neural_env.envs.spread import disagreement
from neural_env.game import GameConfig
from neural_env.world.model import WorldModel

Observation: TypeAlias = Literal["rgb", "latent"]
DreamReward: TypeAlias = Literal["outcome", "survival"]
_TOGETHER = 4  # dreams that a CPU steps together, as in `envs.batch`


@dataclass(frozen=True, kw_only=True)
class DreamsConfig:
    """How an agent dreams; the guards against an agent that exploits it included. Raises `ValueError`."""

    observe: Observation = "latent"  # what the agent looks at: decoded frames, or latents (a third cheaper)
    num_steps: int | None = None  # denoising steps a frame; by default as many as suit the world
    temperature: float = 1.0  # in [0, 2], of the sample and of the draw that ends an episode; above 1 it is harder
    context_noise: float = 0.0  # level in [0, 0.7] at which the past is corrupted
    termination: Termination = "sample"  # drawn, foretold with more than even odds, or never
    horizon: int = 64  # steps after which a dream is cut off and begins anew at a real context
    reward: DreamReward = "outcome"  # the outcome model's, or a point for every tic survived
    damage: float = 0.0  # reward lost with each point of health that the outcome model expects the step to cost
    danger: float = 0.0  # reward lost as harm comes near, and won as it goes; of harm in the next step
    disagreement: float = 0.0  # reward lost with each grey level that versions of the next frame are apart
    samples: int = 2  # how many versions; not drawn at disagreement 0
    repeat: float = 0.25  # probability that a dream repeats the last action instead of the one chosen, as in real games

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0.0, TEMPERATURE_MAX)
        _check_range("context_noise", self.context_noise, 0.0, CONTEXT_NOISE_MAX)
        for name, least in (
            ("num_steps", 1),
            ("horizon", 1),
            ("samples", 2),
            ("damage", 0.0),
            ("danger", 0.0),
            ("disagreement", 0.0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0.0 <= self.repeat < 1.0:
            raise ValueError(f"repeat is a probability below 1, got {self.repeat}")
        for name, kind in (("observe", Observation), ("reward", DreamReward), ("termination", Termination)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")

    def suited(self, world: WorldModel) -> DreamsConfig:
        """The same with the world's own number of steps where none was given: what a run writes down."""
        return replace(self, num_steps=self.num_steps or world.num_steps)

    def dials(self, world: WorldModel) -> Dials:
        """How the model is run."""
        return Dials(
            num_steps=self.num_steps or world.num_steps,
            temperature=self.temperature,
            context_noise=self.context_noise,
            termination=self.termination,
        )

    def check(self, game: GameConfig) -> None:
        """Raise `ValueError` if the game lacks what is asked for."""
        if self.damage and "health" not in game.variable_names:
            has = f"{game.scenario!r} has {game.variable_names}"
            raise ValueError(f"damage needs the variable health, {has}: leave it 0")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")


class Beginnings(NamedTuple):
    """Real contexts that dreams begin from; each is as likely as the others."""

    states: DreamState  # every leaf [k, ...]
    seen: UInt8[Array, "k h w c"]  # what the agent sees of each
    variables: Float[Array, "k v"]


class Dreams(NamedTuple):
    """`n` dreams: what a step hands to the next."""

    key: UInt32[Array, " k"]  # `jax.random.key_data`, which a checkpoint can hold
    states: DreamState  # every leaf [n, ...]
    ages: Int32[Array, " n"]  # steps since the dream's beginning
    last: Int32[Array, " n"]  # actions executed last
    variables: Float[Array, "n v"]


def observe(config: DreamsConfig) -> core.Observe:
    """What the agent sees of a state: exactly what `AgentPolicy` hands it in the real game."""
    return core.screen if config.observe == "rgb" else _codes


def _codes(world: WorldModel, state: DreamState) -> UInt8[Array, "h w c"]:
    return codes(state.context[-1])


def beginnings(world: WorldModel, states: DreamState, config: DreamsConfig) -> Beginnings:
    """The contexts `[k, ...]` with all that is looked up instead of computed whenever a dream begins."""

    def one(state: DreamState) -> tuple[Array, Array]:
        state = state._replace(context=state.context.astype(jnp.float32))
        return observe(config)(world, state), core.variables(world, state)

    seen, variables = jax.lax.map(one, states, batch_size=_TOGETHER)
    return Beginnings(states, seen, variables)


def begin_dreams(places: Beginnings, key: Key, count: int, horizon: int) -> tuple[Dreams, UInt8[Array, "n h w c"]]:
    """`count` dreams and what they show; of different ages, so that they aren't all cut off together."""
    key, key_start, key_age = jax.random.split(key, 3)
    states, seen, variables = _some(places, key_start, count)
    ages = jax.random.randint(key_age, (count,), 0, horizon, jnp.int32)
    return Dreams(jax.random.key_data(key), states, ages, states.actions[:, -1], variables), seen


class Intent(NamedTuple):
    """What a step of all dreams is to do, and its randomness."""

    executed: Int32[Array, " n"]  # actions, some of them the last ones again
    key: Key  # of what follows
    key_step: Key
    key_start: Key


def intended(config: DreamsConfig, dreams: Dreams, actions: Int32[Array, " n"]) -> Intent:
    """What becomes of the actions that were chosen."""
    key, key_step, key_start, key_repeat = jax.random.split(jax.random.wrap_key_data(dreams.key), 4)
    repeats = jax.random.bernoulli(key_repeat, config.repeat, actions.shape)
    return Intent(jnp.where(repeats, dreams.last, actions), key, key_step, key_start)


def settled(
    places: Beginnings,
    game: GameConfig,
    config: DreamsConfig,
    dreams: Dreams,
    intent: Intent,
    stepped: core.Step,
    unsure: Float[Array, " n"],
    shaping: Shaping | None = None,
) -> tuple[Dreams, Transition]:
    """The dreams after they were stepped; those that ended, or reached the horizon, begin anew."""
    executed, variables = intent.executed, stepped.info.variables
    rewards = reward_of(game, config, stepped, dreams.variables, unsure)
    if shaping is not None:
        rewards = rewards + shaping(dreams.states, stepped.state, stepped.terminated)
    ages = dreams.ages + 1
    truncated = ~stepped.terminated & (ages >= config.horizon)
    over = stepped.terminated | truncated
    states, seen, fresh = _some(places, intent.key_start, len(executed))
    after = Dreams(
        key=jax.random.key_data(intent.key),
        states=_where(over, states, stepped.state),
        ages=jnp.where(over, 0, ages),
        last=jnp.where(over, states.actions[:, -1], executed),
        variables=_where(over, fresh, variables),
    )
    final = stepped.observation
    return after, Transition(_where(over, seen, final), final, executed, rewards, stepped.terminated, truncated)


def step_dreams(
    world: WorldModel,
    places: Beginnings,
    game: GameConfig,
    config: DreamsConfig,
    dreams: Dreams,
    actions: Int32[Array, " n"],
    shaping: Shaping | None = None,
) -> tuple[Dreams, Transition]:
    """One step of every dream. With all but `dreams` and `actions` given it is a `StepFn`."""
    intent = intended(config, dreams, actions)
    stepped, unsure = _stepped(world, config, intent.key_step, dreams.states, intent.executed)
    return settled(places, game, config, dreams, intent, stepped, unsure, shaping)


def _stepped(
    world: WorldModel, config: DreamsConfig, key: Key, states: DreamState, actions: Int32[Array, " n"]
) -> tuple[core.Step, Float[Array, " n"]]:
    """`core.step` of each dream, and how unsure it was."""
    dials = config.dials(world)

    def one(row: tuple[Key, DreamState, Array]) -> tuple[core.Step, Array]:
        key, state, action = row
        key_unsure, key_step = jax.random.split(key)  # the step's is `core.advance`'s, whatever steps the dream
        stepped = core.step(world, key_step, state, action, dials, observe(config))
        if not config.disagreement:
            return stepped, jnp.zeros(())
        return stepped, disagreement(world, key_unsure, state, action, config.samples, dials)

    rows = (jax.random.split(key, len(actions)), states, actions)
    together = _TOGETHER if jax.default_backend() == "cpu" else len(actions)
    done: tuple[core.Step, Array] = jax.lax.map(one, rows, batch_size=together)
    return done


def reward_of(
    game: GameConfig,
    config: DreamsConfig,
    stepped: core.Step,
    before: Float[Array, "n v"],
    unsure: Float[Array, " n"],
) -> Float[Array, " n"]:
    """What the agent is paid for a step that began with the variables `before`; no shaping included."""
    paid = stepped.reward if config.reward == "outcome" else game.frame_skip * (1.0 - stepped.terminated)
    if config.damage:
        health = game.variable_names.index("health")
        # The picture shows one draw of what may happen, and a blurred one; what was expected says it with less noise.
        dies, left = stepped.info.termination_probability, jnp.maximum(before[:, health], 0.0)
        lost = dies * left + (1 - dies) * jnp.maximum(left - stepped.info.foreseen[:, health], 0.0)
        paid = paid - config.damage * lost
    return paid - config.disagreement * unsure


def _some(places: Beginnings, key: Key, count: int) -> Beginnings:
    choice = jax.random.randint(key, (count,), 0, len(places.seen))
    chosen: Beginnings = jax.tree.map(lambda leaf: leaf[choice], places)
    states = DreamState(chosen.states.context.astype(jnp.float32), chosen.states.actions)
    return chosen._replace(states=states)


def _where(over: Bool[Array, " n"], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(over.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def step_fn(
    world: WorldModel, places: Beginnings, game: GameConfig, config: DreamsConfig, shaping: Shaping | None = None
) -> Any:
    """The `StepFn` of these dreams."""
    return partial(step_dreams, world, places, game, config, shaping=shaping)
