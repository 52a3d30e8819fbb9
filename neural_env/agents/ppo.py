"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347) as pure functions.

::

    rollout = rollout_in_dream(...)  or  training.agent's loop over real games
    state, logs = update(state, rollout, key)

One `update` serves both: it is compiled once and knows nothing of where a roll-out comes from. Where an episode is cut
off by the clock, the value of its last observation stands for the rest of it; where it ends, nothing does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, UInt8

from neural_env.agents.policy import (
    ActorCritic,
    AnyPolicyConfig,
    ForeseerConfig,
    Memory,
    PolicyConfig,
    act,
    evaluate,
    log_prob,
    observe,
)
from neural_env.arrays import Frames, Key
from neural_env.world.parameters import Flat, parameters, replaced

Logs = dict[str, jax.Array]
C = TypeVar("C")


@dataclass(frozen=True)
class PPOConfig:
    """How the agent learns; the defaults are GameNGen's (arXiv 2408.14837, section 4). Raises `ValueError`."""

    games: int = 8  # played at once
    n_steps: int = 512  # of each game between two updates
    minibatch: int = 64  # transitions a gradient
    epochs: int = 10  # passes over a roll-out
    gamma: float = 0.99  # discount a step
    gae_lambda: float = 0.95  # of the advantage estimate
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-4  # reached linearly over the updates of the whole training
    entropy: float = 0.1  # weight of the entropy bonus
    value: float = 0.5  # weight of the value's squared error; it is not clipped
    clip: float = 0.2  # of the ratio of probabilities
    max_norm: float = 0.5  # of the gradient

    def __post_init__(self) -> None:
        for name in ("games", "n_steps", "minibatch", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.transitions % self.minibatch:
            raise ValueError(
                f"minibatch={self.minibatch} must divide games * n_steps = {self.transitions}: change one of them"
            )

    @property
    def transitions(self) -> int:
        """Of one roll-out."""
        return self.games * self.n_steps


@dataclass(frozen=True)
class Preset:
    """A network and how it learns."""

    policy: AnyPolicyConfig
    ppo: PPOConfig


# A dreamed step costs twenty times what a real one does on two CPU cores, so each is learnt from more often.
_DREAMED = PPOConfig(
    games=16,
    n_steps=64,
    minibatch=256,
    epochs=6,
    learning_rate=7e-4,
    final_learning_rate=1e-4,
    entropy=0.01,
)

PRESETS: dict[str, Preset] = {
    "gamengen": Preset(PolicyConfig(automap=True), PPOConfig()),  # the paper's; an accelerator's work
    "fast": Preset(  # two CPU cores: learns take_cover and defend_the_center in a quarter of an hour
        PolicyConfig(
            shrink=2,
            stack=2,
            past_actions=2,
            convolutions=((32, 4, 4), (64, 3, 2), (64, 3, 2)),
            features=256,
            action_features=16,
            hidden=(),
        ),
        PPOConfig(
            games=16,
            n_steps=128,
            minibatch=512,
            epochs=3,
            learning_rate=7e-4,
            final_learning_rate=5e-5,
            entropy=0.01,
        ),
    ),
    "dream": Preset(  # decoded frames of dreams, the network of `fast`; two CPU cores
        PolicyConfig(
            shrink=2,
            stack=2,
            past_actions=2,
            convolutions=((32, 4, 4), (64, 3, 2), (64, 3, 2)),
            features=256,
            action_features=16,
            hidden=(),
        ),
        _DREAMED,
    ),
    "latent": Preset(  # latents of dreams, on a grid of 15x20; two CPU cores
        PolicyConfig(
            picture_channels=16,
            stack=2,
            past_actions=2,
            convolutions=((64, 3, 2), (64, 3, 1)),
            features=256,
            action_features=16,
            hidden=(),
        ),
        _DREAMED,
    ),
    "foresight": Preset(  # latents of dreams, seen as danger is; for imitation of planning
        ForeseerConfig(),
        _DREAMED,
    ),
    "tiny": Preset(  # for tests
        PolicyConfig(
            shrink=8, stack=2, past_actions=2, convolutions=((4, 3, 2),), features=16, action_features=4, hidden=()
        ),
        PPOConfig(games=2, n_steps=8, minibatch=8, epochs=2, learning_rate=1e-3),
    ),
}


def preset_named(name: str) -> Preset:
    """The preset of that name; raises `ValueError` with those there are."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {sorted(PRESETS)}")
    return PRESETS[name]


class Rollout(NamedTuple):
    """`t` steps of `n` games, whoever made their frames. `s` is the policy's stack."""

    frames: UInt8[Array, "s-1+t n h w c"]  # views, `s - 1` of before the first step
    ages: Int32[Array, "t n"]  # steps since the episode's start
    past_actions: Int32[Array, "t n k"]
    actions: Int32[Array, "t n"]  # as chosen
    log_probs: Float[Array, "t n"]
    values: Float[Array, "t n"]
    rewards: Float[Array, "t n"]  # unscaled
    terminated: Bool[Array, "t n"]
    truncated: Bool[Array, "t n"]
    final_values: Float[Array, "t n"]  # of an episode's last observation where it was truncated, else not read
    last_values: Float[Array, " n"]  # of the observation after the last step


class ReturnScale(NamedTuple):
    """Running deviation of the discounted return: rewards are divided by it, so that values are of order 1."""

    samples: Float[Array, ""]
    mean: Float[Array, ""]
    squares: Float[Array, ""]  # summed squared differences from the mean

    @property
    def deviation(self) -> Float[Array, ""]:
        """At least `_LEAST_DEVIATION`: a game that has paid nothing yet has none."""
        return jnp.maximum(jnp.sqrt(self.squares / self.samples), _LEAST_DEVIATION)


_LEAST_DEVIATION = 1e-2
_LARGEST_REWARD = 10.0  # in units of the deviation


class AgentState(NamedTuple):
    """Everything that changes from update to update."""

    step: Int32[Array, ""]  # number of updates made: the policy's version
    params: Flat
    optimizer: optax.OptState
    scale: ReturnScale


def initial_state(policy: ActorCritic, config: PPOConfig) -> AgentState:
    """The state before the first update; its arrays are its own."""
    params = jax.tree.map(jnp.copy, parameters(policy))
    scale = ReturnScale(jnp.asarray(1e-4), jnp.zeros(()), jnp.zeros(()))
    return AgentState(jnp.zeros((), jnp.int32), params, optimiser(config).init(params), scale)


def optimiser(config: PPOConfig) -> optax.GradientTransformation:
    """Adam behind a clipped gradient; the learning rate is applied by `update`, which knows how far it is."""
    return optax.chain(optax.clip_by_global_norm(config.max_norm), optax.scale_by_adam(eps=1e-5))


def make_update(
    policy: ActorCritic, config: PPOConfig, total_updates: int
) -> Callable[[AgentState, Rollout, Key], tuple[AgentState, Logs]]:
    """`update(state, rollout, key)`: all epochs over one roll-out, one compiled program; `state` is overwritten.

    Raises:
        ImportError: rlax isn't installed.
    """
    require_rlax()
    transform = optimiser(config)

    def update(state: AgentState, rollout: Rollout, key: Key) -> tuple[AgentState, Logs]:
        scale = _measured(state.scale, rollout, config.gamma)
        batch = _batch(rollout, _advantages(rollout, scale.deviation, config))
        rate = _learning_rate(config, state.step, total_updates)

        def minibatch(carry: Any, rows: Int32[Array, " m"]) -> tuple[Any, Logs]:
            params, optimizer = carry
            part = _minibatch(rollout, batch, rows)
            loss = lambda p: ppo_loss(replaced(policy, p), part, config)  # noqa: E731
            gradient, logs = jax.grad(loss, has_aux=True)(params)
            changes, optimizer = transform.update(gradient, optimizer, params)
            params = jax.tree.map(lambda p, change: p - rate * change, params, changes)
            return (params, optimizer), {**logs, "gradient_norm": optax.global_norm(gradient)}

        rows = _shuffled(key, config)
        (params, optimizer), logs = jax.lax.scan(minibatch, (state.params, state.optimizer), rows)
        logs = {name: values.mean() for name, values in logs.items()}
        unexplained = jnp.var(batch.returns - batch.values) / (jnp.var(batch.returns) + 1e-8)
        logs |= {"explained_variance": 1 - unexplained, "return_scale": scale.deviation, "learning_rate": rate}
        return AgentState(state.step + 1, params, optimizer, scale), logs

    return jax.jit(update, donate_argnums=0)


def require_rlax() -> Any:
    """The module rlax; raises `ImportError` with the extra that brings it."""
    try:
        import rlax  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError('training agents needs rlax: pip install "neural-env[agents]"') from error
    return rlax


class Batch(NamedTuple):
    """What the loss needs of transitions `b`."""

    frames: UInt8[Array, "s b h w c"] | None  # gathered for a minibatch at a time
    past_actions: Int32[Array, "b k"]
    actions: Int32[Array, " b"]
    log_probs: Float[Array, " b"]
    values: Float[Array, " b"]
    advantages: Float[Array, " b"]
    returns: Float[Array, " b"]


def ppo_loss(policy: ActorCritic, batch: Batch, config: PPOConfig) -> tuple[Float[Array, ""], Logs]:
    """The clipped surrogate (equation 7 of the paper), the value's error and the entropy bonus (equation 9)."""
    rlax = require_rlax()
    assert batch.frames is not None
    logits, values = policy(batch.frames, batch.past_actions)
    log_ratio = log_prob(logits, batch.actions) - batch.log_probs
    ratio = jnp.exp(log_ratio)
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    surrogate = rlax.clipped_surrogate_pg_loss(ratio, advantages, config.clip)
    error = 0.5 * jnp.square(values - batch.returns).mean()
    entropy = -rlax.entropy_loss(logits, jnp.ones_like(ratio))
    logs = {
        "policy_loss": surrogate,
        "value_loss": error,
        "entropy": entropy,
        "kl": (ratio - 1 - log_ratio).mean(),
        "clipped": (jnp.abs(ratio - 1) > config.clip).mean(),
    }
    return surrogate + config.value * error - config.entropy * entropy, logs


def advantages_of(
    rewards: Float[Array, "t n"],
    values: Float[Array, "t n"],
    last_values: Float[Array, " n"],
    terminated: Bool[Array, "t n"],
    truncated: Bool[Array, "t n"],
    final_values: Float[Array, "t n"],
    *,
    gamma: float,
    gae_lambda: float,
) -> Float[Array, "t n"]:
    """Generalised advantages, cut at the end of every episode.

    What a truncated episode would still have earned is paid to its last step: gamma times the value of its last
    observation. So both ends are a discount of 0, and the estimate never looks into the next episode.
    """
    estimate = jax.vmap(require_rlax().truncated_generalized_advantage_estimation, (1, 1, None, 1), 1)
    paid = rewards + gamma * jnp.where(truncated & ~terminated, final_values, 0.0)
    discounts = gamma * (1.0 - (terminated | truncated))
    advantages: jax.Array = estimate(paid, discounts, gae_lambda, jnp.concatenate([values, last_values[None]]))
    return advantages


def _advantages(rollout: Rollout, deviation: Float[Array, ""], config: PPOConfig) -> Float[Array, "t n"]:
    rewards = jnp.clip(rollout.rewards / deviation, -_LARGEST_REWARD, _LARGEST_REWARD)
    return advantages_of(
        rewards, rollout.values, rollout.last_values, rollout.terminated, rollout.truncated, rollout.final_values,
        gamma=config.gamma, gae_lambda=config.gae_lambda,
    )  # fmt: skip


def _measured(scale: ReturnScale, rollout: Rollout, gamma: float) -> ReturnScale:
    """The scale after this roll-out: counts, means and squares of two samples merged (Chan et al.)."""
    ended = rollout.terminated | rollout.truncated

    def earn(total: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, over = step
        total = gamma * total + reward
        return jnp.where(over, 0.0, total), total

    _, earned = jax.lax.scan(earn, jnp.zeros_like(rollout.last_values), (rollout.rewards, ended))
    count, difference = scale.samples + earned.size, earned.mean() - scale.mean
    squares = scale.squares + earned.var() * earned.size + difference**2 * scale.samples * earned.size / count
    return ReturnScale(count, scale.mean + difference * earned.size / count, squares)


def _learning_rate(config: PPOConfig, step: Int32[Array, ""], total_updates: int) -> Float[Array, ""]:
    done = jnp.minimum(step / max(total_updates, 1), 1.0)
    return config.learning_rate + done * (config.final_learning_rate - config.learning_rate)


def _batch(rollout: Rollout, advantages: Float[Array, "t n"]) -> Batch:
    def flat(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:])

    return Batch(
        frames=None,
        past_actions=flat(rollout.past_actions),
        actions=flat(rollout.actions),
        log_probs=flat(rollout.log_probs),
        values=flat(rollout.values),
        advantages=flat(advantages),
        returns=flat(advantages + rollout.values),
    )


def _shuffled(key: Key, config: PPOConfig) -> Int32[Array, "updates m"]:
    """The rows of every minibatch of every epoch."""
    keys = jax.random.split(key, config.epochs)
    rows = jax.vmap(lambda k: jax.random.permutation(k, config.transitions))(keys)
    return rows.reshape(-1, config.minibatch)


def _minibatch(rollout: Rollout, batch: Batch, rows: Int32[Array, " m"]) -> Batch:
    """The rows of the batch, with their frames; frames of before an episode are replaced by its first."""
    steps, games = rollout.ages.shape
    earlier = len(rollout.frames) - steps  # frames of before the first step
    back = jnp.minimum(jnp.arange(earlier + 1)[::-1, None], rollout.ages.reshape(-1)[rows])  # [s, m]
    flat = rollout.frames.reshape(-1, *rollout.frames.shape[2:])
    frames = flat[(rows // games + earlier - back) * games + rows % games]
    rest: Batch = jax.tree.map(lambda x: x[rows], batch)
    return rest._replace(frames=frames)


class Transition(NamedTuple):
    """What a step of `n` environments brings."""

    frames: Frames  # [n, H, W, 3]; where an episode ended, the first frame of the next
    final_frames: Frames  # [n, H, W, 3]; where an episode ended, its last frame; elsewhere not read
    actions: Int32[Array, " n"]  # as executed: an environment may repeat the last one
    rewards: Float[Array, " n"]
    terminated: Bool[Array, " n"]
    truncated: Bool[Array, " n"]


class StepFn(Protocol[C]):
    """A pure environment: `n` games in one explicit carry, which it starts anew itself where they end."""

    def __call__(self, carry: C, actions: Int32[Array, " n"]) -> tuple[C, Transition]:
        """The carry after the step, and what the step brought."""
        ...


def rollout_in_dream(
    step: StepFn[C], policy: ActorCritic, carry: C, memory: Memory, key: Key, n_steps: int
) -> tuple[C, Memory, Rollout]:
    """`n_steps` of a compiled environment: one scan, to be called under `jit`.

    Args:
        step: the environment.
        policy: who plays.
        carry: the environment's state.
        memory: the agent's, made by `begin` from the first frames or by the last roll-out.
        key: randomness of the actions.
        n_steps: static.
    """

    def one(state: tuple[C, Memory], key: Key) -> tuple[tuple[C, Memory], Any]:
        carry, memory = state
        acted = act(policy, memory, key)
        carry, after = step(carry, acted.actions)
        following, row = lived(policy, memory, acted, after)
        return (carry, following), row

    (carry, following), rows = jax.lax.scan(one, (carry, memory), jax.random.split(key, n_steps))
    return carry, following, rollout_of(policy, memory, rows, following)


def lived(policy: ActorCritic, memory: Memory, acted: Any, after: Transition) -> tuple[Memory, Any]:
    """What is remembered after a step, and its row of a roll-out, for `rollout_of`."""
    final = jax.lax.cond(
        after.truncated.any(),
        lambda: value_of(policy, memory, after.final_frames, after.actions),
        lambda: jnp.zeros_like(acted.values),
    )
    following = observe(policy, memory, after.frames, after.actions, after.terminated | after.truncated)
    return following, (memory, acted, after.rewards, after.terminated, after.truncated, final)


def rollout_of(policy: ActorCritic, memory: Memory, rows: Any, following: Memory) -> Rollout:
    """The roll-out of rows, every leaf `[t, ...]`: `memory` is before the first, `following` after the last."""
    then, acted, rewards, terminated, truncated, final = rows
    return Rollout(
        frames=jnp.concatenate([memory.frames[:-1], then.frames[:, -1]]),
        ages=then.ages,
        past_actions=then.past_actions,
        actions=acted.actions,
        log_probs=acted.log_probs,
        values=acted.values,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        final_values=final,
        last_values=evaluate(policy, following)[1],
    )


def value_of(policy: ActorCritic, memory: Memory, frames: Frames, actions: Int32[Array, " n"]) -> Float[Array, " n"]:
    """The value of `frames`, reached by `actions` and seen as the same episodes' next."""
    on = jnp.zeros(len(actions), bool)
    return evaluate(policy, observe(policy, memory, frames, actions, on))[1]
