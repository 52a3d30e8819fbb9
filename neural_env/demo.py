"""The demo: a bundled world in shadow of the real game, with the numbers that say how far to trust it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.progress import track

from neural_env import checkpoint as checkpoints
from neural_env.data.policies import StickyRandom
from neural_env.evaluation.film import side_by_side, write_film
from neural_env.evaluation.report import measure, plot_drift, table
from neural_env.evaluation.world import Dials, seeds_of
from neural_env.game import TICS_PER_SECOND
from neural_env.wrappers import ShadowMode


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Run a world beside the real game and print how true it is."""

    checkpoint: str = "take_cover"  # bundled world, a checkpoint folder, or hf://owner/name
    out: Path = Path("demo")  # where film and plot go
    steps: int = 200  # shadow steps filmed
    num_steps: int | None = None  # denoising steps a frame; by default as many as suit the world
    context_noise: float = 0.0  # level at which the past is corrupted
    episodes: int = 8  # real episodes that the table is measured on
    rollouts: int = 32  # dreams that the autoregressive rows are averaged over
    first_seed: int = 0  # the first seeds of the test split from here on


@dataclass
class Shadow:
    """What the filmed part gave."""

    frames: list[np.ndarray]
    psnr: list[float]
    seconds_per_step: float  # of the dream's step and the real game's, compilation excluded


def demo(config: DemoConfig) -> None:
    """Films a shadow run, measures the world on test seeds, prints a table and says where the pictures are."""
    console = Console()
    config.out.mkdir(parents=True, exist_ok=True)
    shadow = run_shadow(config)
    film, plot = config.out / "shadow.mp4", config.out / "drift.png"
    loaded = checkpoints.load(config.checkpoint)
    fps = TICS_PER_SECOND / loaded.game.frame_skip
    write_film(shadow.frames, film, fps)
    dials = Dials(config.num_steps or loaded.world.num_steps, config.context_noise)
    scores, dreams = measure(
        loaded, dials, episodes=config.episodes, first_seed=config.first_seed, rollouts=config.rollouts
    )
    plot_drift(dreams, plot)
    title = f"{config.checkpoint}: {config.episodes} episodes of test seeds, {dials.num_steps} denoising step(s)"
    console.print(table(scores, loaded.game.variable_names, title=title))
    console.print(
        f"{config.steps} shadow steps: {1 / shadow.seconds_per_step:.1f} frames/s, dream and real game together "
        f"(real time is {fps:.2f}), mean PSNR {np.mean(shadow.psnr):.2f} dB"
    )
    console.print(f"film (real | dream): {film}\nPSNR by step: {plot}", soft_wrap=True)


def run_shadow(config: DemoConfig) -> Shadow:
    """Steps dream and real game with the same sticky-random actions, each episode from the next test seed."""
    dream = gym.make(
        "neural_env:NeuralDoom-v0",
        checkpoint=config.checkpoint,
        num_steps=config.num_steps,
        context_noise=config.context_noise,
    )
    env = ShadowMode(dream)
    policy = StickyRandom(len(dream.unwrapped.action_names))  # type: ignore[attr-defined]
    policy.reset(np.random.default_rng([config.first_seed, 1]))
    seeds = iter(seeds_of("test", config.steps + 1, config.first_seed))  # no episode is shorter than a step
    seed = next(seeds)
    env.reset(seed=seed)
    env.step(np.int64(0))  # compiles
    frame, info = env.reset(seed=seed)
    frames = [side_by_side(info["shadow"]["real_obs"], frame)]
    psnrs: list[float] = []
    seconds = 0.0
    for _ in track(range(config.steps), "shadow mode"):
        began = time.perf_counter()
        frame, _, terminated, truncated, info = env.step(np.int64(policy.act(frame, np.empty(0))))
        seconds += time.perf_counter() - began
        psnrs.append(info["shadow"]["psnr"])
        frames.append(side_by_side(info["shadow"]["real_obs"], frame))
        if terminated or truncated:
            frame, info = env.reset(seed=next(seeds))
    env.close()
    return Shadow(frames, psnrs, seconds / config.steps)
