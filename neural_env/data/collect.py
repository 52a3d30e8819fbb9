"""Playing episodes and storing them: from a scenario to a dataset.

What shard holds which episode follows from the settings alone, and an episode follows from its seed alone. So the
number of workers changes nothing but the time, and an interrupted collection goes on with the shards that are missing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from neural_env.data.card import write_card
from neural_env.data.episode import SPLITS, Episode, Split, split_of
from neural_env.data.policies import Policy, StickyRandom
from neural_env.data.shards import MANIFEST, TEMPORARY, Manifest, Shard, load_manifest, save_manifest, write_shard
from neural_env.data.vizdoom import SIGNALS, Scenario, checked_resolution, scenario_named
from neural_env.envs.real_doom import RealDoom
from neural_env.version import __version__


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect; see the fields. Raises `ValueError` for a value that makes no sense."""

    out: Path  # the dataset's folder; made if missing, gone on with if interrupted
    scenario: str = "take_cover"  # what to play
    iwad: str | None = None  # path of a game to play it in, instead of Freedoom
    episodes: int = 100  # how many episodes; episode i has seed first_seed + i
    workers: int = 1  # processes that play; changes the time, not the data
    resolution: tuple[int, int] = (120, 160)  # height and width, pixels
    frame_skip: int = 4  # tics an action is held
    repeat: float = 0.5  # probability that the player keeps its last action
    first_seed: int = 0  # seeds ending in 0 are for the test split, in 1 for validation, all others for training
    episodes_per_shard: int = 16  # how many episodes share a file
    max_episode_steps: int = 525  # an episode is cut off after so many steps

    def __post_init__(self) -> None:
        self.game()
        checked_resolution(self.resolution)
        for name in ("episodes", "workers", "frame_skip", "episodes_per_shard", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed must be at least 0, got {self.first_seed}")
        self.player()

    def game(self) -> Scenario:
        """What is played."""
        return scenario_named(self.scenario, self.iwad)

    def player(self) -> Policy:
        """Who plays."""
        return StickyRandom(len(self.game().action_names), self.repeat)

    def environment(self) -> RealDoom:
        """Where it is played; starts no engine."""
        return RealDoom(self.scenario, self.resolution, self.frame_skip, signals=True, iwad=self.iwad)


@dataclass(frozen=True)
class Job:
    """One shard to make."""

    file: str
    split: Split
    episodes: tuple[int, ...]  # indices in the dataset


Report = Callable[[int], None]
"""Called after each episode with its number of frames."""


def collect(config: CollectConfig) -> Manifest:
    """Collect the dataset of `config`, or what is missing of it, and return its manifest.

    Shows a progress bar. Raises `ValueError` if the folder holds a dataset with other settings, `EngineCrashed` if the
    game fails (the finished shards are kept) and `ShardError` if the folder's manifest can't be read.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    manifest = _begun(config)
    _remove_leftovers(config.out)
    done = {shard.file for shard in manifest.shards}
    jobs = [job for job in plan(config) if job.file not in done]
    with _progress(config, sum(shard.episodes for shard in manifest.shards)) as report:
        make = _here if config.workers == 1 else _in_processes
        with closing(make(config, jobs, report)) as shards:
            for shard in shards:
                manifest = manifest.with_shard(shard)
                save_manifest(manifest, config.out)
    write_card(config.out)
    return manifest


def plan(config: CollectConfig) -> list[Job]:
    """Every shard of the dataset: the episodes of each split, in order, so many a file."""
    return [job for split in SPLITS for job in _plan_split(config, split)]


def _plan_split(config: CollectConfig, split: Split) -> Iterator[Job]:
    indices = [i for i in range(config.episodes) if split_of(config.first_seed + i) == split]
    size = config.episodes_per_shard
    for number, start in enumerate(range(0, len(indices), size)):
        yield Job(f"{split}-{number:05d}.array_record", split, tuple(indices[start : start + size]))


def _begun(config: CollectConfig) -> Manifest:
    """The folder's manifest: a new one, or the one of the collection that was interrupted."""
    fresh = _empty_manifest(config)
    if not (config.out / MANIFEST).exists():
        save_manifest(fresh, config.out)
        return fresh
    found = load_manifest(config.out)
    for field in fields(Manifest):
        here, asked = getattr(found, field.name), getattr(fresh, field.name)
        if field.name not in ("shards", "command") and here != asked:
            cure = "choose another folder, or the same settings to go on with it"
            raise ValueError(f"{config.out} holds a dataset with {field.name} {here!r}, not {asked!r}; {cure}")
    return found


def _empty_manifest(config: CollectConfig) -> Manifest:
    scenario = config.game()
    return Manifest(
        scenario=scenario.name,
        action_names=scenario.action_names,
        variable_names=scenario.variable_names,
        signal_names=SIGNALS,
        resolution=checked_resolution(config.resolution),
        frame_skip=config.frame_skip,
        policy=config.player().name,
        first_seed=config.first_seed,
        episodes=config.episodes,
        episodes_per_shard=config.episodes_per_shard,
        max_episode_steps=config.max_episode_steps,
        code_version=__version__,
        command=command_of(config),
    )


def command_of(config: CollectConfig) -> str:
    """The command line that makes the same dataset again."""
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in ("out", "workers")}
    shown = {name: " ".join(map(str, v)) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
    return " ".join(["neural-env collect", *(f"--{name.replace('_', '-')} {v}" for name, v in shown.items())])


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"*{TEMPORARY}"):
        path.unlink()


def play(env: RealDoom, policy: Policy, *, seed: int, max_steps: int) -> Episode:
    """One episode; the player's randomness comes from the seed too, apart from the game's."""
    policy.reset(np.random.default_rng([seed, 1]))
    frame, info = env.reset(seed=seed)
    frames, variables, signals = [frame], [_values(env, info)], [_signals(info)]
    actions: list[int] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(policy.act(frame, variables[-1]))
        frame, reward, terminated, truncated, info = env.step(actions[-1])
        frames.append(frame)
        variables.append(_values(env, info))
        signals.append(_signals(info))
        rewards.append(reward)
        truncated = not terminated and (truncated or len(actions) == max_steps)
    return Episode(
        frames=np.stack(frames),
        actions=np.asarray(actions, np.int32),
        rewards=np.asarray(rewards, np.float32),
        variables=np.stack(variables),
        signals=np.stack(signals),
        terminated=terminated,
        truncated=truncated,
        seed=seed,
        policy=policy.name,
    )


def _values(env: RealDoom, info: dict[str, Any]) -> np.ndarray:
    return np.asarray([info[name] for name in env.variable_names], np.float32)


def _signals(info: dict[str, Any]) -> np.ndarray:
    """None where the environment wasn't asked for them."""
    return np.asarray(list(info.get("signals", {}).values()), np.float32)


@contextmanager
def _progress(config: CollectConfig, done: int) -> Iterator[Report]:
    columns = (
        TextColumn(config.scenario),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes, {task.fields[rate]:.0f} frames/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        yield _reporter(bar, bar.add_task("", total=config.episodes, completed=done, rate=0.0))


def _reporter(bar: Progress, task: TaskID) -> Report:
    began, frames = time.perf_counter(), 0

    def report(more: int) -> None:
        nonlocal frames
        frames += more
        bar.update(task, advance=1, rate=frames / (time.perf_counter() - began))

    return report


def _here(config: CollectConfig, jobs: list[Job], report: Report) -> Generator[Shard, None, None]:
    """Make the shards in this process."""
    with closing(config.environment()) as env:
        for job in jobs:
            yield _make(config, env, job, report)


def _make(config: CollectConfig, env: RealDoom, job: Job, report: Report) -> Shard:
    episodes = _played(config, env, job, report)
    path = config.out / job.file
    return write_shard(path, episodes, scenario=env.scenario, split=job.split, signal_names=SIGNALS)


def _played(config: CollectConfig, env: RealDoom, job: Job, report: Report) -> Iterator[tuple[int, Episode]]:
    policy = config.player()
    for index in job.episodes:
        episode = play(env, policy, seed=config.first_seed + index, max_steps=config.max_episode_steps)
        report(len(episode.frames))
        yield index, episode


# Workers. The parent hands each its next job through a pipe and hears of every episode, every shard and every failure.
# A pipe rather than a pool: when either side is killed, the other's pipe closes, and nobody waits for ever.


_Pipe: TypeAlias = "Connection[Any, Any]"
_GO_ON = "collect again with the same settings to go on"
SILENCE_SECONDS = 300.0  # of all workers; the longest episode takes a few


class WorkersHung(RuntimeError):
    """Nothing is heard of the workers any more.

    An engine that is killed while it holds a lock that it shares with ViZDoom leaves its worker waiting in ViZDoom's
    code, where no exception reaches it.
    """


def _in_processes(config: CollectConfig, jobs: list[Job], report: Report) -> Generator[Shard, None, None]:
    """Make the shards in `workers` processes; yields them as they are finished."""
    waiting = list(reversed(jobs))
    workers = dict(_start(config) for _ in range(min(config.workers, len(jobs))))
    try:
        for pipe in workers:
            pipe.send(waiting.pop())
        busy = list(workers)
        while busy:
            heard = cast(list[_Pipe], wait(busy, SILENCE_SECONDS))
            if not heard:
                raise WorkersHung(f"no worker finished an episode in {SILENCE_SECONDS} s; {_GO_ON}")
            for pipe in heard:
                message = _receive(pipe, workers[pipe])
                if isinstance(message, int):
                    report(message)
                    continue
                if waiting:
                    pipe.send(waiting.pop())
                else:
                    busy.remove(pipe)
                yield message
    finally:
        for pipe, process in workers.items():
            pipe.close()
            process.terminate()
            process.join(5)
            process.kill()  # if it was deaf to the polite request
            process.join()


def _start(config: CollectConfig) -> tuple[_Pipe, BaseProcess]:
    context = get_context("spawn")  # forking is unsafe once JAX has threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(config, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the worker
    return ours, process


def _receive(pipe: _Pipe, process: BaseProcess) -> int | Shard:
    try:
        message = pipe.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a worker died with exit code {process.exitcode}; {_GO_ON}") from None
    if isinstance(message, Exception):
        raise message
    assert isinstance(message, int | Shard)
    return message


def _work(config: CollectConfig, pipe: _Pipe) -> None:
    """A worker's life: make the shards it is told to, until the pipe ends or the parent's `terminate` comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, _exit)
    with closing(config.environment()) as env:
        try:
            while True:
                pipe.send(_make(config, env, pipe.recv(), pipe.send))
        except (EOFError, ConnectionError):
            return  # the parent is gone
        except Exception as error:
            pipe.send(error)


def _exit(signum: int, frame: object) -> None:
    """Leave as an exception does, so that the engine is closed."""
    raise SystemExit(128 + signum)
