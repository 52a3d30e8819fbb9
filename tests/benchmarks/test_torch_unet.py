"""The rival is the same network: else a ratio of times says nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.world.model import PRESETS

torch = pytest.importorskip("torch")


def test_the_twin_computes_what_our_unet_computes(benchmark_module, tiny_world, game):
    config, (h, w, c) = PRESETS["tiny"].unet, tiny_world.latent_shape
    twin = benchmark_module("torch_unet").twin(tiny_world.unet, config, (h, w), c, len(game.action_names))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, h, w, c), np.float32)
    context = rng.standard_normal((3, config.context, h, w, c), np.float32)
    actions = rng.integers(len(game.action_names), size=(3, config.context)).astype(np.int32)
    levels = rng.uniform(0, 0.7, (3, config.context)).astype(np.float32)
    c_noise = np.array([-0.9, 0.1, 0.7], np.float32)
    expected = tiny_world.unet(*map(jnp.asarray, (x, c_noise, context, actions, levels)))
    with torch.inference_mode():
        theirs = twin(
            *map(torch.from_numpy, (x.transpose(0, 3, 1, 2), c_noise, context.transpose(0, 1, 4, 2, 3))),
            torch.from_numpy(actions).long(),
            torch.from_numpy(levels),
        )
    ours = np.asarray(expected)
    assert np.abs(theirs.numpy().transpose(0, 2, 3, 1) - ours).max() < 1e-4 * max(1, np.abs(ours).max())
    assert ours.std() > 0.1
