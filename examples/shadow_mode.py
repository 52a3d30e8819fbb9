"""Watches a dream drift: the real game beside it, the numbers of every episode, and a file with those of every step.

python examples/shadow_mode.py                      # the bundled world
python examples/shadow_mode.py --checkpoint FOLDER  # another one
"""

from __future__ import annotations

import argparse

import gymnasium as gym

from neural_env.wrappers import Disagreement, ShadowMode


def main() -> None:
    """Plays at random in both worlds and prints how far apart they got."""
    args = arguments()
    dream = gym.make("neural_env:NeuralDoom-v0", checkpoint=args.checkpoint, max_episode_steps=args.steps)
    env = ShadowMode(Disagreement(dream, samples=2), sync=args.sync or "never", log=args.log)
    env.action_space.seed(0)
    for seed in range(0, 10 * args.episodes, 10):  # seeds that end in 0 are for tests: no world was trained on them
        _, info = env.reset(seed=seed)
        while "episode_shadow" not in info:
            *_, info = env.step(env.action_space.sample())
        about = info["episode_shadow"]
        print(
            f"seed {seed}: {about['steps']} steps, PSNR {about.get('mean_psnr', float('nan')):.2f} dB on average, "
            f"{'under' if about['diverged'] else 'never under'} 20 dB by step {about['horizon']}; "
            f"rewards agree at {about['reward_agreement']:.0%} of the steps, endings at "
            f"{about['termination_agreement']:.0%}"
        )
    env.close()
    print(f"every step: {args.log}")


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder of a world; default: the bundled one")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="steps after which an episode is truncated")
    parser.add_argument("--sync", type=int, default=0, help="steps after which the dream sees the truth; 0: never")
    parser.add_argument("--log", default="shadow.jsonl", help="file to append JSON lines to")
    parser.add_argument("--smoke", action="store_true", help="one short episode")
    args = parser.parse_args()
    if args.smoke:
        args.episodes, args.steps = 1, 4
    return args


if __name__ == "__main__":
    main()
