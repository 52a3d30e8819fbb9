"""Datasets on disk: ArrayRecord shards and the manifest that vouches for them.

A dataset is a folder with `manifest.json` and shards; a shard holds whole episodes of one split, one record a segment,
and has an index beside it. A shard counts only once the manifest names it, with its size and sha256: it is written
under a temporary name, synced, renamed, and then the manifest is replaced. Whatever dies in between leaves a dataset
that can be read and gone on with.

ArrayRecord alone isn't enough: it reads a file cut short as an empty one. Hence the checks here, and the first rule:
nothing is read in silence, every disagreement with the manifest is a `ShardError`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from neural_env.data.episode import (
    READABLE,
    SCHEMA_VERSION,
    SPLITS,
    Episode,
    Segment,
    Split,
    cut,
    from_bytes,
    join,
    to_bytes,
)
from neural_env.data.events import EVENTS
from neural_env.data.index import Index, index_bytes, index_from, index_of, joined

MANIFEST = "manifest.json"
TEMPORARY = ".tmp"
_WRITER_OPTIONS = "group_size:1,zstd:1"  # a record at a time, so that any segment can be read alone


class ShardError(Exception):
    """Something of a dataset can't be trusted: `path` is the file, `why` says what is wrong and what helps."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


@dataclass(frozen=True)
class Shard:
    """What the manifest says of one shard."""

    file: str  # name in the dataset's folder
    sha256: str  # of the file
    bytes: int
    split: Split
    episodes: int
    frames: int  # of the episodes: transitions + episodes, not counting the frames that segments share
    transitions: int
    segments: int
    seeds: tuple[int, ...]  # of the episodes, in order
    index_sha256: str  # of the index beside it

    @property
    def index_file(self) -> str:
        """Name of its index in the dataset's folder."""
        return index_name(self.file)


def index_name(file: str) -> str:
    """Name of the index of a shard's file."""
    return str(Path(file).with_suffix(".index"))


@dataclass(frozen=True)
class Manifest:
    """What a dataset is, and every shard it has so far."""

    scenario: str
    action_names: tuple[str, ...]
    variable_names: tuple[str, ...]
    signal_names: tuple[str, ...]  # columns of the signals; none for a game that has none
    resolution: tuple[int, int]  # height and width, pixels
    frame_skip: int  # tics per step
    policy: str  # who played, joined by " + " if there were several
    first_seed: int  # of a collection: episode i has seed first_seed + i
    episodes: int | None  # asked for; `shards` may have fewer while collection goes on. None: as many as were recorded
    episodes_per_shard: int  # at most
    max_episode_steps: int | None
    code_version: str  # of the package that collected
    command: str = ""  # that made it, as far as it is known
    shards: tuple[Shard, ...] = ()  # sorted by file name
    schema: int = SCHEMA_VERSION

    @property
    def complete(self) -> bool:
        """Whether every episode asked for is there."""
        return self.episodes is None or self.num_episodes == self.episodes

    @property
    def num_episodes(self) -> int:
        """How many episodes are there."""
        return sum(shard.episodes for shard in self.shards)

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON: the dataset's name, contents included."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def with_shard(self, shard: Shard) -> Manifest:
        """The manifest after that shard was written."""
        return replace(self, shards=tuple(sorted((*self.shards, shard), key=lambda s: s.file)))

    def of_split(self, split: Split) -> list[Shard]:
        """The shards of a split; raises `ValueError` for an unknown one."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        return [shard for shard in self.shards if shard.split == split]


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Replace the folder's manifest in one move."""
    write_whole(folder / MANIFEST, (json.dumps(asdict(manifest), indent=1) + "\n").encode())


def load_manifest(folder: Path) -> Manifest:
    """The folder's manifest; raises `ShardError` if it is missing, damaged or of another schema version."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ShardError(path, "there is no dataset here: collect one, or correct the folder") from None
    except ValueError as error:
        raise ShardError(path, f"this is no JSON ({error}); collect the dataset again") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise ShardError(path, f"the schema version is {found!r}, this package reads {known}: collect anew")
    try:
        return manifest_of(content)
    except (TypeError, KeyError) as error:
        raise ShardError(path, f"fields are missing or unknown ({error}); collect the dataset again") from error


_LISTS = ("action_names", "variable_names", "signal_names", "resolution")


def manifest_of(content: dict[str, Any]) -> Manifest:
    """The manifest of its JSON; raises `TypeError` or `KeyError` for fields that are missing or unknown."""
    shards = tuple(Shard(**{**shard, "seeds": tuple(shard["seeds"])}) for shard in content["shards"])
    lists = {name: tuple(content[name]) for name in _LISTS}
    return Manifest(**{**content, **lists, "shards": shards})


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file its name: all of it is on disk, or the name doesn't exist."""
    _sync(temporary)
    os.replace(temporary, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_shard(
    path: Path,
    episodes: Iterable[tuple[int, Episode]],
    *,
    scenario: str,
    split: Split,
    signal_names: Sequence[str],
) -> Shard:
    """Write whole episodes, each with its index in the dataset, as one shard and its index, atomically.

    Raises `ValueError` for an episode whose seed belongs to another split, or with other signals.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")  # a killed run's worker may not be gone yet
    counted = Shard(path.name, "", 0, split, 0, 0, 0, 0, (), "")
    rows = []
    # ArrayRecord compresses under the GIL, so a thread would gain nothing; more workers do.
    with closing(ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)) as writer:
        for index, episode in episodes:
            _check_fits(episode, split, signal_names)
            segments = cut(episode, scenario=scenario, index=index)
            for segment in segments:
                writer.write(to_bytes(segment))
            counted = _count(counted, episode, len(segments))
            rows.append(index_of([(index, episode)], signal_names))
    content = index_bytes(joined(rows))
    write_whole(path.with_name(index_name(path.name)), content)
    index_sha256 = hashlib.sha256(content).hexdigest()
    size, sha256 = temporary.stat().st_size, _sha256(temporary)
    publish(temporary, path)
    return replace(counted, sha256=sha256, bytes=size, index_sha256=index_sha256)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    temporary.write_bytes(content)
    publish(temporary, path)


def _check_fits(episode: Episode, split: Split, signal_names: Sequence[str]) -> None:
    if episode.split != split:
        raise ValueError(f"seed {episode.seed} belongs to split {episode.split!r}, not to a {split!r} shard")
    if episode.signals.shape[1] != len(signal_names):
        found, names = episode.signals.shape[1], ", ".join(signal_names) or "none"
        raise ValueError(f"an episode has {found} signals, the dataset's are {names}: store just these")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_numbered(path: Path, shard: Shard, *, scenario: str) -> Iterator[tuple[int, Episode]]:
    """The shard's episodes, in order, each with its index in the dataset; with the palette that they were stored in.

    Raises `ShardError` wherever the file and the manifest's entry disagree.
    """
    counted = replace(shard, episodes=0, frames=0, transitions=0, segments=0, seeds=())
    for segments in _by_episode(path, scenario):
        try:
            episode = join(segments)
        except ValueError as error:
            raise ShardError(path, f"an episode can't be joined: {error}") from error
        counted = _count(counted, episode, len(segments))
        if episode.split != shard.split:
            raise ShardError(path, f"seed {episode.seed} belongs to {episode.split!r}, the shard says {shard.split!r}")
        yield segments[0].header.episode, episode
    _compare(path, claimed=shard, counted=counted)


def _count(shard: Shard, episode: Episode, segments: int) -> Shard:
    return replace(
        shard,
        episodes=shard.episodes + 1,
        frames=shard.frames + len(episode.frames),
        transitions=shard.transitions + len(episode),
        segments=shard.segments + segments,
        seeds=(*shard.seeds, episode.seed),
    )


def _compare(path: Path, *, claimed: Shard, counted: Shard) -> None:
    for field in fields(Shard):
        says, holds = getattr(claimed, field.name), getattr(counted, field.name)
        if says != holds:
            raise ShardError(path, f"the manifest says {field.name} {says}, the file holds {holds}; collect it again")


def _by_episode(path: Path, scenario: str) -> Iterator[list[Segment]]:
    for _, segments in groupby(_segments(path, scenario), key=lambda segment: segment.header.episode):
        yield list(segments)


def _segments(path: Path, scenario: str) -> Iterator[Segment]:
    for record in _records(path):
        try:
            segment = from_bytes(record)
        except ValueError as error:
            raise ShardError(path, str(error)) from error
        if segment.header.scenario != scenario:
            raise ShardError(path, f"it holds {segment.header.scenario!r}, the dataset is of {scenario!r}")
        yield segment


def _records(path: Path) -> Iterator[bytes]:
    """One at a time: a shard of long episodes is larger than one would like to hold."""
    if not path.is_file():
        raise ShardError(path, "the shard is missing: restore it, or collect the dataset again")
    try:
        # Without read-ahead: that would start a pool of threads for each shard.
        reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
        try:
            for index in range(reader.num_records()):
                yield reader.read([index])[0]
        finally:
            reader.close()
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise ShardError(path, f"the shard can't be read ({error}); collect it again") from error


@dataclass(frozen=True)
class Dataset:
    """A folder of shards that agree with their manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = True, partial: bool = False) -> Dataset:
        """The dataset in `folder`.

        Arguments:
            folder: where `manifest.json` is.
            verify: compare size and sha256 of every shard with the manifest, once, now.
            partial: accept a collection that isn't finished.

        Raises `ShardError` for whatever is missing, cut short, altered, foreign or unfinished, `ValueError` for a URL.
        """
        if "://" in str(folder):
            raise ValueError(
                f"{folder} is no folder: readers need local files, copy it by `neural-env data fetch` first"
            )
        folder = Path(folder)
        manifest = load_manifest(folder)
        _check_manifest(folder / MANIFEST, manifest, partial)
        if verify:
            for shard in manifest.shards:
                check_file(folder / shard.file, shard)
                load_index(folder, shard)
        return cls(folder, manifest)

    @property
    def manifest_hash(self) -> str:
        """sha256 of the manifest's canonical content, 64 hexadecimal digits: names the data a model was trained on."""
        return self.manifest.hash

    @property
    def scenario(self) -> str:
        """The scenario's name."""
        return self.manifest.scenario

    @property
    def action_names(self) -> tuple[str, ...]:
        """What the stored actions index."""
        return self.manifest.action_names

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The columns of the stored variables."""
        return self.manifest.variable_names

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the frames, pixels."""
        return self.manifest.resolution

    @property
    def frame_skip(self) -> int:
        """Tics per step."""
        return self.manifest.frame_skip

    def num_frames(self, split: Split) -> int:
        """How many frames the split's episodes have together."""
        return sum(shard.frames for shard in self.manifest.of_split(split))

    def episodes(self, split: Split) -> Iterator[Episode]:
        """The split's episodes, one at a time, in shard order; raises `ShardError`."""
        for shard in self.manifest.of_split(split):
            for _, episode in self.numbered(shard):
                yield episode

    def index(self, split: Split) -> Index:
        """What the split's episodes are and where their events are, in the order of `episodes`; reads no frame.

        Raises `ShardError` for an index that is missing or altered.
        """
        return joined([load_index(self.folder, shard) for shard in self.manifest.of_split(split)])

    def events(self, split: Split) -> dict[str, np.ndarray]:
        """For each of `data.events.EVENTS`, whether each transition of the split holds it: bool [transitions]."""
        index = self.index(split)
        return {name: index.of(name) for name in EVENTS}

    def numbered(self, shard: Shard) -> Iterator[tuple[int, Episode]]:
        """A shard's episodes in RGB, each with its index in the dataset; raises `ShardError`."""
        for index, episode in self.stored(shard):
            yield index, episode.in_rgb()

    def stored(self, shard: Shard) -> Iterator[tuple[int, Episode]]:
        """The same with the palette that the frames were stored in, if they were; raises `ShardError`."""
        path = self.folder / shard.file
        for index, episode in read_numbered(path, shard, scenario=self.scenario):
            if episode.frames.shape[1:3] != self.resolution:
                found, expected = episode.frames.shape[1:3], self.resolution
                raise ShardError(path, f"a frame has shape {found}, the manifest says {expected}")
            if episode.variables.shape[1] != len(self.variable_names):
                found, expected = episode.variables.shape[1], len(self.variable_names)
                raise ShardError(path, f"a frame has {found} variables, the manifest names {expected}")
            if episode.signals.shape[1] != len(self.manifest.signal_names):
                found, expected = episode.signals.shape[1], len(self.manifest.signal_names)
                raise ShardError(path, f"a frame has {found} signals, the manifest names {expected}")
            if not 0 <= episode.actions.min() <= episode.actions.max() < len(self.action_names):
                raise ShardError(path, f"seed {episode.seed} has an action outside {self.action_names}")
            yield index, episode


def _check_manifest(path: Path, manifest: Manifest, partial: bool) -> None:
    for shard in manifest.shards:
        if (len(shard.seeds), shard.frames) != (shard.episodes, shard.transitions + shard.episodes):
            raise ShardError(path, f"the counts of {shard.file} contradict each other; collect the dataset again")
    _check_unique(path, [shard.file for shard in manifest.shards])
    _check_unique(path, [seed for shard in manifest.shards for seed in shard.seeds])
    if not (manifest.complete or partial):
        cure = "collect again with the same settings to finish it"
        raise ShardError(path, f"{manifest.num_episodes} of {manifest.episodes} episodes are there; {cure}")


def _check_unique(path: Path, names: Sequence[object]) -> None:
    if len(set(names)) != len(names):
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        raise ShardError(path, f"named more than once: {', '.join(twice)}; collect the dataset again")


def load_index(folder: Path, shard: Shard) -> Index:
    """The index beside a shard; raises `ShardError` if it is missing or isn't the one that the manifest means."""
    path = folder / shard.index_file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ShardError(path, "the shard's index is missing: restore it, or collect the dataset again") from None
    if hashlib.sha256(content).hexdigest() != shard.index_sha256:
        raise ShardError(path, "the index is altered: its sha256 isn't the manifest's; restore it")
    try:
        return index_from(content)
    except ValueError as error:
        raise ShardError(path, str(error)) from error


def check_file(path: Path, shard: Shard) -> None:
    """Raise `ShardError` unless the file's size and sha256 are those of the manifest."""
    if not path.is_file():
        raise ShardError(path, "the shard is missing: restore it, or collect the dataset again")
    size = path.stat().st_size
    if size != shard.bytes:
        what = "truncated" if size < shard.bytes else "altered"
        raise ShardError(path, f"the shard is {what}: {size} bytes, the manifest says {shard.bytes}; restore it")
    if _sha256(path) != shard.sha256:
        raise ShardError(path, "the shard is altered: its sha256 isn't the manifest's; restore it")
