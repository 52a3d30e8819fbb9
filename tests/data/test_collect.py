import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

import neural_env.data.workers
from neural_env.data.card import CARD
from neural_env.data.collect import CollectConfig, collect, plan
from neural_env.data.episode import SPLITS, split_of
from neural_env.data.play import play
from neural_env.data.policies import StickyRandom
from neural_env.data.shards import MANIFEST, Dataset, load_manifest, write_shard
from neural_env.data.vizdoom import EngineCrashed
from neural_env.data.workers import WorkersHung
from neural_env.envs.real_doom import RealDoom


def short(out, **changes):
    return CollectConfig(out=out, **{"scenario": "basic", "episodes": 12, "episodes_per_shard": 3, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dataset collected without interruption by one worker."""
    out = tmp_path_factory.mktemp("whole")
    collect(short(out))
    return out


def test_every_episode_asked_for_is_there_once(whole):
    dataset = Dataset.open(whole)
    seeds = [e.seed for split in SPLITS for e in dataset.episodes(split)]
    assert sorted(seeds) == list(range(12))
    assert dataset.manifest.complete and dataset.manifest.policy == "sticky_random(repeat=0.5)"


def test_episodes_are_those_of_the_environment(whole):
    stored = next(iter(Dataset.open(whole).episodes("validation")))
    env = RealDoom("basic", signals=True)
    frame, info = env.reset(seed=stored.seed)
    assert np.array_equal(frame, stored.frames[0])
    for i, action in enumerate(stored.actions):
        frame, reward, terminated, truncated, info = env.step(action)
        assert np.array_equal(frame, stored.frames[i + 1]) and reward == stored.rewards[i]
        assert stored.variables[i + 1].tolist() == [info[name] for name in env.variable_names]
        assert stored.signals[i + 1].tolist() == list(info["signals"].values())
    assert (terminated, truncated) == (stored.terminated, stored.truncated)
    env.close()


def test_the_plan_cuts_each_split_into_shards_and_ignores_the_workers(tmp_path):
    config = CollectConfig(out=tmp_path, episodes=100, first_seed=5, episodes_per_shard=16)
    jobs = plan(config)
    assert jobs == plan(replace(config, workers=7))
    assert sorted(i for job in jobs for i in job.episodes) == list(range(100))
    assert all(split_of(5 + i) == job.split for job in jobs for i in job.episodes)
    assert [len(job.episodes) for job in jobs] == [16, 16, 16, 16, 16, 10, 10]


def test_more_workers_make_the_same_dataset(whole, tmp_path):
    collect(short(tmp_path, workers=2))
    assert contents(tmp_path) == contents(whole)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_collection_is_left_alone(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    collect(short(whole))
    assert before == {path: path.stat().st_mtime_ns for path in whole.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_collection_goes_on_to_the_same_dataset(whole, tmp_path, workers):
    code = (
        "from pathlib import Path; from neural_env.data.collect import *\n"
        "if __name__ == '__main__':\n"
        f"    collect(CollectConfig(out=Path({str(tmp_path)!r}), scenario='basic', episodes=12,"
        f" episodes_per_shard=3, workers={workers}))"
    )
    script = tmp_path.parent / f"collect{workers}.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL, cwd=tmp_path)
    while not (tmp_path / MANIFEST).exists() or not load_manifest(tmp_path).shards:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = load_manifest(tmp_path).shards
    assert 0 < len(done) < 6
    kept = {shard.file: (tmp_path / shard.file).stat().st_mtime_ns for shard in done}
    (tmp_path / "train-00009.array_record.tmp").write_bytes(b"left over")
    collect(short(tmp_path))
    assert all((tmp_path / file).stat().st_mtime_ns == then for file, then in kept.items())
    assert contents(tmp_path) == contents(whole)


def test_an_interrupted_collection_keeps_its_shards(whole, tmp_path, monkeypatch):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_shard(*args, **kwargs)

    monkeypatch.setattr("neural_env.data.workers.write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(short(tmp_path))
    monkeypatch.undo()
    assert len(load_manifest(tmp_path).shards) == 1
    collect(short(tmp_path))
    assert contents(tmp_path) == contents(whole)


PARTLY = {"test-00000", "validation-00000"}  # one episode of the two that belong there


@pytest.mark.parametrize(("first", "redone"), [(10, PARTLY), (3, {*PARTLY, "train-00000"}), (12, set())])
def test_a_dataset_is_extended_to_what_it_would_have_been(whole, tmp_path, first, redone):
    collect(short(tmp_path, episodes=first))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.array_record")}
    collect(short(tmp_path))
    assert {path.stem for path, then in before.items() if path.stat().st_mtime_ns != then} == redone
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 11}, "episodes 12, not 11"),
        ({"scenario": "predict_position"}, "scenario 'basic', not 'predict_position'"),
        ({"repeat": 0.25}, "policy"),
        ({"frame_skip": 2}, "frame_skip 4, not 2"),
        ({"resolution": (240, 320)}, "resolution"),
        ({"first_seed": 1}, "first_seed"),
        ({"max_episode_steps": 9}, "max_episode_steps"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_by_name(whole, changes, message):
    with pytest.raises(ValueError, match=message):
        collect(short(whole, **changes))


def test_the_card_names_the_command_that_makes_the_same_dataset_again(whole):
    card = (whole / CARD).read_text()
    assert "neural-env collect --scenario basic --episodes 12 --resolution 120 160" in card
    assert "workers" not in card and str(whole) not in card


def test_episodes_after_a_death_have_the_signals_of_a_fresh_engine(tmp_path):
    config = short(tmp_path, scenario="take_cover", episodes=3, max_episode_steps=200)
    collect(config)
    last = next(e for e in Dataset.open(tmp_path).episodes("train") if e.seed == 2)
    env = config.game().start()
    fresh = play(env, config.player(), seed=2, max_steps=200)
    env.close()
    assert np.array_equal(last.signals, fresh.signals)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"first_seed": -1}, "first_seed"),
        ({"repeat": 1.0}, "repeat is a probability below 1"),
        ({"scenario": "doom3"}, "take_cover"),
        ({"resolution": (1, 1)}, "choose one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        short(tmp_path, **changes)


def test_an_episode_that_is_cut_off_is_truncated():
    env = RealDoom("take_cover")
    episode = play(env, StickyRandom(3), seed=0, max_steps=5)
    env.close()
    assert len(episode) == 5 and (episode.terminated, episode.truncated) == (False, True)


def test_death_at_the_limit_is_termination_alone():
    env = RealDoom("take_cover")
    whole = play(env, StickyRandom(3), seed=0, max_steps=10_000)
    limited = play(env, StickyRandom(3), seed=0, max_steps=len(whole))
    env.close()
    assert (limited.terminated, limited.truncated) == (True, False)


def children(process):
    """Process ids and names of a process's children."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().partition(") ")
            if rest.split()[1] == str(process):
                yield int(path.parent.name), name.partition("(")[2]


def players_of(worker):
    """The process ids of a worker's players that have an engine, and those of the engines."""
    return [(player, pid) for player, _ in children(worker) for pid, name in children(player) if name == "vizdoom"]


def strike_soon(strike, workers, monkeypatch):
    """Call `strike` with the process ids of a worker, its player and its engine, once all workers have played.

    Not before: an engine that dies while it starts takes Python with it.
    """
    heard, playing, receive = set(), threading.Event(), neural_env.data.workers._receive

    def receive_and_tell(pipe, process):
        heard.add(process.pid)
        if len(heard) == workers:
            playing.set()
        return receive(pipe, process)

    def watch():
        playing.wait()
        for worker in active_children():
            for player, engine in players_of(worker.pid):
                strike(worker.pid, player, engine)
                return

    monkeypatch.setattr("neural_env.data.workers._receive", receive_and_tell)
    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize(
    ("find", "error", "message"),
    [
        # An engine killed inside the lock that it shares with ViZDoom isn't missed before the silence is too long.
        (
            lambda worker, player, engine: engine,
            (EngineCrashed, WorkersHung),
            "'basic' stopped|finished an episode|no episode",
        ),
        (lambda worker, player, engine: player, RuntimeError, r"a worker died.*-9"),
        (lambda worker, player, engine: worker, RuntimeError, r"a worker died.*-9"),
    ],
)
def test_a_crash_in_a_worker_reaches_the_caller(tmp_path, monkeypatch, find, error, message):
    monkeypatch.setattr("neural_env.data.workers.SILENCE_SECONDS", 60.0)
    config = short(tmp_path, workers=2, episodes=100)
    strike_soon(lambda *processes: os.kill(find(*processes), signal.SIGKILL), 2, monkeypatch)
    with pytest.raises(error, match=message):
        collect(config)
    assert not active_children()
    assert not load_manifest(tmp_path).complete


def test_a_worker_that_hangs_is_given_up(tmp_path, monkeypatch):
    def stop(worker, player, engine):
        monkeypatch.setattr("neural_env.data.workers.SILENCE_SECONDS", 3.0)  # not before: engines take long to start
        os.kill(worker, signal.SIGSTOP)

    strike_soon(stop, 2, monkeypatch)
    with pytest.raises(WorkersHung, match=r"no worker finished an episode in 3\.0 s; collect again"):
        collect(short(tmp_path, workers=2, episodes=100))
    assert not active_children()


def test_nothing_but_the_dataset_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collect(short(tmp_path / "data", episodes=2, workers=2))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    kinds = {path.suffix for path in (tmp_path / "data").iterdir() if path.name not in (MANIFEST, CARD)}
    assert kinds == {".array_record", ".index"}


def test_the_sticky_player_keeps_its_action_as_often_as_told():
    policy, rng = StickyRandom(4, repeat=0.5), np.random.default_rng(0)
    policy.reset(rng)
    actions = np.array([policy.act(np.zeros((1, 1, 3), np.uint8), np.zeros(0)) for _ in range(20_000)])
    assert np.mean(actions[1:] == actions[:-1]) == pytest.approx(0.5 + 0.5 / 4, abs=0.02)
    assert np.bincount(actions) / len(actions) == pytest.approx(0.25, abs=0.02)


def test_the_sticky_player_repeats_itself_for_equal_generators():
    policy, blank = StickyRandom(3), (np.zeros((1, 1, 3), np.uint8), np.zeros(0))

    def game():
        policy.reset(np.random.default_rng(1))
        return [policy.act(*blank) for _ in range(50)]

    assert game() == game()


@pytest.fixture
def learner(tmp_path):
    """The folder of a tiny agent for `basic` that had 7 updates and a skill."""
    from neural_env.agents.player import Agent, new_policy, save_agent
    from neural_env.agents.policy import PolicyConfig
    from neural_env.data.games import DoomGame

    game = DoomGame("basic", None, (120, 160), 4).describe()
    sizes = PolicyConfig(shrink=8, past_actions=0, convolutions=((4, 4, 4),), features=8, hidden=(8,))
    (tmp_path / "agent").mkdir()
    save_agent(Agent(new_policy(sizes, game), game, {"updates": 7, "skill": -12.5}), tmp_path / "agent")
    return tmp_path / "agent"


@pytest.mark.slow
def test_an_agents_episodes_say_its_version_and_skill(tmp_path, learner):
    collect(short(tmp_path / "data", episodes=2, policy=learner))
    dataset = Dataset.open(tmp_path / "data")
    episodes = [episode for split in SPLITS for episode in dataset.episodes(split)]
    assert {(episode.policy_version, episode.skill) for episode in episodes} == {(7, -12.5)}
    assert dataset.manifest.policy == "agent(basic, updates=7, sampled)" == episodes[0].policy
    with pytest.raises(ValueError, match=r"the agent has action_names .*'attack'.*, the game \('noop'"):
        collect(CollectConfig(out=tmp_path / "other", scenario="take_cover", policy=learner))


@pytest.mark.slow
def test_collection_keeps_up_with_the_engine():
    """A loose bound, so that a regression is seen on a busy machine too; `make bench` measures."""
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "test_collect.py"))
    measured = benchmark["ratios"]("take_cover", games=1, episodes=160, rounds=3)
    assert max(ours / raw for ours, raw in measured) > 0.4
