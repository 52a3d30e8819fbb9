"""The whole way from a played game to an environment, as small as it gets."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import load_file

import neural_env
from neural_env.checkpoint import CheckpointError, load_module
from neural_env.cli import main
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.corpus import Corpus
from neural_env.data.shards import Dataset
from neural_env.training import outcome
from neural_env.training.distill import DistillConfig
from neural_env.training.latents import encode_frames
from neural_env.training.loop import LoopConfig
from neural_env.training.rollout import RolloutConfig
from neural_env.training.run import (
    AutoencoderRun,
    BundleRun,
    DecoderRun,
    DenoiserRun,
    DistillRun,
    OutcomeRun,
    RolloutRun,
    SamplerRun,
    bundle,
    choose_sampler,
    some_frames,
    train_autoencoder,
    train_decoder,
    train_denoiser,
    train_distill,
    train_outcome,
    train_rollout,
)
from neural_env.training.sampler import SamplerConfig
from neural_env.training.state import StateStore
from neural_env.world.conditioning import ContextNoise
from neural_env.world.distilled import Distilled
from neural_env.world.model import PRESETS
from neural_env.world.parameters import all_arrays
from neural_env.world.shortcut import Shortcut
from neural_env.world.velocity import VPrediction

pytestmark = pytest.mark.slow

LOOP = LoopConfig(steps=3, batch=2, warmup=1, log_every=1)
STAGES = ("autoencoder", "denoiser", "decoder", "outcome")
WEIGHTS = "weights.safetensors"
TRAIN = {
    "autoencoder": (AutoencoderRun, train_autoencoder),
    "denoiser": (DenoiserRun, train_denoiser),
    "decoder": (DecoderRun, train_decoder),
    "outcome": (OutcomeRun, train_outcome),
    "rollout": (RolloutRun, train_rollout),
    "distill": (DistillRun, train_distill),
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


def rewrite(path, change):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(change(record)))


@pytest.mark.parametrize(
    ("stage", "part"),
    [("denoiser", "autoencoder"), ("outcome", "autoencoder"), ("decoder", "autoencoder"), ("decoder", "denoiser")],
)
def test_a_stage_that_began_from_other_weights_than_the_runs_is_not_bundled(run, data, tmp_path, stage, part):
    shutil.copytree(run, tmp_path / "run")
    record = tmp_path / "run" / stage / "stage.json"
    rewrite(record, lambda written: written | {part: "another"})
    with pytest.raises(ValueError, match=f"the {stage} stage began from another {part} than the run has now: remove"):
        bundled(data, tmp_path / "run", tmp_path / "world")
    rewrite(record, lambda written: {name: value for name, value in written.items() if name != part})
    bundled(data, tmp_path / "run", tmp_path / "world")  # a record that doesn't tell is believed


@pytest.mark.parametrize("stage", ["denoiser", "outcome", "decoder"])
def test_no_stage_goes_on_after_its_auto_encoder_has_changed(run, data, tmp_path, stage):
    for part in (*STAGES, "latents"):
        shutil.copytree(run / part, tmp_path / part)
    train("autoencoder", data, tmp_path, loop=replace(LOOP, steps=4))
    with pytest.raises(ValueError, match=r"from other weights|from another autoencoder"):
        train(stage, data, tmp_path)


# Stages that the denoiser may go through besides.


@pytest.fixture(scope="module")
def longer_run(run, data, tmp_path_factory):
    """The run, its denoiser trained on own frames and then distilled to one step."""
    out = tmp_path_factory.mktemp("longer") / "run"
    shutil.copytree(run, out)
    shutil.rmtree(out / "decoder")
    train("rollout", data, out, rollout=RolloutConfig(frames=3))
    train("distill", data, out, distill=DistillConfig(teacher_steps=2))
    return out


def bundled(data, run, out):
    bundle(BundleRun(data=(data,), run=run, out=out, preset="tiny"))
    return neural_env.load(out)


def test_the_last_stage_there_is_makes_the_bundles_denoiser(longer_run, data, tmp_path):
    shutil.copytree(longer_run, tmp_path / "run")
    for stages in (("denoiser", "rollout", "distill"), ("denoiser", "rollout"), ("denoiser",)):
        made = bundled(data, tmp_path / "run", tmp_path / "world")
        assert tuple(made.provenance["stages"]) == ("autoencoder", *stages, "outcome")
        last = load_module(made.world.unet, tmp_path / "run" / stages[-1] / WEIGHTS)
        for name, array in all_arrays(last).items():
            np.testing.assert_allclose(all_arrays(made.world.unet)[name], array, rtol=2**-7)
        shutil.rmtree(tmp_path / "run" / stages[-1])


def test_a_distilled_world_takes_one_step_and_says_so(longer_run, data, tmp_path):
    made = bundled(data, longer_run, tmp_path / "world")
    tiny = PRESETS["tiny"]
    assert made.model == replace(tiny, objective=Distilled(teacher=tiny.objective), num_steps=1)
    plays_five_steps(tmp_path / "world")
    with pytest.raises(ValueError, match="num_steps must be at most 1 in this world, got 2"):
        gym.make("NeuralDoom-v0", checkpoint=str(tmp_path / "world"), num_steps=2)


def test_a_student_of_a_guided_world_needs_no_guidance(run, data, tmp_path, monkeypatch):
    tiny = PRESETS["tiny"]
    monkeypatch.setitem(PRESETS, "guided", replace(tiny, unet=replace(tiny.unet, context_dropout=0.1)))
    for part in ("autoencoder", "outcome", "latents"):
        shutil.copytree(run / part, tmp_path / "run" / part)
    train("denoiser", data, tmp_path / "run", preset="guided")
    train("distill", data, tmp_path / "run", preset="guided", distill=DistillConfig(teacher_steps=2))
    bundle(BundleRun(data=(data,), run=tmp_path / "run", out=tmp_path / "world", preset="guided"))
    made = neural_env.load(tmp_path / "world")
    assert made.world.context_dropout == 0 and "unet.conditioner.no_past" not in all_arrays(made.world)
    plays_five_steps(tmp_path / "world")


def test_the_bundle_takes_the_sampler_that_was_chosen_for_its_denoiser(run, data, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    tried = SamplerConfig(num_steps=3, sigma_lasts=(0.5,), etas=(1.0,), windows=32)
    choose_sampler(SamplerRun(data=(data,), out=tmp_path / "run", preset="tiny", sampler=tried))
    made = bundled(data, tmp_path / "run", tmp_path / "world")
    tiny = PRESETS["tiny"]
    assert made.model == replace(tiny, objective=replace(tiny.objective, sigma_last=0.5, eta=1.0), num_steps=3)
    env = gym.make("NeuralDoom-v0", checkpoint=str(tmp_path / "world"))
    assert env.unwrapped.num_steps == 3
    train("rollout", data, tmp_path / "run", rollout=RolloutConfig(frames=3))
    with pytest.raises(ValueError, match="chosen for other weights than the run's denoiser has: choose it again"):
        bundled(data, tmp_path / "run", tmp_path / "world")


def test_the_decoder_is_fine_tuned_on_what_the_last_denoiser_predicts(longer_run, data, tmp_path):
    shutil.copytree(longer_run, tmp_path / "run")
    train("decoder", data, tmp_path / "run")
    assert "decoder" in bundled(data, tmp_path / "run", tmp_path / "world").provenance["stages"]


@pytest.mark.parametrize(("stage", "before"), [("rollout", "denoiser"), ("distill", "rollout")])
def test_a_later_stage_of_other_weights_is_refused(longer_run, data, tmp_path, stage, before):
    shutil.copytree(longer_run, tmp_path / "run")
    record = tmp_path / "run" / stage / "stage.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"parent": "another"}))
    with pytest.raises(ValueError, match=f"the {stage} stage began from other weights than the {before} stage left"):
        bundled(data, tmp_path / "run", tmp_path / "world")


def test_a_later_stage_goes_on_from_no_other_weights_than_it_began_from(longer_run, data, tmp_path):
    shutil.copytree(longer_run, tmp_path / "run")
    train("rollout", data, tmp_path / "run", rollout=RolloutConfig(frames=3))  # finished: nothing to do
    shutil.copy(tmp_path / "run" / "rollout" / WEIGHTS, tmp_path / "run" / "denoiser" / WEIGHTS)
    with pytest.raises(ValueError, match="holds a training that began from other weights than the run has now"):
        train("rollout", data, tmp_path / "run", rollout=RolloutConfig(frames=3))


@pytest.mark.parametrize("stage", ["rollout", "distill"])
def test_a_later_stage_without_a_denoiser_names_what_to_run(run, data, tmp_path, stage):
    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    with pytest.raises(CheckpointError, match="missing: run the denoiser stage first"):
        train(stage, data, tmp_path)


def test_terminations_are_calibrated_once_and_the_record_says_how(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "CALIBRATING_ENDS", 0)  # games of fifty steps may have none
    monkeypatch.setattr(outcome, "platt", lambda log_odds, ends, weights: (0.5, -1.0))
    for part in ("autoencoder", "latents"):
        shutil.copytree(run / part, tmp_path / part)
    train("outcome", data, tmp_path)
    first = (tmp_path / "outcome" / WEIGHTS).read_bytes()
    train("outcome", data, tmp_path)  # it is finished already
    assert (tmp_path / "outcome" / WEIGHTS).read_bytes() == first
    told = [json.loads((folder / "outcome" / "stage.json").read_text())["calibration"] for folder in (run, tmp_path)]
    assert told[0] is None and (told[1]["scale"], told[1]["shift"]) == (0.5, -1.0)
    plain, calibrated = (load_file(folder / "outcome" / WEIGHTS) for folder in (run, tmp_path))
    assert {name for name in plain if (plain[name] != calibrated[name]).any()} == {
        "hazard.out.kernel",
        "hazard.out.bias",
    }
    np.testing.assert_allclose(calibrated["hazard.out.bias"], 0.5 * plain["hazard.out.bias"] - 1.0, rtol=1e-6)


def preset_of(folder, **changes):
    (folder / "other.json").write_text(json.dumps({"preset": "tiny", **changes}))
    return str(folder / "other.json")


REFUSED = {"v": r"trained with another objective.kind.*: give the --preset", "shortcut": "wrong preset"}


@pytest.mark.parametrize("objective", [VPrediction(), Shortcut()], ids=lambda objective: objective.kind)
def test_a_world_of_another_objective_is_trained_bundled_and_played(run, data, tmp_path, objective):
    other = preset_of(tmp_path, objective={"kind": objective.kind}, num_steps=2)
    for part in ("autoencoder", "outcome", "latents"):
        shutil.copytree(run / part, tmp_path / "run" / part)
    train("denoiser", data, tmp_path / "run", preset=other)
    bundle(BundleRun(data=(data,), run=tmp_path / "run", out=tmp_path / "world", preset=other))
    made = neural_env.load(tmp_path / "world")
    assert made.model == replace(PRESETS["tiny"], objective=objective, num_steps=2)
    assert made.provenance["preset"] == "other.json"
    plays_five_steps(tmp_path / "world")
    with pytest.raises(ValueError, match=REFUSED[objective.kind]):
        bundled(data, tmp_path / "run", tmp_path / "another")


def test_a_denoiser_is_not_trained_on_as_another_model(run, data, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    weights = (tmp_path / "run" / "denoiser" / WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match=r"trained with another objective.kind"):
        train("denoiser", data, tmp_path / "run", preset=preset_of(tmp_path, objective={"kind": "v"}))
    assert (tmp_path / "run" / "denoiser" / WEIGHTS).read_bytes() == weights
    with pytest.raises(ValueError, match=r"trained with another objective.first"):
        train("denoiser", data, tmp_path / "run", preset=preset_of(tmp_path, objective={"first": 0.0}))


def test_levels_and_steps_that_no_weight_depends_on_make_no_other_model(run, data, tmp_path):
    chosen = preset_of(tmp_path, objective={"sigma_last": 1.0, "eta": 0.5}, num_steps=2)
    bundle(BundleRun(data=(data,), run=run, out=tmp_path / "world", preset=chosen))
    made = neural_env.load(tmp_path / "world").model
    assert (made.objective.sigma_last, made.num_steps) == (1.0, 2)


@pytest.mark.parametrize(("stage", "trained"), [("rollout", "RolloutStage"), ("distill", "DistillStage")])
def test_later_stages_corrupt_the_past_as_the_denoisers_training_did(run, data, tmp_path, monkeypatch, stage, trained):
    class Seen(Exception):
        pass

    def seen(*given):
        raise Seen(given[-1])

    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    train("denoiser", data, tmp_path, noise=ContextNoise(0.2, "even"))
    monkeypatch.setattr(f"neural_env.training.run.{trained}", seen)
    with pytest.raises(Seen) as caught:
        train(stage, data, tmp_path)
    assert caught.value.args == (ContextNoise(0.2, "even"),)


def test_weights_of_another_preset_are_refused(run, data, tmp_path, monkeypatch):
    tiny = PRESETS["tiny"]
    monkeypatch.setitem(PRESETS, "wider", replace(tiny, unet=replace(tiny.unet, widths=(8, 24))))
    with pytest.raises(CheckpointError, match=r"denoiser.*wrong preset"):
        bundle(BundleRun(data=(data,), run=run, out=tmp_path / "world", preset="wider"))


def test_an_unknown_preset_is_refused_with_those_there_are(data, tmp_path):
    with pytest.raises(ValueError, match=r"no preset 'huge'; there are \['base', 'gamengen', 'small', 'tiny'\]"):
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


@pytest.mark.parametrize("source", ["run", "world"])
@pytest.mark.parametrize("stage", ["autoencoder", "denoiser", "outcome"])
def test_a_stage_begins_with_the_weights_of_another_run_or_checkpoint(run, world, data, tmp_path, stage, source):
    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    shutil.copytree(run / "latents", tmp_path / "latents")
    if stage == "autoencoder":
        shutil.rmtree(tmp_path / "autoencoder")
    origin = str({"run": run, "world": world}[source])
    train(stage, data, tmp_path, init_from=origin, loop=replace(LOOP, steps=0))
    mine, theirs = (load_file(folder / stage / WEIGHTS) for folder in (tmp_path, run))
    assert mine.keys() == theirs.keys()
    fine_tuned = {name for name in mine if source == "world" and name.startswith("decoder.")}  # by the decoder stage
    for name in mine.keys() - fine_tuned:  # a checkpoint's weights are rounded to bfloat16
        np.testing.assert_allclose(mine[name], theirs[name], rtol=0 if source == "run" else 2**-8, err_msg=name)
    assert json.loads((tmp_path / stage / "stage.json").read_text())["init_from"] == origin


def test_beginning_with_weights_of_another_size_is_refused(run, data, tmp_path, monkeypatch):
    tiny = PRESETS["tiny"]
    monkeypatch.setitem(PRESETS, "wider", replace(tiny, autoencoder=replace(tiny.autoencoder, decoder_width=16)))
    with pytest.raises(CheckpointError, match="wrong preset"):
        train("autoencoder", data, tmp_path, preset="wider", init_from=str(run))


KILLED = replace(LOOP, steps=12, checkpoint_minutes=0.0)


@pytest.mark.parametrize("stage", TRAIN)
def test_a_stage_that_was_killed_goes_on_to_the_weights_it_would_have_had(run, data, tmp_path, stage):
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        shutil.copytree(run, folder, ignore=lambda path, names: [stage] if Path(path) == run else [])
    whole, killed = folders
    command = [sys.executable, __file__, stage, str(data), str(killed)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        saved = killed / stage / "state"
        while process.poll() is None and not any(path.name.isdigit() for path in saved.glob("*")):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (killed / stage / WEIGHTS).exists()
    for folder in folders:
        train(stage, data, folder, loop=KILLED)
    assert (killed / stage / WEIGHTS).read_bytes() == (whole / stage / WEIGHTS).read_bytes()


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


def dawdle():
    """Lets time pass after every saved state, so that there is some to be killed in."""
    save = StateStore.save

    def saved(self, state):
        save(self, state)
        time.sleep(0.5)

    StateStore.save = saved


if __name__ == "__main__":  # the stage that is killed
    dawdle()
    train(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), loop=KILLED)
