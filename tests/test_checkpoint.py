import json
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import neural_env
from neural_env import bundled, checkpoint
from neural_env.checkpoint import CheckpointError, load, load_module, read_game, save_module
from neural_env.world.model import PRESETS
from neural_env.world.parameters import all_arrays, parameters, replaced

CONFIG, WEIGHTS, STARTS = "config.json", "weights.safetensors", "starts.safetensors"


@pytest.fixture
def folder(tiny_world_folder, tmp_path):
    """A copy of the tiny world, to be damaged."""
    return shutil.copytree(tiny_world_folder, tmp_path / "world")


@pytest.fixture
def edit(folder):
    """Changes the configuration on disk."""

    def edit(change):
        config = json.loads((folder / CONFIG).read_text())
        change(config)
        (folder / CONFIG).write_text(json.dumps(config))

    return edit


def edit_arrays(path, change):
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


def refusal(folder, file, why):
    """The path that the error of `load` names, of an error whose message matches `why` and names the file."""
    with pytest.raises(CheckpointError, match=why) as caught:
        load(folder)
    assert str(folder / file) in str(caught.value)
    return caught.value.path


def test_a_saved_world_is_loaded_with_weights_rounded_to_bfloat16(tiny_world, tiny_world_folder):
    saved, loaded = all_arrays(tiny_world), all_arrays(load(tiny_world_folder).world)
    assert saved.keys() == loaded.keys()
    for name, array in saved.items():
        assert loaded[name].dtype == jnp.float32
        np.testing.assert_allclose(loaded[name], array, rtol=2**-8, err_msg=name)  # bfloat16 keeps 8 bits


def test_measured_statistics_are_kept_exactly(tiny_world, save_world, tmp_path):
    statistics = {
        "outcome.variable_bins": jnp.array([[0.0, 1 / 3, 57.123456, 60.0, 100.0]]),
        "autoencoder.latent_std": jnp.array([0.1, 0.2, 0.3, 1 / 3]),
    }
    world = replaced(tiny_world, statistics)
    loaded = load(save_world(world, tmp_path / "world")).world
    assert (loaded.outcome.variable_bins[...] == world.outcome.variable_bins[...]).all()
    assert (loaded.autoencoder.latent_std[...] == world.autoencoder.latent_std[...]).all()


def test_configuration_starts_provenance_and_scores_come_back(tiny_world_folder, tiny_starts, game):
    loaded = load(str(tiny_world_folder))
    assert (loaded.model, loaded.game) == (PRESETS["tiny"], game)
    assert loaded.scores == {"psnr": 12.5}
    assert loaded.provenance == {"code_version": neural_env.__version__, "preset": "tiny", "seed": 0}
    np.testing.assert_allclose(loaded.starts.latents, tiny_starts.latents, rtol=1e-3, atol=1e-4)
    assert loaded.starts.latents.dtype == np.float32
    assert (loaded.starts.actions == tiny_starts.actions).all() and loaded.starts.actions.dtype == np.int32


def test_a_loaded_world_saved_again_is_the_same_to_the_last_bit(tiny_world_folder, tmp_path):
    loaded = load(tiny_world_folder)
    checkpoint.save(loaded, tmp_path / "again")
    for name in (CONFIG, WEIGHTS, STARTS):
        assert (tmp_path / "again" / name).read_bytes() == (tiny_world_folder / name).read_bytes()


def test_the_game_is_read_without_the_weights(folder, game):
    (folder / WEIGHTS).unlink()
    (folder / STARTS).unlink()
    assert read_game(folder) == game


def test_a_missing_folder_is_reported_with_what_exists(tmp_path):
    with pytest.raises(CheckpointError, match=r"no folder of that name.*neural-env bundle.*bundled world") as caught:
        load(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_a_folder_without_a_configuration_is_no_checkpoint(folder):
    (folder / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"holds no config\.json") as caught:
        load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"not json", b"\xff\xfe\x00"])
def test_a_configuration_that_is_not_json_is_reported(folder, content):
    (folder / CONFIG).write_bytes(content)
    assert refusal(folder, CONFIG, "not JSON.*restore the file") == folder / CONFIG


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"format": "neural_env.world/99"}'])
def test_a_foreign_format_is_reported_with_the_one_that_is_read(folder, content):
    (folder / CONFIG).write_text(content)
    assert refusal(folder, CONFIG, "format is .*reads 'neural_env.world/1'") == folder / CONFIG


@pytest.mark.parametrize("key", ["model", "game", "provenance", "scores"])
def test_a_missing_key_is_named(folder, edit, key):
    edit(lambda config: config.pop(key))
    assert refusal(folder, CONFIG, f"lacks.*'{key}'") == folder / CONFIG


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c["model"].update(depth=3), "'model' is not a ModelConfig: .*depth"),
        (lambda c: c["model"]["unet"].update(heads=8), "'model' is not a ModelConfig: .*heads"),
        (lambda c: c["game"].update(engine="quake"), "'game' is not a GameConfig: .*engine"),
        (lambda c: c["game"].pop("scenario"), "'game' is not a GameConfig: .*scenario"),
        (lambda c: c.update(game=[]), "'game' is not a GameConfig"),
        (lambda c: c["model"].update(unet=7), "'model' is not a ModelConfig"),
    ],
)
def test_a_configuration_with_other_fields_is_reported(folder, edit, change, why):
    edit(change)
    assert refusal(folder, CONFIG, why) == folder / CONFIG


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["game"].update(resolution=[121, 160]),
        lambda c: c["game"].update(resolution=[120]),
        lambda c: c["model"]["unet"].update(widths=[]),
        lambda c: c["model"]["autoencoder"].update(patch=0),
    ],
)
def test_a_configuration_that_no_model_can_have_is_reported(folder, edit, change):
    edit(change)
    assert refusal(folder, CONFIG, "describes no model") == folder / CONFIG


@pytest.mark.parametrize("file", [WEIGHTS, STARTS])
def test_a_missing_file_is_reported(folder, file):
    (folder / file).unlink()
    assert refusal(folder, file, "missing.*restore") == folder / file


@pytest.mark.parametrize("file", [WEIGHTS, STARTS])
@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.999])
def test_a_truncated_file_is_reported(folder, file, keep):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert refusal(folder, file, "damaged.*restore") == folder / file


@pytest.mark.parametrize("position", [0, 7, 8, 20])
def test_a_flipped_byte_in_the_header_is_reported(folder, position):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[position] ^= 0xFF
    (folder / WEIGHTS).write_bytes(content)
    assert refusal(folder, WEIGHTS, "damaged.*restore") == folder / WEIGHTS


def test_a_missing_array_is_named(folder):
    edit_arrays(folder / WEIGHTS, lambda arrays: arrays.pop("unet.head.bias"))
    assert refusal(folder, WEIGHTS, r"lacks 'unet.head.bias' \(1 arrays missing\)") == folder / WEIGHTS


def test_an_array_too_many_is_named(folder):
    edit_arrays(folder / WEIGHTS, lambda arrays: arrays.update(extra=np.zeros(3, np.float32)))
    assert refusal(folder, WEIGHTS, "no array 'extra'") == folder / WEIGHTS


def test_an_array_of_the_wrong_shape_is_named_with_both_shapes(folder):
    edit_arrays(folder / WEIGHTS, lambda arrays: arrays.update({"unet.head.bias": np.zeros(7, np.float32)}))
    assert refusal(folder, WEIGHTS, r"unet.head.bias has shape \(7,\), the model's is \(4,\)") == folder / WEIGHTS


def test_weights_of_another_preset_are_refused(folder, edit):
    edit(lambda config: config["model"]["unet"].update(widths=[8, 24]))
    assert refusal(folder, WEIGHTS, "doesn't fit the configuration.*wrong preset") == folder / WEIGHTS


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(latents=a["latents"][:, 1:].copy()),
        lambda a: a.update(latents=a["latents"][..., :2].copy()),
        lambda a: a.update(actions=a["actions"][:, 1:].copy()),
        lambda a: a.update(actions=a["actions"][1:].copy()),
    ],
)
def test_starts_of_the_wrong_shape_are_refused(folder, change):
    edit_arrays(folder / STARTS, change)
    assert refusal(folder, STARTS, "don't fit the configuration's context 4") == folder / STARTS


@pytest.mark.parametrize("name", ["latents", "actions"])
def test_starts_without_latents_or_actions_are_refused(folder, name):
    edit_arrays(folder / STARTS, lambda arrays: arrays.pop(name))
    assert refusal(folder, STARTS, "must hold 'latents' and 'actions'") == folder / STARTS


def test_a_save_cut_short_leaves_no_checkpoint_behind(tiny_world_folder, tmp_path, monkeypatch):
    loaded = load(tiny_world_folder)

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(loaded, tmp_path / "cut")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load(tmp_path / "cut")


def test_bundled_worlds_are_found_by_name(tiny_world_folder, tmp_path, monkeypatch, game):
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path)
    for name in ("take_cover", "basic"):
        shutil.copytree(tiny_world_folder, tmp_path / name)
    (tmp_path / "unfinished").mkdir()
    assert checkpoint.bundled_names() == ["basic", "take_cover"]
    assert read_game("basic") == game and load("take_cover").scores == {"psnr": 12.5}
    with pytest.raises(CheckpointError, match=r"\['basic', 'take_cover'\]"):
        load("my_way_home")


def test_a_module_is_handed_on_exactly(tiny_world, tmp_path):
    path = tmp_path / "outcome" / WEIGHTS
    save_module(tiny_world.outcome, path)
    loaded = load_module(load_module(tiny_world.outcome, path), path)
    saved = all_arrays(tiny_world.outcome)
    assert parameters(loaded).keys() == parameters(tiny_world.outcome).keys()
    assert all((array == saved[name]).all() for name, array in all_arrays(loaded).items())


def test_a_module_that_was_never_made_names_the_stage_to_run(tiny_world, tmp_path):
    with pytest.raises(CheckpointError, match="run the outcome stage first"):
        load_module(tiny_world.outcome, tmp_path / "outcome" / WEIGHTS)


def test_a_module_of_another_stage_is_refused(tiny_world, tmp_path):
    save_module(tiny_world.outcome, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="it is of another model"):
        load_module(tiny_world.unet, tmp_path / WEIGHTS)


def test_scores_are_replaced_and_nothing_else(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    loaded = load(folder)
    checkpoint.write_scores(replace(loaded, scores={"psnr": 30.0, "command": "measure"}), folder)
    assert load(folder).scores == {"psnr": 30.0, "command": "measure"}
    assert load(folder).provenance == loaded.provenance
    assert all((folder / name).read_bytes() == before[name] for name in (WEIGHTS, STARTS))
