"""320x240: a step of the `base` preset, by runtime and number of denoising steps, beside GameNGen's 50 and 20 frames/s.

    python -m pytest benchmarks/test_base.py --benchmark-enable

Its weights are random, unless one is trained: they take as long to multiply. GameNGen (arXiv 2408.14837) makes 50
frames/s distilled to one step and 20 in four on a TPU-v5, at this resolution.
"""

from __future__ import annotations

import gymnasium as gym
import jax
import numpy as np
import pytest
from flax import nnx

from neural_env.checkpoint import Checkpoint, Starts, save
from neural_env.game import GameConfig
from neural_env.runtime import available
from neural_env.world.model import PRESETS, WorldModel
from neural_env.world.parameters import parameters, replaced

STEPS_PER_SECOND = {1: 50, 4: 20}  # GameNGen's


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = PRESETS["base"]
    game = GameConfig("take_cover", ("noop", "move_left", "move_right"), ("health",), 4, (240, 320))
    world = jax.jit(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))()
    rng, n = np.random.default_rng(0), world.context
    # What begins as zero would show one grey, of which nothing can be said: neither is a trained world's.
    noise = {name: 0.02 * rng.standard_normal(array.shape, np.float32) for name, array in parameters(world).items()}
    world = replaced(world, {name: array + noise[name] for name, array in parameters(world).items()})
    latents = rng.standard_normal((16, n, *world.latent_shape), np.float32)
    starts = Starts(latents, rng.integers(3, size=(16, n - 1), dtype=np.int32))
    path = tmp_path_factory.mktemp("base")
    save(Checkpoint(world, model, game, starts, {"preset": "base"}, {}), path)
    return path


@pytest.mark.parametrize("runtime", available("cpu"))
@pytest.mark.parametrize("num_steps", STEPS_PER_SECOND)
def test_base(benchmark, folder, num_steps, runtime):
    env = gym.make(
        "neural_env:NeuralDoom-v0", checkpoint=str(folder), runtime=runtime, num_steps=num_steps, termination="never"
    )
    env.reset(seed=0)
    frame = env.step(1)[0]
    benchmark.pedantic(env.step, args=(1,), rounds=60, warmup_rounds=5)
    if benchmark.stats is not None:  # None under --benchmark-disable
        speed = 1 / benchmark.stats.stats.median
        made = env.unwrapped._dream._openvino.steps if runtime == "openvino" else []
        benchmark.extra_info.update(precision=made[0].precision if made else "f32")
        benchmark.extra_info.update(frames_per_s=speed, times_gamengen=speed / STEPS_PER_SECOND[num_steps])
    assert frame.shape == (240, 320, 3)
    env.close()
