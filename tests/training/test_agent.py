"""An agent's training from the first step to the evaluation, as small as it gets."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from neural_env.agents.player import FORMAT, load_agent, read_agent
from neural_env.agents.ppo import PRESETS, preset_named
from neural_env.checkpoint import CheckpointError
from neural_env.cli import main
from neural_env.data.episode import split_of
from neural_env.data.games import DoomGame
from neural_env.data.play import play
from neural_env.data.shards import Dataset
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.agent import EvaluateAgentConfig, measure
from neural_env.training.agent import AgentRun, train_agent

STEPS = 16  # of one update of the tiny preset
UPDATES = 40


def tiny(out, **changes):
    settings = {"scenario": "basic", "preset": "tiny", "total_steps": UPDATES * STEPS, "max_episode_steps": 30}
    return AgentRun(out=out, **{"record": out.with_name(out.name + "_data"), **settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run and its recording."""
    run = tiny(tmp_path_factory.mktemp("agents") / "basic")
    train_agent(run)
    assert not active_children()
    return run


def metrics(run):
    return [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]


def test_every_update_leaves_a_line_and_the_run_an_agent(trained):
    lines = metrics(trained)
    assert [line["step"] for line in lines] == [STEPS * (i + 1) for i in range(UPDATES)]
    assert any("return" in line for line in lines) and all(line["steps_per_second"] > 0 for line in lines)
    agent = read_agent(trained.out)
    assert agent.provenance["updates"] == UPDATES and agent.provenance["steps"] == UPDATES * STEPS
    assert agent.provenance["ppo"]["n_steps"] == 8 and agent.provenance["reward"] == "gamengen"
    assert agent.game.scenario == "basic"


def test_versions_are_kept_from_the_first_step_on(trained):
    kept = sorted(int(path.name) for path in (trained.out / "versions").iterdir())
    assert kept == [0, 1, 2, 4, 8, 16, 32]
    first, last = (read_agent(trained.out / "versions" / str(n)).policy for n in (0, 32))
    assert (np.asarray(first.picture.kernel[...]) != last.picture.kernel[...]).any()


def test_every_episode_is_recorded_with_the_policys_version_and_skill(trained):
    dataset = Dataset.open(trained.record)
    episodes = list(dataset.episodes("train"))
    assert len(episodes) == sum(line.get("episodes", 0) for line in metrics(trained)) > 5
    assert sum(map(len, episodes)) > 0.8 * UPDATES * STEPS  # all but those in flight at the end
    assert {split_of(episode.seed) for episode in episodes} == {"train"}
    versions = [episode.policy_version for episode in episodes]
    assert versions[0] == 0 and max(versions) > 20
    assert episodes[0].skill is None and episodes[-1].skill is not None
    assert all(episode.terminated or episode.truncated for episode in episodes)


def test_a_recorded_episode_is_what_the_game_does_with_the_recorded_actions(trained):
    episode = list(Dataset.open(trained.record).episodes("train"))[3]
    env = RealDoom("basic", signals=True)
    frame, _ = env.reset(seed=episode.seed)
    assert (frame == episode.frames[0]).all()
    for i, action in enumerate(episode.actions):
        frame, reward, terminated, _, info = env.step(action)
        assert (frame == episode.frames[i + 1]).all() and reward == episode.rewards[i]  # the scenario's own reward
        assert list(info["signals"].values()) == episode.signals[i + 1].tolist()
    env.close()
    assert terminated == episode.terminated and (terminated or len(episode) == 30)


def test_a_finished_training_is_left_alone(trained, capsys):
    before = (trained.out / "policy" / "weights.safetensors").read_bytes()
    count = Dataset.open(trained.record).manifest.shards
    train_agent(trained)
    assert f"finished at step {UPDATES * STEPS} of {UPDATES * STEPS}" in capsys.readouterr().out
    assert (trained.out / "policy" / "weights.safetensors").read_bytes() == before
    assert Dataset.open(trained.record).manifest.shards == count


def test_another_training_in_the_same_folder_is_refused_by_name(trained):
    with pytest.raises(ValueError, match="holds a training with reward 'gamengen', not 'scenario'"):
        train_agent(tiny(trained.out, reward="scenario"))


def test_a_recording_of_another_run_is_refused_and_left_alone(trained, tmp_path):
    before = Dataset.open(trained.record).manifest
    with pytest.raises(ValueError, match="episodes of another run; choose a new folder"):
        train_agent(tiny(tmp_path / "new", record=trained.record))
    assert Dataset.open(trained.record).manifest.shards == before.shards
    with pytest.raises(ValueError, match=r"holds a training with record .*_data', not None"):
        train_agent(tiny(trained.out, record=None))


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_checkpoint_and_records_nothing_twice(tmp_path):
    out = tmp_path / "run"
    code = (
        "from pathlib import Path; from neural_env.training.agent import *\n"
        "if __name__ == '__main__':\n"
        f"    out = Path({str(out)!r})\n"
        "    train_agent(AgentRun(out=out, record=out.with_name('run_data'), scenario='basic', preset='tiny',"
        " total_steps=10**6, max_episode_steps=30, checkpoint_minutes=0.01))\n"
    )
    (tmp_path / "train.py").write_text(code)
    process = subprocess.Popen([sys.executable, str(tmp_path / "train.py")], stdout=subprocess.DEVNULL, cwd=tmp_path)
    states = out / "state"

    def last_saved():
        return max((int(path.name) for path in states.glob("*") if path.name.isdigit()), default=0)

    while last_saved() < 12 or len(metrics_of(out)) < last_saved() + 3:  # two episodes a game, and something to lose
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = last_saved()
    lines = len(metrics_of(out))
    train_agent(tiny(out, total_steps=10**6, max_minutes=0.0))
    after = metrics_of(out)[lines:]
    assert after[0]["step"] == (saved + 1) * STEPS  # it went on
    episodes = list(Dataset.open(out.with_name("run_data")).episodes("train"))
    seeds = [episode.seed for episode in episodes]
    assert len(set(seeds)) == len(seeds) > 0
    assert max(episode.policy_version for episode in episodes) <= saved  # what was played after the checkpoint is gone
    assert read_agent(out).provenance["updates"] == after[-1]["step"] // STEPS


def metrics_of(out):
    """The whole lines so far."""
    path = out / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("greedy", [False, True])
def test_a_trained_agent_plays_like_any_policy(trained, greedy):
    policy = load_agent(trained.out, greedy=greedy)
    assert policy.name == f"agent(basic, updates={UPDATES}, {'greedy' if greedy else 'sampled'})"
    env = RealDoom("basic")
    one, other, third = (play(env, policy, seed=seed, max_steps=20) for seed in (12, 12, 13))
    env.close()
    assert (one.actions == other.actions).all()
    assert len(one) == 20 or one.terminated
    assert greedy or one.actions.tolist() != third.actions.tolist()


def test_an_agent_outside_training_sees_what_it_sees_in_training(trained):
    """The memory of a player and of a roll-out are the same after the same frames and actions."""
    import jax

    from neural_env.agents.policy import begin, observe

    policy = load_agent(trained.out)
    env = RealDoom("basic")
    frame, _ = env.reset(seed=12)
    policy.reset(np.random.default_rng(0))
    expected = begin(policy.agent.policy, frame[None])
    for _ in range(5):
        action = policy.act(frame, np.zeros(1))
        assert all((np.asarray(a) == b).all() for a, b in zip(policy._memory, expected, strict=True))
        frame, *_ = env.step(action)
        none = jax.numpy.zeros(1, bool)
        expected = observe(policy.agent.policy, expected, frame[None], jax.numpy.array([action]), none)
    env.close()


def test_a_folder_without_an_agent_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(CheckpointError, match="there is no agent here: give a folder made by `neural-env train agent`"):
        load_agent(tmp_path)


def of_policy(policy):
    return json.dumps({"format": FORMAT, "game": {}, "policy": policy})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is not JSON"),
        ('{"format": "neural_env.world/1"}', "its format is 'neural_env.world/1'"),
        ('{"format": "neural_env.agent/1"}', "its format is 'neural_env.agent/1'.*: train the agent anew"),
        (of_policy({"kind": "convolutional", "wings": 2}), "unknown fields"),
        (of_policy({"kind": "bird"}), "unknown kind 'bird'"),
        (of_policy([]), r"expected an object that names its kind, got \[\]"),
    ],
)
def test_a_damaged_agent_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_agent(tmp_path)


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no preset 'huge'"):
        tiny(tmp_path, preset="huge")
    with pytest.raises(ValueError, match="foresight looks at a dream's latents"):
        tiny(tmp_path, preset="foresight")
    with pytest.raises(ValueError, match="total_steps must be at least 1"):
        tiny(tmp_path, total_steps=0)


def test_the_command_line_trains_and_evaluates(tmp_path, capsys):
    out, scores = str(tmp_path / "run"), tmp_path / "scores" / "basic.json"
    common = ["--scenario", "basic", "--preset", "tiny", "--workers", "1", "--max-episode-steps", "20"]
    assert main(["train", "agent", "--out", out, "--total-steps", "80", *common]) == 0
    evaluate = ["evaluate", "agent", "--agent", out, "--episodes", "2", "--max-episode-steps", "20"]
    assert main([*evaluate, "--json", str(scores), "--plot", str(tmp_path / "curve.png")]) == 0
    shown = capsys.readouterr().out
    assert "uniform" in shown and "agent sampled, the others random" in shown and "…" not in shown  # it fits
    kept = json.loads(scores.read_text())
    assert kept["seeds"] == [0, 10] and set(kept["players"]) == {"agent", "uniform random", "sticky random"}
    assert kept["command"].split()[:3] == ["neural-env", "evaluate", "agent"]
    assert (tmp_path / "curve.png").read_bytes()[1:4] == b"PNG"
    assert main(["evaluate", "agent", "--agent", str(tmp_path / "none")]) == 1
    assert "there is no agent here" in capsys.readouterr().err


def test_an_agent_with_a_map_learns_plays_records_and_is_evaluated(tmp_path, monkeypatch):
    tiny_ = preset_named("tiny")
    seeing = replace(tiny_, policy=replace(tiny_.policy, automap=True))
    monkeypatch.setitem(PRESETS, "tiny", seeing)
    train_agent(tiny(tmp_path / "run", total_steps=seeing.ppo.transitions))
    agent = load_agent(tmp_path / "run")
    assert agent.sees == ("screen", "automap")
    game = DoomGame("basic", None, (120, 160), 4).start(automap=True)
    with closing(game):
        assert len(play(game, agent, seed=3, max_steps=5)) == 5
    config = EvaluateAgentConfig(agent=tmp_path / "run", episodes=1, max_episode_steps=3)
    assert measure(config, read_agent(tmp_path / "run"))["players"]["agent"]["mean_tics"] == 12


@pytest.mark.parametrize("scenario", ["take_cover", "defend_the_center"])
def test_the_agents_that_come_with_the_source_are_loaded_and_need_no_map(scenario):
    assert read_agent(Path("runs/agents") / scenario).policy.config.sees == ("screen",)


def test_the_papers_preset_sees_the_map_and_the_others_dont():
    assert [name for name in PRESETS if preset_named(name).policy.automap] == ["gamengen"]
