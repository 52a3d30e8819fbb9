"""Learning in a dream, as small as it gets; the games that score it are real."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from neural_env.agents.dreams import DreamsConfig
from neural_env.agents.player import load_agent, read_agent, save_agent
from neural_env.agents.policy import ForeseerConfig
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.mixture import Mixture
from neural_env.envs.real_doom import RealDoom
from neural_env.training.dream_agent import DreamAgentRun, train_dream_agent
from neural_env.training.loop import LoopConfig
from neural_env.training.run import AutoencoderRun, DangerRun, train_autoencoder, train_danger

STEPS = 16  # of one update of the tiny preset
UPDATES = 8


def tiny(out, checkpoint, **changes):
    dreams = DreamsConfig(**{"horizon": 6, **changes.pop("dreams", {})})
    settings = {"preset": "tiny", "total_steps": UPDATES * STEPS, "snapshots": 2, "validation_games": 1}
    settings |= {"max_episode_steps": 10, "dreams": dreams, "checkpoint": str(checkpoint), **changes}
    return DreamAgentRun(out=out, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, mortal_world_folder):
    """A finished training in a world whose dreams end after a few steps."""
    run = tiny(tmp_path_factory.mktemp("dream_agents") / "latent", mortal_world_folder)
    train_dream_agent(run)
    return run


def metrics(out):
    """The whole lines so far."""
    path = out / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_every_update_leaves_a_line_and_the_run_an_agent(trained):
    lines = [line for line in metrics(trained.out) if line["split"] == "train"]
    assert [line["step"] for line in lines] == [STEPS * (i + 1) for i in range(UPDATES)]
    assert sum(line["deaths"] for line in lines) > 10 and all(line["steps_per_second"] > 0 for line in lines)
    agent = read_agent(trained.out)
    assert agent.provenance["updates"] == UPDATES and agent.provenance["steps"] == UPDATES * STEPS
    assert agent.provenance["dreams"]["horizon"] == 6 and agent.eyes is not None
    assert agent.provenance["dreams"]["num_steps"] == 1  # the world's


def test_the_agents_on_the_way_are_kept_with_their_real_scores(trained):
    assert sorted(int(path.name) for path in (trained.out / "versions").iterdir()) == [0, 4, 8]
    scores = [json.loads((trained.out / "versions" / str(n) / "score.json").read_text()) for n in (0, 4, 8)]
    assert [score["steps"] for score in scores] == [0, 4 * STEPS, 8 * STEPS]
    assert all(len(score["returns"]) == 1 and 0 < score["returns"][0] <= 40 for score in scores)
    assert scores[0]["minutes"] == 0 < scores[1]["minutes"] < scores[2]["minutes"]
    first, last = (read_agent(trained.out / "versions" / str(n)).policy for n in (0, 8))
    assert (np.asarray(first.picture.kernel[...]) != last.picture.kernel[...]).any()


def test_the_agent_plays_the_real_game_through_its_own_eyes(trained):
    policy, env = load_agent(trained.out), RealDoom("take_cover")
    frame, _ = env.reset(seed=12)
    policy.reset(np.random.default_rng(0))
    actions = []
    for _ in range(12):
        actions.append(policy.act(frame, np.zeros(1)))
        frame, *_ = env.step(actions[-1])
    env.close()
    assert set(actions) <= {0, 1, 2} and len(set(actions)) > 1


def test_a_finished_training_is_left_alone(trained, capsys):
    before = (trained.out / "policy" / "weights.safetensors").read_bytes()
    train_dream_agent(trained)
    assert f"finished at step {UPDATES * STEPS} of {UPDATES * STEPS}" in capsys.readouterr().out
    assert (trained.out / "policy" / "weights.safetensors").read_bytes() == before


def test_another_training_or_world_in_the_same_folder_is_refused(trained, mortal_world_folder, tiny_world_folder):
    with pytest.raises(ValueError, match="holds a run with seed 0, not 5"):
        train_dream_agent(tiny(trained.out, mortal_world_folder, seed=5))
    with pytest.raises(ValueError, match="holds a run with world"):
        train_dream_agent(tiny(trained.out, tiny_world_folder))


def test_a_training_in_two_parts_makes_the_agent_of_one(trained, mortal_world_folder, tmp_path):
    """State of dreams and agent are all there is: stopped after every update, it is the same course."""
    out = tmp_path / "parts"
    for _ in range(UPDATES):
        train_dream_agent(tiny(out, mortal_world_folder, max_minutes=0.0))
    one, other = (read_agent(run).policy.picture.kernel[...] for run in (trained.out, out))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_training_by_openvino_in_two_parts_makes_the_agent_of_one(mortal_world_folder, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path / "programs"))
    one, parts = tmp_path / "one", tmp_path / "parts"
    train_dream_agent(tiny(one, mortal_world_folder, runtime="openvino"))
    for _ in range(UPDATES):
        train_dream_agent(tiny(parts, mortal_world_folder, runtime="openvino", max_minutes=0.0))
    agents = [read_agent(run) for run in (one, parts)]
    kernels = [np.asarray(agent.policy.picture.kernel[...]) for agent in agents]
    np.testing.assert_array_equal(*kernels)
    assert agents[0].provenance["runtime"] == "openvino"


def test_dreams_can_begin_anywhere_in_real_episodes_and_agents_as_others_ended(trained, mortal_world_folder, tmp_path):
    data = tmp_path / "data"
    collect(CollectConfig(out=data, scenario="take_cover", episodes=2, first_seed=2))
    deadly = {"mixture": Mixture(events=1.0, kinds=("death",), reach=1, lead=3), "max_minutes": 0.0}
    parent = shutil.copytree(trained.out / "policy", tmp_path / "parent")
    changes = {"data": (data,), "starts": 32, "init_from": parent}
    run = tiny(tmp_path / "run", mortal_world_folder, **changes, **deadly)
    train_dream_agent(run)
    starts = load_file(run.out / "starts.safetensors")
    contexts = len(np.unique(starts["latents"].sum(axis=(1, 2, 3, 4))))
    assert starts["latents"].shape[0] == 32 and 1 < contexts <= 8  # of each game the last four steps, and no others
    with pytest.raises(ValueError, match=r"holds a run with mixture .*'death'"):
        train_dream_agent(tiny(run.out, mortal_world_folder, **changes))
    began_as = read_agent(run.out).provenance["began_as"]
    assert began_as == json.loads(json.dumps(read_agent(trained.out).provenance)) and began_as["began_as"] is None
    began, ended = (read_agent(path).policy.picture.kernel[...] for path in (run.out / "versions" / "0", trained.out))
    np.testing.assert_array_equal(np.asarray(began), np.asarray(ended))
    save_agent(replace(read_agent(parent), provenance={"scenario": "take_cover"}), parent)  # it has learned on
    train_dream_agent(run)
    agent = read_agent(run.out)
    assert agent.provenance["updates"] == 2 and agent.provenance["began_as"] == began_as


def test_a_mixture_of_moments_without_a_dataset_is_refused(mortal_world_folder, tmp_path):
    with pytest.raises(ValueError, match=r"a mixture says at which moments of a dataset dreams begin.*give --data"):
        tiny(tmp_path, mortal_world_folder, mixture=Mixture(uniform=0.5, events=0.5))


def test_an_agent_discounts_as_its_preset_unless_told_otherwise(mortal_world_folder, tmp_path):
    assert [tiny(tmp_path, mortal_world_folder, gamma=g).named_preset().ppo.gamma for g in (None, 0.9)] == [0.99, 0.9]
    with pytest.raises(ValueError, match=r"gamma is a discount in \[0, 1\), got 1.0"):
        tiny(tmp_path, mortal_world_folder, gamma=1.0)


def test_an_agent_of_frames_needs_no_eyes(mortal_world_folder, tmp_path):
    run = tiny(tmp_path / "rgb", mortal_world_folder, dreams={"observe": "rgb"}, max_minutes=0.0, validation_games=0)
    train_dream_agent(run)
    assert read_agent(run.out).eyes is None and not (run.out / "policy" / "eyes.safetensors").exists()


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no preset 'huge'"):
        tiny(tmp_path, "take_cover", preset="huge")
    with pytest.raises(ValueError, match="total_steps must be at least 1"):
        tiny(tmp_path, "take_cover", total_steps=0)


@pytest.fixture(scope="module")
def danger(tmp_path_factory, mortal_world_folder):
    """Run and data of a training of what is dangerous in the mortal world's latents."""
    folder = tmp_path_factory.mktemp("danger")
    collect(CollectConfig(out=folder / "data", scenario="take_cover", episodes=12))
    shared = {"data": (folder / "data",), "out": folder / "run", "preset": "tiny"}
    train_autoencoder(AutoencoderRun(**shared, init_from=str(mortal_world_folder), loop=LoopConfig(steps=0)))
    train_danger(DangerRun(**shared, loop=LoopConfig(steps=2, batch=8)))
    return shared


@pytest.mark.parametrize("runtime", ["xla", "openvino"])
def test_getting_out_of_harms_way_is_paid_for(runtime, danger, mortal_world_folder, tmp_path, monkeypatch):
    if runtime == "openvino":
        pytest.importorskip("openvino")
        monkeypatch.setenv("NEURAL_ENV_CACHE", str(tmp_path / "programs"))
    plain, shaped = tmp_path / "plain", tmp_path / "shaped"
    short = {"runtime": runtime, "total_steps": STEPS, "validation_games": 0}
    train_dream_agent(tiny(plain, mortal_world_folder, **short))
    train_dream_agent(tiny(shaped, mortal_world_folder, **short, dreams={"danger": 50.0}, danger_from=danger["out"]))
    rewards = [metrics(out)[0]["reward"] for out in (plain, shaped)]
    assert rewards[0] != rewards[1]
    with pytest.raises(ValueError, match="holds a run with dreams"):
        train_dream_agent(tiny(shaped, mortal_world_folder, **short))


def test_an_agent_can_imitate_planning(danger, mortal_world_folder, tmp_path, capsys):
    settings = {"dreams": {"danger": 50.0}, "danger_from": danger["out"], "data": danger["data"], "starts": 40}
    run = tiny(tmp_path / "run", mortal_world_folder, plan=2, epochs=3, **settings)
    train_dream_agent(run)
    agent = read_agent(run.out)
    assert agent.provenance["steps"] == 40 * 3 * 2 and agent.provenance["plan"] == 2
    scores = [json.loads((run.out / "versions" / str(n) / "score.json").read_text()) for n in (0, 3)]
    assert [score["steps"] for score in scores] == [0, 240] and all(len(score["returns"]) == 1 for score in scores)
    assert [line["split"] for line in metrics(run.out)] == ["real", "train", "train", "train", "real"]
    weights = (run.out / "policy" / "weights.safetensors").read_bytes()
    train_dream_agent(run)
    assert (
        "finished" in capsys.readouterr().out and (run.out / "policy" / "weights.safetensors").read_bytes() == weights
    )
    assert load_agent(run.out).act(np.zeros((120, 160, 3), np.uint8), np.zeros(1)) in (0, 1, 2)


def test_who_imitates_begins_with_what_danger_knows(danger, mortal_world_folder, tmp_path):
    settings = {"dreams": {"danger": 50.0}, "danger_from": danger["out"], "data": danger["data"], "starts": 40}
    run = tiny(tmp_path / "run", mortal_world_folder, plan=1, epochs=1, preset=None, validation_games=0, **settings)
    train_dream_agent(run)
    policy, known = (
        read_agent(run.out / "versions" / "0").policy,
        load_file(danger["out"] / "danger/weights.safetensors"),
    )
    assert policy.config == ForeseerConfig(picture_channels=4, stack=4)
    np.testing.assert_array_equal(policy.danger.trunk.stem.kernel[...], known["trunk.stem.kernel"])
    assert load_agent(run.out).act(np.zeros((120, 160, 3), np.uint8), np.zeros(1)) in (0, 1, 2)


def test_planning_and_prices_without_what_they_need_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a price on danger needs a run that learned what it is"):
        tiny(tmp_path, "take_cover", dreams={"danger": 50.0})
    with pytest.raises(ValueError, match="a price on danger needs a run that learned what it is"):
        tiny(tmp_path, "take_cover", danger_from=tmp_path)
    with pytest.raises(ValueError, match="planning needs danger_from, for what comes after it"):
        tiny(tmp_path, "take_cover", plan=3)
    prices = {"dreams": {"danger": 50.0}, "danger_from": tmp_path}
    with pytest.raises(ValueError, match="tested at others: starts is 1, give 2"):
        tiny(tmp_path, "take_cover", plan=3, starts=1, **prices)
    with pytest.raises(ValueError, match="foresight is for imitation of planning: give --plan"):
        tiny(tmp_path, "take_cover", preset="foresight", **prices)


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_checkpoint(mortal_world_folder, tmp_path):
    out = tmp_path / "run"
    code = (
        "from pathlib import Path; from neural_env.training.dream_agent import *\n"
        f"train_dream_agent(DreamAgentRun(out=Path({str(out)!r}), checkpoint={str(mortal_world_folder)!r},"
        " preset='tiny', total_steps=10**6, validation_games=0, checkpoint_minutes=0.01))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=tmp_path)

    def last_saved():
        return max((int(path.name) for path in (out / "state").glob("*") if path.name.isdigit()), default=0)

    while last_saved() < 5 or len(metrics(out)) < last_saved() + 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved, lines = last_saved(), len(metrics(out))
    train_dream_agent(
        DreamAgentRun(
            out=out,
            checkpoint=str(mortal_world_folder),
            preset="tiny",
            total_steps=10**6,
            validation_games=0,
            max_minutes=0.0,
        )
    )
    assert metrics(out)[lines]["step"] == (saved + 1) * STEPS
