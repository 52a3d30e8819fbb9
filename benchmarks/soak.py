"""Does a long run stay what it was: no recompilation, no growth of memory?

    python benchmarks/soak.py --steps 100000

Steps the vector environment on a world of the tiny preset with random weights, episodes ending all the time, dials
turning. Prints one line and ends with status 1 if anything was compiled or memory grew after the warm-up.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from neural_env import checkpoint
from neural_env.game import GameConfig
from neural_env.world.model import PRESETS, WorldModel

GAME = GameConfig("take_cover", ("noop", "move_left", "move_right"), ("health",), 4, (120, 160))


@dataclass(frozen=True)
class SoakConfig:
    """Step many dreams for a long time and watch what they cost."""

    steps: int = 100_000  # vector steps after the warm-up
    warm_up: int = 2_000  # vector steps that nothing is asked of
    num_envs: int = 4
    growth: float = 0.05  # of resident memory, at most


@dataclass
class Soak:
    """What a run cost after its warm-up."""

    compilations: int
    growth: float  # of resident memory, as a share
    resident: float  # MiB at the end
    seconds: float
    episodes: int

    def passes(self, config: SoakConfig) -> bool:
        """Whether it stayed what it was."""
        return self.compilations == 0 and self.growth < config.growth


def soak(config: SoakConfig) -> Soak:
    """Runs it."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if name in _EVENTS else None
    )
    with tempfile.TemporaryDirectory() as folder:
        env = gym.make_vec(
            "neural_env:NeuralDoom-v0",
            num_envs=config.num_envs,
            checkpoint=str(save_world(Path(folder))),
            max_episode_steps=50,
            runtime="xla",
        )
        env.reset(seed=0)
        _play(env, config.warm_up)
        if set(compiled) != set(_EVENTS):
            raise RuntimeError(f"this JAX tells of {sorted(set(compiled))}, not of {sorted(_EVENTS)}: mend _EVENTS")
        compiled.clear()
        before, began = resident(), time.perf_counter()
        episodes = _play(env, config.steps)
        seconds, after = time.perf_counter() - began, resident()
        env.close()
    return Soak(len(compiled), after / before - 1, after, seconds, episodes)


_EVENTS = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration")


def _play(env: gym.vector.VectorEnv, steps: int) -> int:
    rng, episodes = np.random.default_rng(0), 0
    for _ in range(steps):
        env.unwrapped.context_noise = rng.uniform(0, 0.7, env.num_envs)
        _, _, terminated, truncated, _ = env.step(rng.integers(3, size=env.num_envs))
        episodes += int((terminated | truncated).sum())
    return episodes


def save_world(folder: Path) -> Path:
    """A checkpoint whose dreams stand still and end after some twenty steps."""
    world = WorldModel(PRESETS["tiny"], GAME, rngs=nnx.Rngs(0))
    world.outcome.hazard.out.bias[...] = jnp.array([-3.0])
    rng, n = np.random.default_rng(0), world.context
    starts = checkpoint.Starts(
        rng.standard_normal((8, n, *world.latent_shape), np.float32), np.zeros((8, n - 1), np.int32)
    )
    checkpoint.save(checkpoint.Checkpoint(world, PRESETS["tiny"], GAME, starts, {}, {}), folder)
    return folder


def resident() -> float:
    """MiB of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main(config: SoakConfig) -> int:
    """Runs, prints one line, and says whether it passed."""
    result = soak(config)
    print(
        f"{config.steps} steps of {config.num_envs} dreams, {result.episodes} episodes, {result.seconds:.0f} s: "
        f"{result.compilations} traces and compilations, resident memory {result.resident:.0f} MiB, "
        f"{result.growth:+.1%} since the warm-up: {'passed' if result.passes(config) else 'FAILED'}"
    )
    return 0 if result.passes(config) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(SoakConfig)))
