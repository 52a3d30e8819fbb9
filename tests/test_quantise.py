import shutil

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import neural_env
from neural_env import checkpoint
from neural_env.checkpoint import CheckpointError
from neural_env.cli import main
from neural_env.quantise import QuantiseConfig, quantise
from neural_env.training.danger import latents_of
from neural_env.world.parameters import all_arrays

WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def small(tmp_path_factory, tiny_world_folder):
    """The tiny world in 8 bits; read only."""
    out = tmp_path_factory.mktemp("small") / "world"
    quantise(QuantiseConfig(checkpoint=str(tiny_world_folder), out=out))
    return out


def test_kernels_of_what_makes_pictures_take_half_the_bytes(small, tiny_world_folder):
    before, after = (load_file(folder / WEIGHTS) for folder in (tiny_world_folder, small))
    rounded = {name for name, array in after.items() if array.dtype == np.int8}
    assert rounded and all(name.startswith(("unet.", "autoencoder.decoder.")) for name in rounded)
    assert all(2 * after[name].nbytes == before[name].nbytes for name in rounded)
    assert (small / WEIGHTS).stat().st_size < 0.8 * (tiny_world_folder / WEIGHTS).stat().st_size


def test_the_world_is_loaded_a_little_off_and_sees_the_same_latents(small, tiny_world_folder):
    found, expected = neural_env.load(small), neural_env.load(tiny_world_folder)
    assert (found.model, found.game) == (expected.model, expected.game)
    assert latents_of(found.world) == latents_of(expected.world)
    arrays, exact = all_arrays(found.world), all_arrays(expected.world)
    changed = {name for name in exact if not (arrays[name] == exact[name]).all()}
    assert changed and all(name.startswith(("unet.", "autoencoder.decoder.")) for name in changed)
    for name in changed:
        assert np.abs(arrays[name] - exact[name]).max() <= np.abs(exact[name]).max() / 127


def test_its_scores_are_gone_and_its_origin_is_told(small, tiny_world_folder):
    found, origin = neural_env.load(small), neural_env.load(tiny_world_folder)
    assert origin.scores and not found.scores
    told = found.provenance.pop("quantised_from")
    assert told == checkpoint.fingerprint(tiny_world_folder).hex() and found.provenance == origin.provenance


def test_doing_it_again_changes_no_weight(small, tmp_path, capsys):
    assert main(["quantise", "--checkpoint", str(small), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (small / WEIGHTS).read_bytes()
    assert "evaluate world --checkpoint" in capsys.readouterr().out


def test_it_dreams(small):
    env = gym.make("neural_env:NeuralDoom-v0", checkpoint=str(small))
    observation, _ = env.reset(seed=0)
    following, *_ = env.step(np.int64(1))
    assert following.shape == observation.shape and (following != observation).any()
    env.close()


def test_lost_scales_are_damage(small, tmp_path):
    broken = shutil.copytree(small, tmp_path / "broken")
    arrays = load_file(broken / WEIGHTS)
    del arrays[next(name for name in arrays if name.endswith(":scale"))]
    save_file(arrays, broken / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"it is damaged .* needs scales .* but has none.*: restore it"):
        neural_env.load(broken)
