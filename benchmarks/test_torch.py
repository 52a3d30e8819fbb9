"""Our U-Net against the same network in PyTorch, eager and compiled: `pip install "neural-env[peers]"`.

By XLA and by OpenVINO, in float32 and with its large convolutions in 8-bit integers, in turns of a few calls each;
`times_...` in the extra columns are medians over the rounds of how many times longer PyTorch takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env import checkpoint
from neural_env.bench.clock import in_turns
from neural_env.envs import core

pytest.importorskip("torch")
pytest.importorskip("openvino")
sys.path.insert(0, str(Path(__file__).parent))
import openvino as ov
import torch
from torch_unet import twin

from neural_env.runtime.quantise import quantised
from neural_env.runtime.translate import split


@pytest.fixture(scope="module")
def loaded():
    return checkpoint.load("take_cover")


def ours(loaded, batch):
    """By name: what runs our network."""
    world = loaded.world
    rng, starts = np.random.default_rng(0), loaded.starts.latents
    moments = [starts[rng.integers(len(starts), size=batch)].astype(np.float32) for _ in range(8)]
    actions, levels = np.zeros((batch, world.context), np.int32), np.zeros((batch, world.context), np.float32)
    rows = [(context[:, -1], np.zeros(batch, np.float32), context, actions, levels) for context in moments]
    unet = core.bind(lambda world, *arguments: world.unet(*arguments), world)
    given = [jnp.asarray(array) for array in rows[0]]
    runs = {"xla": lambda: unet(*given).block_until_ready()}
    found = split(lambda drawn, given: world.unet(*given), (), rows[0])
    used = [[row[i] for i in found.inputs] for row in rows]
    for name, model in (("openvino_f32", found.model), ("openvino_i8", quantised(found.model, used))):
        request = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        runs[name] = lambda request=request: request.infer(used[0], share_inputs=True)
    return runs


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
    run, others = theirs(loaded, batch, kind), ours(loaded, batch)
    try:
        run()
    except Exception as error:
        if kind == "eager" or "compiler" not in str(error).lower():
            raise
        pytest.skip(f"torch.compile has no C++ compiler here: {str(error).splitlines()[0]}")
    if benchmark.enabled:
        torchs, *each = np.moveaxis(np.median(in_turns(run, *others.values()), axis=2), 1, 0)
        for name, seconds in zip(others, each, strict=True):
            ratio = float(np.median(torchs / seconds))
            benchmark.extra_info.update({f"{name}_ms": 1e3 * float(np.median(seconds)), f"times_{name}": ratio})
    benchmark.pedantic(run, rounds=20, warmup_rounds=2)
    assert jax.default_backend() == "cpu", "PyTorch runs on the CPU here: set JAX_PLATFORMS=cpu"
