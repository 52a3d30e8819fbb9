"""The whole way from a played game to an environment, as small as it gets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import neural_env
from neural_env.checkpoint import CheckpointError
from neural_env.cli import main
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.corpus import Corpus
from neural_env.data.shards import Dataset
from neural_env.training.latents import encode_frames
from neural_env.training.loop import LoopConfig
from neural_env.training.run import (
    AutoencoderRun,
    BundleRun,
    DecoderRun,
    DenoiserRun,
    OutcomeRun,
    bundle,
    some_frames,
    train_autoencoder,
    train_decoder,
    train_denoiser,
    train_outcome,
)
from neural_env.world.model import PRESETS
from neural_env.world.parameters import all_arrays

pytestmark = pytest.mark.slow

LOOP = LoopConfig(steps=3, batch=2, warmup=1, log_every=1)
STAGES = ("autoencoder", "denoiser", "decoder", "outcome")
WEIGHTS = "weights.safetensors"
TRAIN = {
    "autoencoder": (AutoencoderRun, train_autoencoder),
    "denoiser": (DenoiserRun, train_denoiser),
    "decoder": (DecoderRun, train_decoder),
    "outcome": (OutcomeRun, train_outcome),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve episodes: two of the test split, two of validation, the rest for training."""
    out = tmp_path_factory.mktemp("data")
    collect(CollectConfig(out=out, scenario="basic", episodes=12, max_episode_steps=50))
    return out


def train(stage, data, out, **changes):
    config, function = TRAIN[stage]
    function(config(data=(data,), out=out, **{"preset": "tiny", "loop": LOOP, **changes}))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run of all three stages."""
    out = tmp_path_factory.mktemp("run")
    for stage in STAGES:
        train(stage, data, out)
    return out


@pytest.fixture(scope="module")
def world(data, run, tmp_path_factory):
    """The checkpoint bundled from the run."""
    out = tmp_path_factory.mktemp("worlds") / "basic"
    bundle(BundleRun(data=(data,), run=run, out=out, preset="tiny"))
    return out


def plays_five_steps(folder):
    env = gym.make("NeuralDoom-v0", checkpoint=str(folder))
    frame, info = env.reset(seed=0)
    assert list(info) == ["ammo2"]
    for action in (0, 1, 2, 3, 0):
        following, reward, terminated, _, info = env.step(action)
        assert env.observation_space.contains(following) and np.isfinite([reward, info["ammo2"]]).all()
        if terminated:
            env.reset()
    env.close()
    return frame


def test_a_trained_and_bundled_world_can_be_played(world, data):
    frame = plays_five_steps(world)
    # It starts from a real context: the picture is near a real first frame, not grey.
    start = next(Dataset.open(data).episodes("validation")).frames[3]
    assert np.abs(frame.astype(float) - start).mean() < 20


def test_the_bundled_world_knows_where_it_comes_from(world, data, run):
    loaded = neural_env.load(world)
    manifest = Dataset.open(data).manifest
    assert loaded.game.scenario == "basic" and loaded.game.action_names == manifest.action_names
    (source,) = loaded.provenance["data"]
    assert source["manifest_hash"] == manifest.hash and source["policy"] == manifest.policy
    assert source["frames"]["validation"] == Dataset.open(data).num_frames("validation")
    assert {name: stage["steps"] for name, stage in loaded.provenance["stages"].items()} == dict.fromkeys(STAGES, 3)
    assert loaded.scores == {}


def test_starts_are_the_first_frames_of_validation_episodes(world, data):
    loaded = neural_env.load(world)
    episodes = list(Dataset.open(data).episodes("validation"))
    assert len(loaded.starts.latents) == len(episodes) == 2
    for episode, latents, actions in zip(episodes, loaded.starts.latents, loaded.starts.actions, strict=True):
        assert (actions == episode.actions[:3]).all()
        # The weights were rounded to bfloat16 after the starts were encoded, hence the tolerance.
        np.testing.assert_allclose(encode_frames(loaded.world.autoencoder, episode.frames[:4]), latents, atol=0.3)


def test_every_stage_leaves_weights_a_record_and_metrics(run):
    for stage in STAGES:
        record = json.loads((run / stage / "stage.json").read_text())
        assert (record["steps"], record["of_steps"], record["samples"]) == (3, 3, 6)
        lines = [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3]
        assert any(line["split"] == "validation" for line in lines)
        assert (run / stage / WEIGHTS).stat().st_size > 1000


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_run_again_after_its_end_gives_the_same_weights(run, data, tmp_path, stage):
    for part in (*STAGES, "latents"):
        shutil.copytree(run / part, tmp_path / part)
    (tmp_path / stage / WEIGHTS).unlink()
    train(stage, data, tmp_path)
    assert (tmp_path / stage / WEIGHTS).read_bytes() == (run / stage / WEIGHTS).read_bytes()


def test_a_stage_that_stopped_early_says_so_and_goes_on_to_the_same_weights(run, data, tmp_path, capsys):
    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    train("denoiser", data, tmp_path, loop=replace(LOOP, max_minutes=0.0))
    assert "stopped early; run again to go on at step 1 of 3" in " ".join(capsys.readouterr().out.split())
    train("denoiser", data, tmp_path)
    assert "denoiser: finished at step 3 of 3" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "denoiser" / WEIGHTS).read_bytes() == (run / "denoiser" / WEIGHTS).read_bytes()


def test_an_auto_encoder_killed_before_its_first_state_begins_with_the_linear_fit_again(run, data, tmp_path):
    (tmp_path / "autoencoder" / "state").mkdir(parents=True)  # as far as it came
    train("autoencoder", data, tmp_path)
    assert (tmp_path / "autoencoder" / WEIGHTS).read_bytes() == (run / "autoencoder" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("stage", ["denoiser", "decoder", "outcome"])
def test_a_stage_without_the_one_before_names_what_to_run(data, tmp_path, stage):
    with pytest.raises(CheckpointError, match="missing: run the autoencoder stage first") as caught:
        train(stage, data, tmp_path)
    assert str(tmp_path / "autoencoder") in str(caught.value)


def test_bundling_an_unfinished_run_names_the_stage_that_is_missing(run, data, tmp_path):
    for part in ("autoencoder", "denoiser"):
        shutil.copytree(run / part, tmp_path / part)
    with pytest.raises(CheckpointError, match="run the outcome stage first"):
        bundle(BundleRun(data=(data,), run=tmp_path, out=tmp_path / "world", preset="tiny"))
    assert not (tmp_path / "world").exists()


def test_a_bundle_shows_its_pictures_with_the_fine_tuned_decoder(run, data, world, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "decoder")
    bundle(BundleRun(data=(data,), run=tmp_path / "run", out=tmp_path / "plain", preset="tiny"))
    tuned, plain = (all_arrays(neural_env.load(folder).world) for folder in (world, tmp_path / "plain"))
    changed = {name.rsplit(".", 2)[0] for name in plain if (tuned[name] != plain[name]).any()}
    assert changed and all(name.startswith("autoencoder.decoder") for name in changed)
    assert (neural_env.load(tmp_path / "plain").starts.latents == neural_env.load(world).starts.latents).all()


def test_a_decoder_fine_tuned_from_another_auto_encoder_is_refused(run, data, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    record = tmp_path / "run" / "decoder" / "stage.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"autoencoder": "another"}))
    with pytest.raises(ValueError, match=r"from another auto-encoder than the run's: fine-tune it again, or remove"):
        bundle(BundleRun(data=(data,), run=tmp_path / "run", out=tmp_path / "world", preset="tiny"))


def test_weights_of_another_preset_are_refused(run, data, tmp_path, monkeypatch):
    tiny = PRESETS["tiny"]
    monkeypatch.setitem(PRESETS, "wider", replace(tiny, unet=replace(tiny.unet, widths=(8, 24))))
    with pytest.raises(CheckpointError, match=r"denoiser.*wrong preset"):
        bundle(BundleRun(data=(data,), run=run, out=tmp_path / "world", preset="wider"))


def test_an_unknown_preset_is_refused_with_those_there_are(data, tmp_path):
    with pytest.raises(ValueError, match=r"no preset 'huge'; there are \['small', 'tiny'"):
        train("autoencoder", data, tmp_path, preset="huge")


@pytest.mark.parametrize("limit", [1, 7, 50, 10_000])
def test_training_frames_are_spread_evenly_over_the_split(data, limit):
    corpus = Corpus.open((data,))
    every = np.concatenate([episode.frames for episode in corpus.episodes("train")])
    frames = some_frames(corpus, "train", limit)
    assert len(frames) <= limit
    assert (frames == every[:: -(-len(every) // limit)]).all()


def test_the_command_line_goes_the_whole_way_too(tmp_path, capsys):
    data, out, world = (str(tmp_path / name) for name in ("data", "run", "world"))
    common = ["--data", data, "--preset", "tiny"]
    loop = ["--steps", "2", "--batch", "2", "--warmup", "1"]
    assert main(["collect", "--out", data, "--scenario", "basic", "--episodes", "12", "--max-episode-steps", "40"]) == 0
    assert main(["train", "denoiser", *common, "--out", out, *loop]) == 1
    assert "run the autoencoder stage first" in capsys.readouterr().err
    for stage in STAGES:
        assert main(["train", stage, *common, "--out", out, *loop]) == 0
    assert main(["bundle", *common, "--run", out, "--out", world]) == 0
    plays_five_steps(Path(world))
    assert main(["train", "autoencoder", "--data", data, "--out", out, "--preset", "huge"]) == 1
    errors = capsys.readouterr().err
    assert "there is no preset 'huge'" in errors and "Traceback" not in errors


def test_several_datasets_train_one_world_and_need_the_splits_between_them(data, tmp_path):
    extra = tmp_path / "extra"
    collect(CollectConfig(out=extra, scenario="basic", episodes=2, first_seed=22, max_episode_steps=20))
    folders = [data, extra]
    for stage in ("autoencoder", "outcome"):
        config, function = TRAIN[stage]
        function(config(data=tuple(folders), out=tmp_path, preset="tiny", loop=LOOP))
    hashes = [Dataset.open(folder).manifest_hash for folder in folders]
    record = json.loads((tmp_path / "outcome" / "stage.json").read_text())
    assert [part["manifest_hash"] for part in record["data"]] == hashes
    assert record["data"][1]["frames"]["train"] == Dataset.open(extra).num_frames("train")


def test_a_dataset_without_validation_episodes_is_refused_by_name(tmp_path):
    collect(CollectConfig(out=tmp_path / "data", scenario="take_cover", episodes=2, first_seed=2, max_episode_steps=8))
    with pytest.raises(ValueError, match="has no validation episodes: collect at least 10"):
        train_autoencoder(AutoencoderRun(data=(tmp_path / "data",), out=tmp_path / "run", preset="tiny"))
