"""Trains PPO of SBX (Stable-Baselines3's algorithms in JAX) in the dream: agent and world on the same device.

pip install "neural-env[sb3]" sbx-rl
python examples/sbx_ppo.py                        # the bundled world
python examples/sbx_ppo.py --checkpoint FOLDER    # another one
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
from sbx import PPO
from stable_baselines3.common.vec_env import VecMonitor

import neural_env  # noqa: F401  registers the environments
from neural_env.adapters.sb3 import DreamVecEnv


def main() -> None:
    """Trains, and prints the return of the latest episodes and which actions the agent prefers."""
    args = arguments()
    envs = gym.make_vec(
        "NeuralDoom-v0",
        num_envs=args.envs,
        autoreset_mode="SameStep",
        checkpoint=args.checkpoint,
        max_episode_steps=args.limit,
    )
    names = envs.unwrapped.action_names
    dreams = VecMonitor(DreamVecEnv(envs))
    agent = PPO("CnnPolicy", dreams, n_steps=args.rollout, batch_size=args.batch, n_epochs=4, seed=0)
    agent.learn(total_timesteps=args.steps)
    returns = [episode["r"] for episode in agent.ep_info_buffer or ()]
    print(f"trained on {agent.num_timesteps} steps of {args.envs} dreams")
    print(f"return {np.mean(returns):.1f}, mean of the latest {len(returns)} episodes")
    actions, _ = agent.predict(dreams.reset(), deterministic=True)
    print("at the start of an episode it would", ", ".join(names[action] for action in actions))
    dreams.close()


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder of a world, or a bundled one's name; default: take_cover")
    parser.add_argument("--envs", type=int, default=16, help="dreams at once")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of training, all dreams together")
    parser.add_argument("--rollout", type=int, default=128, help="steps of each dream between two updates")
    parser.add_argument("--batch", type=int, default=256, help="transitions of a gradient step")
    parser.add_argument("--limit", type=int, default=525, help="steps after which an episode is truncated")
    parser.add_argument("--smoke", action="store_true", help="two updates of two short dreams")
    args = parser.parse_args()
    if args.smoke:
        args.envs, args.steps, args.rollout, args.batch, args.limit = 2, 16, 4, 8, 3
    return args


if __name__ == "__main__":
    main()
