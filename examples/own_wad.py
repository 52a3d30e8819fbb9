"""Your own WAD, from file to dataset: which maps it has, what they look like to an agent, episodes to train a world on.

python examples/own_wad.py                                # the Freedoom that comes with ViZDoom stands in
python examples/own_wad.py --wad doom2.wad --map MAP01    # a whole game of yours
python examples/own_wad.py --wad mine.wad --map MAP01     # or a map of yours: it is played in Freedoom
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np

import neural_env  # noqa: F401  registers the environments
from neural_env.data import wads
from neural_env.data.collect import CollectConfig, collect


def main() -> None:
    """Prints what the WAD holds and what a step in it is, and collects a dataset."""
    args = arguments()
    maps = wads.maps_of(args.wad)
    print(f"{args.wad.name} has {len(maps)} maps: {', '.join(maps[:8])}{' ...' if len(maps) > 8 else ''}")
    scenario = f"{args.wad}:{args.map or maps[0]}"
    look_around(scenario)
    manifest = collect(
        CollectConfig(
            out=args.out, scenario=scenario, episodes=args.episodes, workers=args.workers, max_episode_steps=args.steps
        )
    )
    frames = sum(shard.frames for shard in manifest.shards)
    print(f"{args.out} holds {sum(shard.episodes for shard in manifest.shards)} episodes, {frames} frames")
    print("next, a world of it:")
    for stage in ("autoencoder", "denoiser", "outcome"):
        print(f"  neural-env train {stage} --data {args.out} --out {args.out}-world")
    print(f"  neural-env bundle --data {args.out} --run {args.out}-world --out {args.out}-bundle")


def look_around(scenario: str) -> None:
    """Prints the actions, and how much of the screen a turn changes."""
    env = gym.make("RealDoom-v0", scenario=scenario)
    before, info = env.reset(seed=0)
    names = env.unwrapped.action_names
    print(f"{len(names)} actions: {', '.join(names)}")
    print("variables at the start:", ", ".join(f"{name} {info[name]:.0f}" for name in env.unwrapped.variable_names))
    after = env.step(np.int64(names.index("turn_left")))[0]
    print(f"a turn to the left changes {100 * (before != after).any(axis=2).mean():.0f} % of the pixels")
    env.close()


def arguments() -> argparse.Namespace:
    """The command line; --smoke is for trying whether it runs at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wad", type=Path, default=wads.bundled("freedoom2"), help="a WAD file")
    parser.add_argument("--map", help="name of a map in it; default: its first")
    parser.add_argument("--out", type=Path, default=Path("own_wad"), help="folder of the dataset")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="processes that play")
    parser.add_argument("--steps", type=int, default=525, help="steps after which an episode is cut off")
    parser.add_argument("--smoke", action="store_true", help="two short episodes")
    args = parser.parse_args()
    if args.smoke:
        args.episodes, args.workers, args.steps = 2, 1, 5
    return args


if __name__ == "__main__":
    main()
