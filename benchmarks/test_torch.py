"""Our U-Net against the same network in PyTorch, eager and compiled: `pip install "neural-env[peers]"`.

The calls take turns within a round, so a round's ratio says what a busy machine doesn't change; `times_ours` in the
extra columns is the median over the rounds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env import checkpoint
from neural_env.envs import core

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))
from torch_unet import twin  # noqa: E402

ROUNDS = 40


@pytest.fixture(scope="module")
def loaded():
    return checkpoint.load("take_cover")


def ours(loaded, batch):
    world = loaded.world
    context = jnp.zeros((batch, world.context, *world.latent_shape))
    actions, levels = jnp.zeros((batch, world.context), jnp.int32), jnp.zeros((batch, world.context))
    unet = core.bind(lambda world, *arguments: world.unet(*arguments), world)
    return lambda: unet(context[:, -1], jnp.zeros(batch), context, actions, levels).block_until_ready()


def theirs(loaded, batch, kind):
    config, (h, w, c) = loaded.model.unet, loaded.world.latent_shape
    network = twin(loaded.world.unet, config, (h, w), c, len(loaded.game.action_names))
    network = torch.compile(network) if kind == "compiled" else network
    context = torch.zeros(batch, config.context, c, h, w)
    actions, levels = torch.zeros(batch, config.context, dtype=torch.long), torch.zeros(batch, config.context)
    x = context[:, -1].contiguous(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode():
            network(x, torch.zeros(batch), context, actions, levels)

    return run


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_torch(benchmark, loaded, kind, batch):
    run, other = theirs(loaded, batch, kind), ours(loaded, batch)
    try:
        run()
    except Exception as error:
        if kind == "eager" or "compiler" not in str(error).lower():
            raise
        pytest.skip(f"torch.compile has no C++ compiler here: {str(error).splitlines()[0]}")
    other()
    mine = []

    def ours_first():
        began = perf_counter()
        other()
        mine.append(perf_counter() - began)

    benchmark.pedantic(run, setup=ours_first, rounds=ROUNDS, warmup_rounds=2)
    if benchmark.stats is not None:  # None under --benchmark-disable
        times = np.array(benchmark.stats.stats.data) / np.array(mine[-ROUNDS:])
        benchmark.extra_info.update(ours_ms=1e3 * float(np.median(mine)), times_ours=float(np.median(times)))
    assert jax.default_backend() == "cpu", "PyTorch runs on the CPU here: set JAX_PLATFORMS=cpu"
