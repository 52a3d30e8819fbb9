"""Trains PPO inside the dream, compiled end to end: world, roll-outs, gradients and updates are one `lax.scan`.

pip install "neural-env[agents]"
python examples/jax_ppo.py                        # the bundled world
python examples/jax_ppo.py --checkpoint FOLDER    # another one

No frame leaves the device. The dreams are those of `neural_env.envs.gymnax`: any trainer for gymnax can be put here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from neural_env.agents.policy import ActorCritic, Memory, begin
from neural_env.agents.ppo import (
    PRESETS,
    AgentState,
    Logs,
    PPOConfig,
    Transition,
    initial_state,
    make_update,
    rollout_in_dream,
)
from neural_env.arrays import Key
from neural_env.envs.gymnax import EnvParams, EnvState, NeuralDoom, make
from neural_env.world.parameters import replaced


class Dreams(NamedTuple):
    """N dreams, and the randomness of what comes."""

    key: Key
    states: EnvState  # every leaf [N, ...]


class Training(NamedTuple):
    """All that changes from update to update."""

    agent: AgentState
    dreams: Dreams
    memory: Memory  # what the agent remembers of each dream


def main() -> None:
    """Trains, and prints a line after every few updates."""
    args = arguments()
    env, params = make(args.checkpoint, max_steps_in_episode=args.limit)
    preset = PRESETS["tiny" if args.smoke else "fast"]
    config = preset.ppo if args.smoke else replace(preset.ppo, games=args.envs)
    policy = ActorCritic(preset.policy, env.num_actions, env.observation_space().shape[:2], rngs=nnx.Rngs(0))
    train = trainer(env, policy, config, args.updates, args.at_once)
    training = jax.jit(partial(begun, env, policy, config))(params, jax.random.key(0))
    print("compiling the world, the agent and PPO into one program")
    for done in range(args.at_once, args.updates + 1, args.at_once):
        began = time.perf_counter()
        training, logs = train(params, training, jax.random.key(done))
        steps = args.at_once * config.transitions
        rate = steps / (time.perf_counter() - began)
        line = ", ".join(f"{name} {float(logs[name].mean()):.2f}" for name in ("reward", "episode_steps", "entropy"))
        print(f"after {done * config.transitions} steps: {line}; {rate:.0f} steps/s")


def begun(env: NeuralDoom, policy: ActorCritic, config: PPOConfig, params: EnvParams, key: Key) -> Training:
    """Before the first step."""
    key, key_reset = jax.random.split(key)
    frames, states = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, config.games), params)
    return Training(initial_state(policy, config), Dreams(key, states), begin(policy, frames))


def trainer(
    env: NeuralDoom, policy: ActorCritic, config: PPOConfig, updates: int, at_once: int
) -> Callable[[EnvParams, Training, Key], tuple[Training, Logs]]:
    """`at_once` updates with their roll-outs, one compiled program; the logs have an axis of that length."""
    update = make_update(policy, config, updates)

    def one(params: EnvParams, training: Training, key: Key) -> tuple[Training, Logs]:
        agent, dreams, memory = training
        key_play, key_learn = jax.random.split(key)
        player = replaced(policy, agent.params)
        step = partial(step_all, env, params)
        dreams, memory, rollout = rollout_in_dream(step, player, dreams, memory, key_play, config.n_steps)
        agent, logs = update(agent, rollout, key_learn)
        ends = (rollout.terminated | rollout.truncated).sum()
        logs |= {"reward": rollout.rewards.mean(), "episode_steps": config.transitions / jnp.maximum(ends, 1)}
        return Training(agent, dreams, memory), logs

    def some(params: EnvParams, training: Training, key: Key) -> tuple[Training, Logs]:
        return jax.lax.scan(partial(one, params), training, jax.random.split(key, at_once))

    return jax.jit(some, donate_argnums=1)


def step_all(env: NeuralDoom, params: EnvParams, dreams: Dreams, actions: jax.Array) -> tuple[Dreams, Transition]:
    """One step of every dream; those that end begin anew, and their last frame is told too."""
    key, key_step, key_reset = jax.random.split(dreams.key, 3)
    keys = partial(jax.random.split, num=len(actions))
    each = (0, 0, 0, None)
    last, after, rewards, done, info = jax.vmap(env.step_env, each)(keys(key_step), dreams.states, actions, params)
    first, fresh = jax.vmap(env.reset_env, (0, None))(keys(key_reset), params)

    def where_done(new: Any, old: Any) -> Any:
        return jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    states = jax.tree.map(where_done, fresh, after)
    seen = Transition(where_done(first, last), last, actions, rewards, info["terminated"], info["truncated"])
    return Dreams(key, states), seen


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="take_cover", help="folder of a world, or a bundled one's name")
    parser.add_argument("--envs", type=int, default=16, help="dreams at once")
    parser.add_argument("--updates", type=int, default=50, help="of 128 steps of each dream")
    parser.add_argument("--at-once", type=int, default=1, help="updates in one call of the program")
    parser.add_argument("--limit", type=int, default=525, help="steps after which an episode is truncated")
    parser.add_argument("--smoke", action="store_true", help="four updates of a tiny agent in two short dreams")
    args = parser.parse_args()
    if args.smoke:
        args.updates, args.at_once, args.limit = 4, 2, 5
    return args


if __name__ == "__main__":
    main()
