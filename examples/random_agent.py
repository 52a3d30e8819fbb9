"""Plays at random in a dream and says what an episode was: its return, its length, why it ended, the variables.

python examples/random_agent.py                       # the bundled world
python examples/random_agent.py --checkpoint FOLDER   # another one
python examples/random_agent.py --id RealDoom-v0      # the real game, by the same lines
"""

from __future__ import annotations

import argparse

import gymnasium as gym
from gymnasium.wrappers import RecordEpisodeStatistics

import neural_env  # noqa: F401  registers the environments


def main() -> None:
    """Plays the episodes and prints a line for each."""
    args = arguments()
    world = {"checkpoint": args.checkpoint} if args.checkpoint else {}
    env = RecordEpisodeStatistics(gym.make(args.id, max_episode_steps=args.steps, **world))
    env.action_space.seed(0)
    names = env.unwrapped.variable_names
    for seed in range(args.episodes):
        _, info = env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            over = terminated or truncated
        episode, ending = info["episode"], "died" if terminated else "ran out of time"
        left = ", ".join(f"{name} {info[name]:.0f}" for name in names)
        print(f"seed {seed}: {ending} after {episode['l']} steps, return {episode['r']:.0f}, {left or 'no variables'}")
    env.close()


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--id", default="NeuralDoom-v0", help="which environment")
    parser.add_argument("--checkpoint", help="folder of a world, or a bundled one's name; default: take_cover")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=525, help="steps after which an episode is truncated")
    parser.add_argument("--smoke", action="store_true", help="one short episode")
    args = parser.parse_args()
    if args.smoke:
        args.episodes, args.steps = 1, 5
    return args


if __name__ == "__main__":
    main()
