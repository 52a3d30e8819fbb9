"""Plays take_cover by looking ahead: of many random futures of the present moment, the one that lasts longest is begun.

python examples/plan_by_branching.py                      # the bundled world
python examples/plan_by_branching.py --checkpoint FOLDER  # another one
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
import numpy.typing as npt

import neural_env  # noqa: F401  registers the environments
from neural_env.envs.branches import Branches
from neural_env.envs.neural_doom import NeuralDoom


def main() -> None:
    """Plays as many episodes by planning as at random, from equal starts, and prints how long they last."""
    args = arguments()
    env = gym.make("NeuralDoom-v0", scenario="take_cover", checkpoint=args.checkpoint, max_episode_steps=args.steps)
    for name, futures in (("random", 0), ("planned", args.futures)):
        lasted = [play(env, futures, args.horizon, seed) for seed in range(args.episodes)]
        print(f"{name:>8}: {np.mean(lasted):6.1f} steps survived, mean of {args.episodes} episodes")
    env.close()


def play(env: gym.Env[npt.NDArray[np.uint8], np.int64], futures: int, horizon: int, seed: int) -> int:
    """Steps that one episode lasts."""
    dream, rng = env.unwrapped, np.random.default_rng(seed)
    assert isinstance(dream, NeuralDoom)
    env.reset(seed=seed)
    steps, over = 0, False
    while not over:
        action = plan(dream, rng, futures, horizon) if futures else int(rng.integers(len(dream.action_names)))
        _, _, terminated, truncated, _ = env.step(np.int64(action))
        steps, over = steps + 1, terminated or truncated
    return steps


def plan(dream: NeuralDoom, rng: np.random.Generator, futures: int, horizon: int) -> int:
    """The first action of the future that is expected to last longest.

    Each action is held for a few steps, because dithering at random gets nowhere. The futures draw luck of their own:
    to look ahead with the luck that the episode will really have would be cheating.
    """
    held = rng.integers(len(dream.action_names), size=(futures, -(-horizon // 4)))
    actions = held.repeat(4, axis=1)[:, :horizon]
    tried = dream.branch(dream.get_state(), actions, seed=int(rng.integers(2**31)))
    return int(actions[np.argmax(expected_survival(tried)), 0])


def expected_survival(tried: Branches) -> npt.NDArray[np.float32]:
    """Steps that each future is expected to last, at most as many as were looked ahead."""
    alive = np.cumprod(1 - tried.termination_probability, axis=1, dtype=np.float32)
    return np.asarray(alive.sum(axis=1))


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder of a take_cover world; default: the bundled one")
    parser.add_argument("--futures", type=int, default=16, help="random futures to look at before each step")
    parser.add_argument("--horizon", type=int, default=12, help="steps to look ahead")
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=525, help="steps after which an episode is truncated")
    parser.add_argument("--smoke", action="store_true", help="one short episode, two short futures")
    args = parser.parse_args()
    if args.smoke:
        args.futures, args.horizon, args.episodes, args.steps = 2, 3, 1, 5
    return args


if __name__ == "__main__":
    main()
