"""Trains PPO of Stable-Baselines3 in the dream: sixteen dreams in one compiled step, four frames stacked.

pip install "neural-env[sb3]"
python examples/sb3_ppo.py                        # the bundled world
python examples/sb3_ppo.py --checkpoint FOLDER    # another one
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor

import neural_env  # noqa: F401  registers the environments
from neural_env.adapters.sb3 import DreamVecEnv


def main() -> None:
    """Trains, and prints what the agent returns in the dream before and after."""
    args = arguments()
    envs, others = dreams(args), dreams(args)
    agent = PPO(
        "CnnPolicy", envs, n_steps=args.rollout, batch_size=args.batch, n_epochs=4, learning_rate=2.5e-4, seed=0
    )
    report("untrained", agent, others, args.episodes)
    agent.learn(total_timesteps=args.steps)
    print(f"trained on {agent.num_timesteps} steps of {args.envs} dreams")
    report("trained", agent, others, args.episodes)
    agent.save(args.out)
    envs.close()
    others.close()


def dreams(args: argparse.Namespace) -> VecEnv:
    """The dreams as Stable-Baselines3 takes them. It moves the channels to the front itself."""
    envs = gym.make_vec(
        "NeuralDoom-v0",
        num_envs=args.envs,
        autoreset_mode="SameStep",
        checkpoint=args.checkpoint,
        max_episode_steps=args.limit,
    )
    return VecFrameStack(VecMonitor(DreamVecEnv(envs)), n_stack=4)


def report(name: str, agent: PPO, envs: VecEnv, episodes: int) -> None:
    """Prints the mean return of some episodes from seeds that training doesn't begin with."""
    envs.seed(10_000)
    returns, _ = evaluate_policy(agent, envs, episodes, deterministic=False, return_episode_rewards=True)
    print(f"{name:>10}: return {np.mean(returns):.1f} +- {np.std(returns):.1f} in {len(returns)} episodes")


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder of a world, or a bundled one's name; default: take_cover")
    parser.add_argument("--envs", type=int, default=16, help="dreams at once")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of training, all dreams together")
    parser.add_argument("--rollout", type=int, default=128, help="steps of each dream between two updates")
    parser.add_argument("--batch", type=int, default=256, help="transitions of a gradient step")
    parser.add_argument("--limit", type=int, default=525, help="steps after which an episode is truncated")
    parser.add_argument("--episodes", type=int, default=16, help="episodes of each evaluation")
    parser.add_argument("--out", default="sb3_ppo.zip", help="where the agent is saved")
    parser.add_argument("--smoke", action="store_true", help="two updates of two short dreams")
    args = parser.parse_args()
    if args.smoke:
        args.envs, args.steps, args.rollout, args.batch, args.limit, args.episodes = 2, 16, 4, 8, 3, 2
    return args


if __name__ == "__main__":
    main()
