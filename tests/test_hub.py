"""The Hub itself is never reached: its client is replaced, or told that there is no network."""

import importlib
import json
import shutil
import sys

import pytest
from huggingface_hub.errors import HfHubHTTPError

import neural_env
from neural_env import checkpoint, hub
from neural_env.checkpoint import FILES, CheckpointError
from neural_env.cli import main
from neural_env.evaluation.run import EvaluateConfig, evaluate
from neural_env.hub import FORMAT, MANIFEST, ReleaseConfig, release


@pytest.fixture(autouse=True)
def forgetful():
    """No test knows what another fetched."""
    hub.fetched.cache_clear()


@pytest.fixture
def released(tiny_world_folder, tmp_path):
    """The tiny world, ready to be uploaded."""
    out = tmp_path / "release"
    release(ReleaseConfig(checkpoint=str(tiny_world_folder), licence="MIT", out=out))
    return out


@pytest.fixture
def served(released, monkeypatch):
    """A Hub that has that world as me/tiny, and what it was asked for."""
    asked = []

    def snapshot_download(repository, *, revision, allow_patterns, force_download):
        asked.append((repository, revision, force_download))
        assert set(allow_patterns) == {MANIFEST, *FILES}
        return str(released)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def test_a_released_world_is_loaded_by_its_address(served, tiny_world_folder):
    found, expected = neural_env.load("hf://me/tiny@v1"), neural_env.load(tiny_world_folder)
    assert found.game == expected.game and found.model == expected.model
    assert checkpoint.fingerprint("hf://me/tiny@v1") == checkpoint.fingerprint(tiny_world_folder)
    assert served == [("me/tiny", "v1", False)]  # once, however often it is looked at


def test_without_a_revision_the_newest_is_asked_for(served):
    assert checkpoint.read_game("hf://me/tiny").scenario == "take_cover"
    assert served == [("me/tiny", None, False)]


def test_an_environment_takes_the_address(served):
    import gymnasium as gym

    env = gym.make("neural_env:NeuralDoom-v0", checkpoint="hf://me/tiny")
    observation, _ = env.reset(seed=0)
    assert observation.shape == (120, 160, 3) and served == [("me/tiny", None, False)]


def test_a_manifest_tells_files_licence_and_scores(tmp_path, capsys):
    out = tmp_path / "release"
    assert main(["release", "--checkpoint", "take_cover", "--licence", "MIT", "--out", str(out)]) == 0
    assert "upload" in capsys.readouterr().out
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["format"] == FORMAT and manifest["licence"] == "MIT" and manifest["scenario"] == "take_cover"
    sizes = {name: file["size"] for name, file in manifest["files"].items()}
    assert sizes == {path.name: path.stat().st_size for path in out.iterdir() if path.name in FILES}
    assert "29.43 dB; missed" in manifest["scores"]["next frame, PSNR"]


@pytest.mark.parametrize("name", ["weights.safetensors", "starts.safetensors", "config.json"])
def test_a_file_that_differs_from_the_manifest_is_downloaded_anew_and_then_refused(served, released, name):
    with (released / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(CheckpointError, match=f"{name} has .* bytes and sha256 .*must release it again"):
        neural_env.load("hf://me/tiny")
    assert served == [("me/tiny", None, False), ("me/tiny", None, True)]


def test_a_damaged_download_is_mended_by_another(released, monkeypatch, tiny_world_folder):
    whole = (released / "weights.safetensors").read_bytes()

    def snapshot_download(repository, *, force_download, **_):
        (released / "weights.safetensors").write_bytes(whole if force_download else whole[:-1])
        return str(released)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert checkpoint.fingerprint("hf://me/tiny") == checkpoint.fingerprint(tiny_world_folder)


def test_a_file_that_never_came_is_refused(served, released):
    (released / "starts.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"starts\.safetensors is missing"):
        neural_env.load("hf://me/tiny")


@pytest.mark.parametrize("name", ["ProxyError", "ReadTimeout", "HTTPError"])
def test_what_goes_wrong_on_the_way_is_a_checkpoint_error(name, monkeypatch):
    library = HfHubHTTPError.__bases__[0].__module__.partition(".")[0]
    trouble = getattr(importlib.import_module(library), name)

    def snapshot_download(*_, **__):
        raise trouble("no way through")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError, match=r"hf://me/tiny: the Hub doesn't give it: no way through"):
        neural_env.load("hf://me/tiny")


def test_scores_are_not_written_into_the_hubs_cache():
    with pytest.raises(ValueError, match="scores can't be written"):
        evaluate(EvaluateConfig(checkpoint="hf://me/tiny", write=True))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.update(format="other/3"), "its format is 'other/3'"),
        (lambda m: m.pop("licence"), "licence"),
        (lambda m: m["files"].pop("starts.safetensors"), "a world consists of"),
        (lambda m: m["files"].update({"../../etc/passwd": {"sha256": "", "size": 0}}), "a world consists of"),
        (lambda m: m["files"].update({"config.json": 3}), "no manifest of this version"),
    ],
)
def test_a_foreign_manifest_is_refused(served, released, change, why):
    manifest = json.loads((released / MANIFEST).read_text())
    change(manifest)
    (released / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=why):
        neural_env.load("hf://me/tiny")


def test_a_repository_without_a_manifest_is_no_world(served, released):
    (released / MANIFEST).write_text("not JSON")
    with pytest.raises(CheckpointError, match="no manifest of this version"):
        neural_env.load("hf://me/tiny")
    (released / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="no world released by"):
        neural_env.load("hf://me/tiny")


def test_without_a_network_the_error_says_what_needs_none(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"(?s)hf://me/tiny: .*can't be reached.*bundled world.*take_cover"):
        neural_env.load("hf://me/tiny")


def test_what_is_no_address_is_refused():
    with pytest.raises(CheckpointError, match="write hf://owner/name"):
        neural_env.load("hf://a/b/c")


def test_without_the_client_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "neural-env\[hub\]"'):
        neural_env.load("hf://me/tiny")


def test_a_world_that_cant_be_loaded_isnt_released(tiny_world_folder, tmp_path):
    shutil.copytree(tiny_world_folder, tmp_path / "world")
    (tmp_path / "world/weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the checkpoint is incomplete"):
        release(ReleaseConfig(checkpoint=str(tmp_path / "world"), licence="MIT", out=tmp_path / "release"))
    assert not (tmp_path / "release").exists()


def test_a_world_isnt_released_into_itself(tiny_world_folder):
    with pytest.raises(ValueError, match="is the world itself"):
        release(ReleaseConfig(checkpoint=str(tiny_world_folder), licence="MIT", out=tiny_world_folder))


def test_the_front_page_tells_the_hub_the_licence_and_is_the_authors_afterwards(released, tiny_world_folder):
    page = released / "README.md"
    assert page.read_text().startswith("---\nlicense: mit\n")
    page.write_text("mine")
    release(ReleaseConfig(checkpoint=str(tiny_world_folder), licence="MIT", out=released))
    assert page.read_text() == "mine"


def test_a_world_without_a_licence_isnt_released(tiny_world_folder, tmp_path):
    with pytest.raises(ValueError, match="needs a licence"):
        release(ReleaseConfig(checkpoint=str(tiny_world_folder), licence=" ", out=tmp_path / "release"))


def test_a_folder_of_something_else_is_left_alone(tiny_world_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex'"):
        release(ReleaseConfig(checkpoint=str(tiny_world_folder), licence="MIT", out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
