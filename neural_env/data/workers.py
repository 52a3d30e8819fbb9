"""The processes that collect.

::

    here --jobs--> worker --seeds--> player --actions--> engine
         <-shards-        <-episodes-       <--frames---

A player plays in a process of its own, a few episodes ahead, while its worker compresses and writes the last one:
ArrayRecord compresses under the GIL, and takes about as long as the game. Frames go from one to the other by memory
that they share. With one worker there is only the player beside this process.

Pipes rather than a pool: when either side is killed, the other's pipe closes, and nobody waits for ever.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import fields
from math import prod
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from neural_env.data.episode import Episode
from neural_env.data.play import play
from neural_env.data.shards import Shard, write_shard
from neural_env.data.store import store_at

if TYPE_CHECKING:
    from neural_env.data.collect import CollectConfig, Job, Report

_Pipe: TypeAlias = "Connection[Any, Any]"
_GO_ON = "collect again with the same settings to go on"
SILENCE_SECONDS = 300.0  # of a player or of all workers; the longest episode takes a few
ROOMS = 3  # episodes that a player and its worker share: one written, one ready, one being played


class WorkersHung(RuntimeError):
    """Nothing is heard of the workers any more.

    An engine that is killed while it holds a lock that it shares with ViZDoom leaves its player waiting in ViZDoom's
    code, where no exception reaches it.
    """


def make_shard(config: CollectConfig, job: Job, episodes: Iterator[tuple[int, Episode]]) -> Shard:
    """Write the job's episodes where the dataset is."""
    game, store = config.game(), store_at(config.out)
    with store.scratch() as folder:
        path = folder / job.file
        shard = write_shard(path, episodes, scenario=game.name, split=job.split, signal_names=game.signal_names)
        store.keep(folder, shard)
    return shard


def shards_here(config: CollectConfig, jobs: Sequence[Job], report: Report) -> Generator[Shard, None, None]:
    """Make the shards in this process, with a player beside it."""
    with closing(Player(config)) as player:
        player.order(index for job in jobs for index in job.episodes)
        for job in jobs:
            yield make_shard(config, job, _reported(player.episodes(len(job.episodes)), report))


def _reported(episodes: Iterator[tuple[int, Episode]], report: Report) -> Iterator[tuple[int, Episode]]:
    for index, episode in episodes:
        report(len(episode.frames))
        yield index, episode


class Player:
    """Plays in a process of its own, ahead of whoever takes the episodes. Close it."""

    def __init__(self, config: CollectConfig) -> None:
        colours = () if config.game().palette is not None else (3,)
        shape = (config.max_episode_steps + 1, *config.describe().resolution, *colours)
        self._rooms = [_SharedFrames.make(shape) for _ in range(ROOMS)]
        self._free = list(range(ROOMS))
        self._waiting: deque[int] = deque()
        self._pipe, self._process = _started(_play, config, self._rooms)

    def order(self, indices: Iterator[int] | Sequence[int]) -> None:
        """Have these episodes played next, by their index in the dataset."""
        self._waiting.extend(indices)
        self._feed()

    def episodes(self, count: int) -> Iterator[tuple[int, Episode]]:
        """The next so many that were ordered; each one's frames are good until the next is asked for.

        Raises what the game raised, `RuntimeError` if the player died, `WorkersHung` if nothing is heard of it.
        """
        for _ in range(count):
            index, room, parts = self._next()
            frames = self._rooms[room].frames[: len(parts["actions"]) + 1]
            yield index, Episode(frames=frames, **parts)
            self._free.append(room)
            self._feed()

    def close(self) -> None:
        """End the process and its game."""
        _stop(self._pipe, self._process, seconds=2)
        for room in self._rooms:
            room.close()

    def _feed(self) -> None:
        with suppress(ConnectionError):  # a player that died is missed when its next episode is
            while self._waiting and self._free:
                self._pipe.send((self._waiting.popleft(), self._free.pop()))

    def _next(self) -> tuple[int, int, dict[str, Any]]:
        if not self._pipe.poll(SILENCE_SECONDS):
            raise WorkersHung(f"the player finished no episode in {SILENCE_SECONDS} s; {_GO_ON}")
        return cast(tuple[int, int, dict[str, Any]], _receive(self._pipe, self._process))


def _play(config: CollectConfig, pipe: _Pipe, rooms: Sequence[_SharedFrames]) -> None:
    """A player's life: play what it is told to, where it is told to, until the pipe ends."""
    parts = [field.name for field in fields(Episode) if field.name != "frames"]
    policy, steps = config.player(), config.max_episode_steps
    with closing(config.game().start(automap="automap" in policy.sees)) as env:
        while True:
            index, room = pipe.recv()
            episode = play(env, policy, seed=config.first_seed + index, max_steps=steps, room=rooms[room].frames)
            pipe.send((index, room, {name: getattr(episode, name) for name in parts}))


class _SharedFrames:
    """Memory that two processes share and no file names, so that nothing is left of it whatever dies.

    `frames` has the shape asked for; in memory it lies as it will in records, each row of the picture through all time.

    Pages that are never touched cost nothing: it may well be as large as the longest episode could be.
    """

    def __init__(self, descriptor: int, shape: tuple[int, ...]) -> None:
        self._descriptor = descriptor
        self._shape = shape
        frames, height, *rest = shape
        rows = np.frombuffer(mmap.mmap(descriptor, prod(shape)), np.uint8).reshape(height, frames, *rest)
        self.frames = rows.swapaxes(0, 1)

    @classmethod
    def make(cls, shape: tuple[int, ...]) -> _SharedFrames:
        """New memory, for a uint8 array of that shape."""
        descriptor = _nameless_file()
        os.ftruncate(descriptor, prod(shape))
        return cls(descriptor, shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (DupFd(self._descriptor), self._shape)

    def close(self) -> None:
        """Forget the descriptor; the memory goes with the frames."""
        os.close(self._descriptor)


def _nameless_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("neural_env-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _attached(descriptor: Any, shape: tuple[int, ...]) -> _SharedFrames:
    return _SharedFrames(descriptor.detach(), shape)


# Several workers. The parent hands each its next jobs through a pipe and hears of every episode, shard and failure.


def shards_of_workers(config: CollectConfig, jobs: Sequence[Job], report: Report) -> Generator[Shard, None, None]:
    """Make the shards in `workers` processes; yields them as they are finished."""
    waiting = deque(jobs)
    workers = dict(_started(_work, config, None) for _ in range(min(config.workers, len(jobs))))
    busy = dict.fromkeys(workers, 0)  # jobs that each has
    try:
        for pipe in [*workers, *workers]:  # a second one each, so that no player waits for the end of a shard
            if waiting:
                pipe.send(waiting.popleft())
                busy[pipe] += 1
        while open_pipes := [pipe for pipe, count in busy.items() if count]:
            heard = cast(list[_Pipe], wait(open_pipes, SILENCE_SECONDS))
            if not heard:
                raise WorkersHung(f"no worker finished an episode in {SILENCE_SECONDS} s; {_GO_ON}")
            for pipe in heard:
                message = _receive(pipe, workers[pipe])
                if isinstance(message, int):
                    report(message)
                    continue
                if waiting:
                    pipe.send(waiting.popleft())
                else:
                    busy[pipe] -= 1
                yield message
    finally:
        for pipe, process in workers.items():
            _stop(pipe, process, seconds=5)


def _work(config: CollectConfig, pipe: _Pipe, _: None) -> None:
    """A worker's life: make the shards it is told to, until the pipe ends."""
    with closing(Player(config)) as player:
        jobs: deque[Job] = deque()
        while True:
            while not jobs or pipe.poll():
                jobs.append(pipe.recv())
                player.order(jobs[-1].episodes)
            job = jobs.popleft()
            pipe.send(make_shard(config, job, _reported(player.episodes(len(job.episodes)), pipe.send)))


def _started(task: Any, config: CollectConfig, more: Any) -> tuple[_Pipe, BaseProcess]:
    context = get_context("spawn")  # forking is unsafe once JAX has threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(task, config, theirs, more))
    process.start()
    theirs.close()  # so that the pipe ends with the process
    return ours, process


def _live(task: Any, config: CollectConfig, pipe: _Pipe, more: Any) -> None:
    """A process's life: the task, until its pipe ends, an error or the parent's `terminate`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, _exit)
    try:
        task(config, pipe, more)
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except Exception as error:
        pipe.send(error)


def _receive(pipe: _Pipe, process: BaseProcess) -> Any:
    try:
        message = pipe.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise RuntimeError(f"a worker died with exit code {process.exitcode}; {_GO_ON}") from None
    if isinstance(message, Exception):
        raise message
    return message


def _stop(pipe: _Pipe, process: BaseProcess, seconds: float) -> None:
    pipe.close()
    process.terminate()
    process.join(seconds)
    process.kill()  # if it was deaf to the polite request
    process.join()


def _exit(signum: int, frame: object) -> None:
    """Leave as an exception does, so that the game is closed."""
    raise SystemExit(128 + signum)
