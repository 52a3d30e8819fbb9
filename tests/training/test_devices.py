import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from neural_env.training.devices import DataParallel

HERE = Path(__file__)


def test_what_is_spread_holds_the_same_numbers():
    batch = {"rows": np.arange(12.0).reshape(4, 3), "number": np.float32(7)}
    placed = DataParallel(4).spread(batch)
    assert all((np.asarray(placed[name]) == batch[name]).all() for name in batch)
    assert len(placed["rows"].sharding.device_set) == len(jax.devices())


def trained(folder, devices, batch=4):
    """The losses of a tiny denoiser's first steps, trained in a process of its own with so many simulated devices."""
    flags = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"}
    done = subprocess.run(
        [sys.executable, str(HERE), str(folder), str(batch)], capture_output=True, text=True, env=flags
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


@pytest.mark.slow
def test_two_devices_compute_the_loss_that_one_computes(tmp_path):
    one, two = trained(tmp_path / "one", 1), trained(tmp_path / "two", 2)
    assert len(one) == 6 and one[0] != one[-1]
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_devices_that_do_not_divide_the_batch_are_refused_with_a_cure(tmp_path):
    with pytest.raises(RuntimeError, match=r"a batch of 3 can't be shared evenly by 2 devices: choose a multiple of 2"):
        trained(tmp_path, 2, batch=3)


class Untold:
    """The denoiser's stage on random latents, without its validation, which isn't in question."""

    def __init__(self):
        from flax import nnx

        from neural_env.game import GameConfig
        from neural_env.training.denoiser import DenoiserStage
        from neural_env.training.latents import LatentData, Windows
        from neural_env.world.model import PRESETS, WorldModel

        game = GameConfig("take_cover", ("noop", "move_left", "move_right"), ("health",), 4, (32, 40))
        self.world = WorldModel(PRESETS["tiny"], game, rngs=nnx.Rngs(0))
        rng, n = np.random.default_rng(0), 500
        reader = self.world.autoencoder.decoder.linear.kernel
        reader[...] = rng.standard_normal(reader.shape, np.float32)  # a decoder that shows nothing weighs nothing
        latents = rng.standard_normal((n, *self.world.latent_shape)).astype(np.float16)
        zeros, starts = np.zeros(n, np.float32), np.array([0, n])
        actions = rng.integers(3, size=n).astype(np.int32)
        data = LatentData(latents, actions, zeros, zeros[:, None], zeros.astype(np.uint8), starts)
        windows = Windows(data, self.world.context, 0, pictures_only=True)
        stage = DenoiserStage(self.world, windows, windows)
        self.name, self.loss, self.batch = stage.name, stage.loss, stage.batch

    def validate(self, module):
        return {}


if __name__ == "__main__":
    from neural_env.training.loop import LoopConfig, train

    denoiser = Untold()
    config = LoopConfig(steps=6, batch=int(sys.argv[2]), learning_rate=1e-2, warmup=1, log_every=1)
    train(denoiser, denoiser.world.unet, config, Path(sys.argv[1]))
