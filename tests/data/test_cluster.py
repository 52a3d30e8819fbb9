import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from neural_env.data.cluster import RETRIES, ClusterFailed, _check_arrived, _Collection
from neural_env.data.collect import CollectConfig, Job, collect
from neural_env.data.shards import ShardError, load_manifest
from neural_env.data.store import store_at
from neural_env.data.vizdoom import EngineCrashed
from neural_env.data.workers import WorkersHung

ray = pytest.importorskip("ray")


def short(out, **changes):
    return CollectConfig(out=out, **{"scenario": "basic", "episodes": 12, "episodes_per_shard": 3, **changes})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


CODE = """
import os, signal, sys, threading, time
from contextlib import suppress
from pathlib import Path
import ray
from neural_env.data.collect import CollectConfig, collect


def actors():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_text().startswith("ray::_Actor.play") and os.getppid() != int(path.parent.name):
                yield int(path.parent.name)


def kill_one():
    while not list(out.glob("*.array_record")):  # in the middle
        time.sleep(0.005)
    while not (found := list(actors())):
        time.sleep(0.005)
    os.kill(found[0], signal.SIGKILL)
    print("killed", found[0], flush=True)


out = Path(sys.argv[1])
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
thread = threading.Thread(target=kill_one, daemon=True)
thread.start()
collect(CollectConfig(out=out.as_uri(), scenario="basic", episodes=24, episodes_per_shard=3, workers=2, ray="local"))
thread.join(1)
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_cluster_that_loses_an_actor_makes_the_same_dataset(tmp_path):
    """In a process of its own: Ray forks, which JAX that runs in this one warns of."""
    collect(short(tmp_path / "plain", episodes=24))
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}  # Ray writes there
    command = [sys.executable, "-c", CODE, str(tmp_path / "data")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "killed" in done.stdout
    assert contents(tmp_path / "data") == contents(tmp_path / "plain")


class Ref:
    """What an actor of the fake cluster promises: a value, or an error."""

    def __init__(self, value):
        self.value = value

    def get(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class FakeCrew:
    """One actor at a time; `outcomes` says what becomes of each task, True is that it succeeds."""

    def __init__(self, outcomes):
        self.ray = SimpleNamespace(
            wait=lambda refs, timeout: (refs[:1], refs[1:]), get=Ref.get, exceptions=ray.exceptions
        )
        self.outcomes, self.log, self.replaced, self.arriving = list(outcomes), [], 0, []
        self.play = SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=self.played))
        self.write = SimpleNamespace(remote=self.written)
        self.idle = [self]

    def outcome(self, value):
        outcome = self.outcomes.pop(0) if self.outcomes else True
        return Ref(value if outcome is True else outcome)

    def played(self, index):
        self.log.append(index)
        return self.outcome(10), f"episode {index}"

    def written(self, job, *episodes):
        assert episodes == tuple(f"episode {index}" for index in job.episodes)
        self.log.append(job.file)
        return self.outcome(job)

    def replace(self, actor):
        self.replaced += 1
        self.idle.append(self)


JOBS = [Job("a", "train", (2, 3)), Job("b", "train", (4,))]
LOST, GONE = ray.exceptions.ActorDiedError(), ray.exceptions.ObjectLostError("00", None, "")


@pytest.mark.parametrize(
    ("outcomes", "log"),
    [
        ([], [2, 3, "a", 4, "b"]),
        ([True, LOST], [2, 3, 3, "a", 4, "b"]),  # the episode in flight is all that is lost
        ([True, True, LOST], [2, 3, "a", "a", 4, "b"]),
        ([True, True, GONE], [2, 3, "a", 2, 3, "a", 4, "b"]),  # the machine that kept the episodes is lost
        ([EngineCrashed("stopped")], [2, 2, 3, "a", 4, "b"]),
    ],
)
def test_what_is_lost_is_done_again_and_nothing_else(outcomes, log):
    crew, frames = FakeCrew(outcomes), []
    assert list(_Collection(crew, JOBS, frames.append).run()) == JOBS
    assert crew.log == log
    assert crew.replaced == len(log) - 5 - (GONE in outcomes) * 2
    assert set(frames) == {10}


@pytest.mark.parametrize(
    ("succeed", "message"), [(0, "playing episode 2 was lost 4 times.*ActorDied"), (2, "writing a was lost 4 times")]
)
def test_what_is_lost_again_and_again_is_given_up(succeed, message):
    crew = FakeCrew([True] * succeed + [LOST] * 99)
    with pytest.raises(ClusterFailed, match=message):
        list(_Collection(crew, JOBS, lambda frames: None).run())
    assert crew.replaced == RETRIES


def test_an_error_that_another_actor_would_meet_too_is_not_tried_again():
    with pytest.raises(ValueError, match="info has no"):
        list(_Collection(FakeCrew([ValueError("info has no 'x'")]), JOBS, lambda frames: None).run())


def test_a_cluster_without_room_is_not_waited_for_for_ever(monkeypatch):
    crew = FakeCrew([])
    crew.idle, crew.ray.wait = [], lambda refs, timeout: ([], refs)
    with pytest.raises(WorkersHung, match="a free CPU for each worker"):
        list(_Collection(crew, JOBS, lambda frames: None).run())


def test_a_shard_that_lies_on_another_machine_is_missed(tmp_path):
    collect(short(tmp_path, episodes=2))
    shard = load_manifest(tmp_path).shards[0]
    _check_arrived(store_at(tmp_path), shard)
    (tmp_path / shard.file).unlink()
    with pytest.raises(ShardError, match="a folder that all machines share"):
        _check_arrived(store_at(tmp_path), shard)
