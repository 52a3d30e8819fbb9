"""Collection by a Ray cluster: actors on any machine play, shards land in one place.

An actor plays one episode at a time and leaves it in Ray's object store; when all of a shard are there, any actor
writes them to the dataset's place. So an actor that is lost takes with it the episode it played or the shard it wrote.
Another does that again, from the seed, so that the result is the same, hash for hash. If the machine that kept finished
episodes is lost, these episodes are played again.

The manifest is this process's alone, and names a shard after it was written. An actor that was thought lost and still
writes changes nothing: it writes the same bytes.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from neural_env.data.play import play
from neural_env.data.shards import Shard, ShardError
from neural_env.data.store import Store, is_url, store_at
from neural_env.data.vizdoom import EngineCrashed
from neural_env.data.workers import SILENCE_SECONDS, WorkersHung, make_shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neural_env.data.collect import CollectConfig, Job, Report
    from neural_env.data.episode import Episode

RETRIES = 3  # of each episode and of each shard, before the collection is given up
_GO_ON = "collect again with the same settings to go on"
_Ref: TypeAlias = Any  # ray.ObjectRef


class ClusterFailed(RuntimeError):
    """Something was tried on several actors and each was lost."""


def shards_of_cluster(config: CollectConfig, jobs: Sequence[Job], report: Report) -> Generator[Shard, None, None]:
    """Make the shards by `workers` actors of the cluster `ray`; yields them as they are finished.

    Raises `ImportError` without the extra, `ClusterFailed` for an episode or shard whose actors are lost again and
    again, `ShardError` for a shard that isn't seen from here, and `ConnectionError` if no cluster is at the address.
    """
    if not is_url(config.out):
        config = replace(config, out=Path(config.out).absolute())  # actors are at home elsewhere
    store = store_at(config.out)
    with _cluster(config) as ray:
        crew = _Crew(ray, config)
        try:
            for shard in _Collection(crew, jobs, report).run():
                _check_arrived(store, shard)
                yield shard
        finally:
            crew.dismiss()
            store.remove_leftovers()  # of lost actors; nobody is writing any more


def _check_arrived(store: Store, shard: Shard) -> None:
    if not store.has(shard):
        cure = "give a folder that all machines share, or a URL such as s3://bucket/data"
        raise ShardError(Path(shard.file), f"an actor wrote it, and it isn't to be seen from here: {cure}")


@contextmanager
def _cluster(config: CollectConfig) -> Iterator[Any]:
    """Ray, connected; a connection that was there before is used and left."""
    try:
        import ray
    except ImportError as error:
        raise ImportError('collecting with --ray needs Ray: pip install "neural-env[ray]"') from error
    if ray.is_initialized():
        yield ray
        return
    local = config.ray == "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    more: dict[str, Any] = {"num_cpus": config.workers, "include_dashboard": False} if local else {}
    ray.init(address=config.ray, log_to_driver=False, **more)
    try:
        yield ray
    finally:
        ray.shutdown()


class _Actor:
    """Plays and writes, one thing at a time; lives on any machine of the cluster."""

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        self._policy = config.player()
        self._env = config.game().start(automap="automap" in self._policy.sees)

    def ready(self) -> None:
        """Answers once the actor is up."""

    def play(self, index: int) -> tuple[int, Episode]:
        """The number of frames, which is all that the driver fetches, and the episode of that index."""
        seed, steps = self._config.first_seed + index, self._config.max_episode_steps
        episode = play(self._env, self._policy, seed=seed, max_steps=steps)
        return len(episode.frames), episode

    def write(self, job: Job, *episodes: Episode) -> Shard:
        """Make the shard and put it where the dataset is."""
        return make_shard(self._config, job, zip(job.episodes, episodes, strict=True))


class _Crew:
    """The actors; those that are lost are replaced."""

    def __init__(self, ray: Any, config: CollectConfig) -> None:
        self.ray = ray
        self.idle: list[Any] = []
        self._config = config
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        self._alive: list[Any] = []
        self._arriving: dict[_Ref, Any] = {}
        for _ in range(config.workers):
            self._hire()

    @property
    def arriving(self) -> list[_Ref]:
        """The first answers of actors that aren't up yet: the cluster may have no room, so they are given no work."""
        return list(self._arriving)

    def arrived(self, answer: _Ref) -> None:
        """An actor answered, and is idle from now on; raises what hindered it."""
        actor = self._arriving.pop(answer)
        self.ray.get(answer)
        self.idle.append(actor)

    def replace(self, actor: Any) -> None:
        """Another actor in place of one that is lost, or whose game is."""
        self._alive.remove(actor)
        self._kill(actor)
        self._hire()

    def dismiss(self) -> None:
        """End all."""
        for actor in self._alive:
            self._kill(actor)

    def _hire(self) -> None:
        actor = self._class.remote(self._config)
        self._alive.append(actor)
        self._arriving[actor.ready.remote()] = actor

    def _kill(self, actor: Any) -> None:
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(actor)


@dataclass(eq=False)
class _Shard:
    """A shard that isn't there yet."""

    job: Job
    episodes: dict[int, _Ref] = field(default_factory=dict)  # those that were played, by index


@dataclass(frozen=True)
class _Task:
    """What an actor is at: an episode of a shard, or writing it."""

    actor: Any
    shard: _Shard
    index: int | None  # of the episode; None for writing
    episode: _Ref = None  # where it will be

    def __str__(self) -> str:
        return f"writing {self.shard.job.file}" if self.index is None else f"playing episode {self.index}"


class _Collection:
    """Hands out episodes in order, and shards as soon as their episodes are there."""

    def __init__(self, crew: _Crew, jobs: Sequence[Job], report: Report) -> None:
        self._crew = crew
        self._report = report
        shards = [_Shard(job) for job in jobs]
        self._to_play = deque((shard, index) for shard in shards for index in shard.job.episodes)
        self._to_write: deque[_Shard] = deque()
        self._tasks: dict[_Ref, _Task] = {}
        self._losses: Counter[str] = Counter()

    def run(self) -> Generator[Shard, None, None]:
        """Until every shard is written."""
        while self._to_play or self._to_write or self._tasks:
            self._hand_out()
            answer = self._answer()
            if answer not in self._tasks:
                self._crew.arrived(answer)
            elif (made := self._done(answer)) is not None:
                yield made

    def _hand_out(self) -> None:
        """Writing first: it is what frees the memory of the episodes."""
        while self._crew.idle and (self._to_write or self._to_play):
            actor = self._crew.idle.pop()
            if self._to_write:
                shard = self._to_write.popleft()
                episodes = [shard.episodes[index] for index in shard.job.episodes]
                self._tasks[actor.write.remote(shard.job, *episodes)] = _Task(actor, shard, None)
            else:
                shard, index = self._to_play.popleft()
                length, episode = actor.play.options(num_returns=2).remote(index)
                self._tasks[length] = _Task(actor, shard, index, episode)

    def _answer(self) -> _Ref:
        done, _ = self._crew.ray.wait([*self._tasks, *self._crew.arriving], timeout=SILENCE_SECONDS)
        if not done:
            cure = "see that the cluster has a free CPU for each worker and that its machines answer"
            raise WorkersHung(f"no actor finished anything in {SILENCE_SECONDS} s; {cure}, then {_GO_ON}")
        return done[0]

    def _done(self, answer: _Ref) -> Shard | None:
        """What a finished task means: a shard if it was one's writing."""
        task = self._tasks.pop(answer)
        try:
            result = self._crew.ray.get(answer)
        except self._crew.ray.exceptions.ObjectLostError as error:
            self._lost(task, error, episodes_too=True)
            return None
        except _losses(self._crew.ray) as error:
            self._lost(task, error)
            return None
        self._crew.idle.append(task.actor)
        if task.index is None:
            return cast("Shard", result)
        self._report(result)
        self._played(task.shard, task.index, task.episode)
        return None

    def _played(self, shard: _Shard, index: int, episode: _Ref) -> None:
        shard.episodes[index] = episode
        if len(shard.episodes) == len(shard.job.episodes):
            self._to_write.append(shard)

    def _lost(self, task: _Task, error: Exception, *, episodes_too: bool = False) -> None:
        """Have it done again by another actor, at once and so often."""
        self._losses[str(task)] += 1
        if self._losses[str(task)] > RETRIES:
            why = f"{task} was lost {RETRIES + 1} times, last by {type(error).__name__}: {error}"
            raise ClusterFailed(f"{why}; see to the cluster's machines, then {_GO_ON}") from error
        self._crew.replace(task.actor)
        if task.index is not None:
            self._to_play.appendleft((task.shard, task.index))
        elif episodes_too:
            task.shard.episodes.clear()
            self._to_play.extendleft((task.shard, index) for index in reversed(task.shard.job.episodes))
        else:
            self._to_write.append(task.shard)


def _losses(ray: Any) -> tuple[type[Exception], ...]:
    """Errors that another actor may not meet: the actor's, its machine's or its engine's end."""
    e = ray.exceptions
    return (e.RayActorError, e.WorkerCrashedError, e.NodeDiedError, e.OutOfMemoryError, EngineCrashed)
