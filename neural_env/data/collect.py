"""Playing episodes and storing them: from a game to a dataset.

What shard holds which episode follows from the settings alone, and an episode follows from its seed alone. So the
number of workers, and whether they are processes or a Ray cluster, changes nothing but the time; an interrupted
collection goes on with the shards that are missing, and asking for more episodes later extends the dataset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from neural_env.command import command_line
from neural_env.data.episode import SPLITS, Split, split_of
from neural_env.data.games import DoomGame, ForeignGame
from neural_env.data.policies import Policy, StickyRandom
from neural_env.data.shards import Manifest, Shard
from neural_env.data.store import Store, store_at
from neural_env.data.vizdoom import checked_resolution, scenario_named
from neural_env.data.workers import shards_here, shards_of_workers
from neural_env.game import GameConfig
from neural_env.version import __version__


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect; see the fields. Raises `ValueError` for a value that makes no sense."""

    out: str | Path  # the dataset: a folder, or any fsspec URL; made if missing, gone on with if interrupted
    scenario: str = "take_cover"  # what to play
    iwad: str | None = None  # path of a game to play it in, instead of Freedoom
    env: str | None = None  # a game of your own instead: a Gymnasium environment, as module:EnvId
    observation: str | None = None  # its frame: key of a Dict, index of a Tuple, or "render" for what render() shows
    variables: str = ""  # numbers in its info to record, names separated by commas
    resize: tuple[int, int] | None = None  # height and width to bring its frames to; training needs multiples of 8
    policy: Path | None = None  # who plays: a trained agent's folder; by default random actions, often repeated
    episodes: int = 100  # how many episodes; episode i has seed first_seed + i. More than there are extends the dataset
    workers: int = 1  # games played at a time; changes the time, not the data
    ray: str | None = None  # play on a Ray cluster: its address, or "local" to start one here
    resolution: tuple[int, int] = (120, 160)  # of a scenario: height and width, pixels
    frame_skip: int | None = None  # tics or steps an action is held; by default 4 in a scenario, 1 in your own game
    repeat: float = 0.5  # probability that the random player keeps its last action
    first_seed: int = 0  # seeds ending in 0 are for the test split, in 1 for validation, all others for training
    episodes_per_shard: int = 16  # how many episodes share a file
    max_episode_steps: int = 525  # an episode is cut off after so many steps

    def __post_init__(self) -> None:
        scenario_named(self.scenario, self.iwad)
        checked_resolution(self.resolution)
        for name in ("episodes", "workers", "frame_skip", "episodes_per_shard", "max_episode_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed must be at least 0, got {self.first_seed}")
        if self.resize is not None and min(self.resize) < 1:
            raise ValueError(f"resize is a height and a width of at least 1 pixel, got {self.resize}")
        for name in ("observation", "variables", "resize"):
            if self.env is None and getattr(self, name):
                raise ValueError(f"{name} is for a game of your own, a scenario has its own: give --env too")
        StickyRandom(1, self.repeat)

    def game(self) -> DoomGame | ForeignGame:
        """What is played."""
        if self.env is None:
            return DoomGame(self.scenario, self.iwad, checked_resolution(self.resolution), self.frame_skip or 4)
        variables = tuple(name.strip() for name in self.variables.split(",") if name.strip())
        return ForeignGame(self.env, self.observation, variables, self.resize, self.frame_skip or 1)

    def describe(self) -> GameConfig:
        """Its actions, variables and frames; raises `ValueError` for a game that can't be recorded."""
        return _described(self.game())

    def player(self) -> Policy:
        """Who plays; raises whatever is wrong with the agent's folder."""
        if self.policy is None:
            return StickyRandom(len(self.describe().action_names), self.repeat)
        from neural_env.agents.player import load_agent  # brings JAX

        agent = load_agent(self.policy)
        _check_same_game(agent.agent.game, self.describe())
        return agent


def _check_same_game(learned: GameConfig, game: GameConfig) -> None:
    """An agent may play another scenario than it learned in, if it sees and does the same things there."""
    for name in ("action_names", "resolution"):
        knows, needs = getattr(learned, name), getattr(game, name)
        if knows != needs:
            raise ValueError(f"the agent has {name} {knows}, the game {needs}: let it play what it learned")


@cache
def _described(game: DoomGame | ForeignGame) -> GameConfig:
    return game.describe()


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

    Shows a progress bar. Starts processes: a script that calls this does so under `if __name__ == "__main__":`.
    Raises `ValueError` if `out` holds a dataset with other settings, `EngineCrashed` if the game fails (the finished
    shards are kept) and `ShardError` if the manifest can't be read or a shard doesn't arrive whole.
    """
    store = store_at(config.out)
    manifest = _begun(config, store)
    store.remove_leftovers()
    done = {shard.file for shard in manifest.shards}
    jobs = [job for job in plan(config) if job.file not in done]
    if jobs:
        manifest = _made(config, jobs, manifest, store)
    store.describe(manifest)
    return manifest


def _made(config: CollectConfig, jobs: Sequence[Job], manifest: Manifest, store: Store) -> Manifest:
    make = _maker(config)
    with _progress(config, manifest.num_episodes) as report, closing(make(config, jobs, report)) as shards:
        for shard in shards:
            manifest = manifest.with_shard(shard)
            store.save(manifest)
    return manifest


def _maker(config: CollectConfig) -> Callable[[CollectConfig, Sequence[Job], Report], Generator[Shard, None, None]]:
    if config.ray is not None:
        from neural_env.data.cluster import shards_of_cluster

        return shards_of_cluster
    return shards_here if config.workers == 1 else shards_of_workers


def plan(config: CollectConfig) -> list[Job]:
    """Every shard of the dataset: the episodes of each split, in order, so many a file."""
    return [job for split in SPLITS for job in _plan_split(config, split)]


def _plan_split(config: CollectConfig, split: Split) -> Iterator[Job]:
    indices = [i for i in range(config.episodes) if split_of(config.first_seed + i) == split]
    size = config.episodes_per_shard
    for number, start in enumerate(range(0, len(indices), size)):
        yield Job(f"{split}-{number:05d}.array_record", split, tuple(indices[start : start + size]))


def _begun(config: CollectConfig, store: Store) -> Manifest:
    """The manifest to go on with: a new one, or that of the collection that is there, extended if more is asked for."""
    fresh = _empty_manifest(config)
    found = store.load()
    if found is None:
        store.save(fresh)
        return fresh
    for field in fields(Manifest):
        here, asked = getattr(found, field.name), getattr(fresh, field.name)
        if field.name not in ("shards", "episodes", "command") and here != asked:
            cure = "choose another folder, or the same settings to go on with it"
            raise ValueError(f"{config.out} holds a dataset with {field.name} {here!r}, not {asked!r}; {cure}")
    if found.episodes is None or found.episodes > config.episodes:
        cure = "choose another folder, or ask for at least as many"
        raise ValueError(f"{config.out} holds a dataset with episodes {found.episodes}, not {config.episodes}; {cure}")
    return found if found.episodes == config.episodes else _extended(found, fresh, config, store)


def _extended(found: Manifest, fresh: Manifest, config: CollectConfig, store: Store) -> Manifest:
    """The manifest of a larger dataset: full shards stay, the last ones of the splits are made again if they grow."""
    jobs = {job.file: tuple(config.first_seed + index for index in job.episodes) for job in plan(config)}
    kept = tuple(shard for shard in found.shards if shard.seeds == jobs[shard.file])
    manifest = replace(fresh, shards=kept)
    store.save(manifest)
    return manifest


def _empty_manifest(config: CollectConfig) -> Manifest:
    game = config.describe()
    return Manifest(
        scenario=game.scenario,
        action_names=game.action_names,
        variable_names=game.variable_names,
        signal_names=config.game().signal_names,
        resolution=game.resolution,
        frame_skip=game.frame_skip,
        policy=config.player().name,
        first_seed=config.first_seed,
        episodes=config.episodes,
        episodes_per_shard=config.episodes_per_shard,
        max_episode_steps=config.max_episode_steps,
        code_version=__version__,
        command=command_of(config),
    )


def command_of(config: CollectConfig) -> str:
    """The command line that makes the same dataset again; where and by how many doesn't matter."""
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    return command_line("neural-env collect", settings, left_out=("out", "workers", "ray"))


@contextmanager
def _progress(config: CollectConfig, done: int) -> Iterator[Report]:
    columns = (
        TextColumn(config.game().name, markup=False),
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
