import json
import shutil
from dataclasses import replace

import gymnasium as gym
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import neural_env
from neural_env import checkpoint
from neural_env.checkpoint import CheckpointError
from neural_env.cli import main
from neural_env.evaluation.frames import psnr
from neural_env.quantise import QuantiseConfig, quantise
from neural_env.training.danger import latents_of
from neural_env.world.parameters import all_arrays, parameters, replaced

WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def small(tmp_path_factory, tiny_world_folder):
    """The tiny world in 8 bits; read only."""
    out = tmp_path_factory.mktemp("small") / "world"
    quantise(QuantiseConfig(checkpoint=str(tiny_world_folder), out=out))
    return out


def test_it_is_the_kernels_of_what_makes_pictures_that_are_rounded(small, tiny_world):
    kept = load_file(small / WEIGHTS)
    rounded = {name for name, array in kept.items() if array.dtype == np.int8}
    kernels = {name for name in parameters(tiny_world) if name.endswith(".kernel")}
    assert rounded == {name for name in kernels if name.startswith(("unet.", "autoencoder.decoder."))}
    assert kept.keys() == all_arrays(tiny_world).keys() | {f"{name}:scale" for name in rounded}


def test_each_is_off_by_half_a_step_of_its_channel_and_nothing_else_changes(small, tiny_world_folder):
    found, expected = (all_arrays(neural_env.load(folder).world) for folder in (small, tiny_world_folder))
    steps = {name: array for name, array in load_file(small / WEIGHTS).items() if name.endswith(":scale")}
    for name, array in expected.items():
        bound = steps[f"{name}:scale"] / 2 * 1.001 if f"{name}:scale" in steps else 0.0
        assert (np.abs(found[name] - array) <= bound).all(), name


def test_what_learned_from_its_latents_still_fits(small, tiny_world_folder):
    found, expected = neural_env.load(small), neural_env.load(tiny_world_folder)
    assert latents_of(found.world) == latents_of(expected.world)
    assert (found.model, found.game, found.provenance) == (expected.model, expected.game, expected.provenance)
    np.testing.assert_array_equal(found.starts.latents, expected.starts.latents)


def test_scores_of_the_finer_weights_are_left_out(small, tiny_world_folder):
    assert neural_env.load(tiny_world_folder).scores and not neural_env.load(small).scores
    assert json.loads((small / "config.json").read_text())["weights"] == "int8"


def test_it_dreams_what_it_dreamed(small, tiny_world_folder):
    frames = []
    for folder in (tiny_world_folder, small):
        env = gym.make("neural_env:NeuralDoom-v0", checkpoint=str(folder))
        env.reset(seed=0)
        frames.append(np.stack([env.step(np.int64(1))[0] for _ in range(3)]))
        env.close()
    assert psnr(*frames).min() > 45 > 30 > psnr(frames[0][:-1], frames[0][1:]).max()


def test_loaded_and_saved_again_it_is_the_same_to_the_last_bit(small, tmp_path):
    checkpoint.save(neural_env.load(small), tmp_path / "again")
    for name in checkpoint.FILES:
        assert (tmp_path / "again" / name).read_bytes() == (small / name).read_bytes()


def test_the_world_itself_is_not_overwritten(tiny_world_folder, tmp_path, capsys):
    world = shutil.copytree(tiny_world_folder, tmp_path / "world")
    assert main(["quantise", "--checkpoint", str(world), "--out", str(world)]) == 1
    assert "is the world itself" in capsys.readouterr().err
    assert (world / WEIGHTS).read_bytes() == (tiny_world_folder / WEIGHTS).read_bytes()
    assert main(["quantise", "--checkpoint", str(world), "--out", str(tmp_path / "small")]) == 0
    assert "MB instead of" in capsys.readouterr().out


def test_weights_that_diverged_are_refused(tiny_world_folder, tmp_path):
    loaded = neural_env.load(tiny_world_folder)
    broken = replaced(loaded.world, {"unet.stem.kernel": jax.numpy.full_like(loaded.world.unet.stem.kernel, np.nan)})
    checkpoint.save(replace(loaded, world=broken), tmp_path / "broken")
    with pytest.raises(ValueError, match=r"unet\.stem\.kernel holds numbers that aren't finite"):
        quantise(QuantiseConfig(checkpoint=str(tmp_path / "broken"), out=tmp_path / "small"))
    assert not (tmp_path / "small" / "config.json").exists()


def test_lost_scales_are_damage(small, tmp_path):
    broken = shutil.copytree(small, tmp_path / "broken")
    arrays = load_file(broken / WEIGHTS)
    del arrays[next(name for name in arrays if name.endswith(":scale"))]
    save_file(arrays, broken / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"it is damaged .* needs scales .* but has none.*: restore it"):
        neural_env.load(broken)


def test_weights_of_an_unknown_form_are_refused(small, tmp_path):
    world = shutil.copytree(small, tmp_path / "world")
    config = json.loads((world / "config.json").read_text())
    (world / "config.json").write_text(json.dumps(config | {"weights": "int4"}))
    with pytest.raises(CheckpointError, match="its weights are in 'int4', this version reads"):
        neural_env.load(world)
