"""Training data as the denoiser sees it: latents, encoded once, and windows that never cross an episode border.

Latents are kept in a file for each shard, named after what is in it and what encoded it: a dataset that grows, or is
joined by another, is encoded only where it is new, and a run that was killed goes on at the next shard. Training maps
the files into memory and copies the windows it draws alone, so that a million frames (10 GB) need no memory of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import save_file

from neural_env.data.corpus import Corpus
from neural_env.data.episode import Episode, Split
from neural_env.data.mixture import Mixture
from neural_env.data.shards import publish
from neural_env.training.loop import Batch
from neural_env.world.autoencoder import Autoencoder, to_pixels
from neural_env.world.parameters import all_arrays, fingerprint

_LATENTS = "latents"
_COLUMNS = ("actions", "rewards", "variables", "ends")
_MAPPED_FILES = 256  # at a time: each takes one of the process's file descriptors, of which it may have 1024


class Rows(Protocol):
    """What is read by row numbers: an array in memory, or `StoredLatents`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[rows, ...]."""
        ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """A copy of those rows, whatever the shape of `rows`."""
        ...


@dataclass(frozen=True)
class LatentData:
    """Every frame of a split as a latent, episode after episode, with what happened at each.

    Row i of `actions` and `rewards` belongs to the transition from frame i to frame i + 1; the rows of an episode's
    last frame hold zeros. `ends` is 1 where that transition terminated the episode. The frame after it repeats the one
    before (the engine shows none), so it serves as an outcome, never as a picture to learn.
    """

    latents: Rows  # [frames, h, w, c] float16
    actions: np.ndarray  # [frames] int32
    rewards: np.ndarray  # [frames] float32
    variables: np.ndarray  # [frames, v] float32
    ends: np.ndarray  # [frames] uint8
    starts: np.ndarray  # [episodes + 1] int64: where each episode begins; the last is the number of frames

    def windows(self, context: int, ahead: int = 1) -> np.ndarray:
        """Frames i for which frames i - context + 1 ... i + ahead lie in one episode."""
        return whole_windows(self.starts, context, ahead)

    def gather(self, last: np.ndarray, context: int) -> Batch:
        """The windows whose present frame is `last`: context, actions, next latent and outcome."""
        past = last[:, None] + np.arange(1 - context, 1)
        return {
            "context": self.latents[past].astype(np.float32),  # [b, n, h, w, c]
            "actions": self.actions[past],  # [b, n]
            "latent": self.latents[last + 1].astype(np.float32),  # [b, h, w, c]
            "reward": self.rewards[last],
            "ends": self.ends[last].astype(np.float32),
            "variables": self.variables[last + 1],
        }

    def following(self, last: np.ndarray, ahead: int) -> Batch:
        """The next `ahead` latents after each present frame, and the action that leads to each."""
        rows = last[:, None] + np.arange(ahead)
        return {
            "following": self.latents[rows + 1].astype(np.float32),  # [b, ahead, h, w, c]
            "steered": self.actions[rows],  # [b, ahead]
        }


def whole_windows(starts: np.ndarray, context: int, ahead: int = 1) -> np.ndarray:
    """Rows i for which rows i - context + 1 ... i + ahead lie in one episode; `starts` as in `LatentData`."""
    spans = [np.arange(start + context - 1, stop - ahead) for start, stop in pairwise(starts)]
    return np.concatenate([np.empty(0, np.int64), *spans])  # of no episodes: none


class StoredLatents:
    """The latents of several files, one after the other, as if they were one array."""

    def __init__(self, paths: Sequence[Path]):
        """Reads nothing but the files' headers."""
        self._paths = tuple(paths)
        shapes = [_mapped(path).shape for path in self._paths]
        self._starts = np.cumsum([0, *(shape[0] for shape in shapes)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *shapes[0][1:])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float16 [*rows.shape, h, w, c]."""
        flat = rows.ravel()
        found = np.empty((len(flat), *self.shape[1:]), np.float16)
        files = np.searchsorted(self._starts, flat, side="right") - 1
        for file in np.unique(files):
            mine = files == file
            found[mine] = _mapped(self._paths[file])[flat[mine] - self._starts[file]]
        return found.reshape(*rows.shape, *self.shape[1:])


def encoded(corpus: Corpus, split: Split, autoencoder: Autoencoder, cache: Path) -> LatentData:
    """The split's latents; only shards that this auto-encoder hasn't encoded into `cache` before are read.

    Raises:
        ValueError: the split has no episodes.
    """
    shards = list(corpus.shards(split))
    if not shards:
        raise ValueError(f"{corpus.name} has no {split} episodes: collect some")
    name = encoder_fingerprint(autoencoder)
    files = [cache / f"{shard.sha256[:16]}-{name}.safetensors" for _, shard in shards]
    missing = [i for i, file in enumerate(files) if not _is_whole(file)]
    for i in track(missing, description=f"encode {split}") if missing else ():
        dataset, shard = shards[i]
        _write(_collate((e, encode_frames(autoencoder, e.frames)) for _, e in dataset.numbered(shard)), files[i])
    columns = [_columns(file) for file in files]
    joined = {name: np.concatenate([column[name] for column in columns]) for name in (*_COLUMNS, "lengths")}
    starts = np.cumsum(np.append(0, joined.pop("lengths")))
    return LatentData(StoredLatents(files), **joined, starts=starts)


def frames_at(corpus: Corpus, split: Split, rows: np.ndarray) -> np.ndarray:
    """The frames, uint8 [m, H, W, 3], at ascending rows of the split's `LatentData`; reads the shards they are in."""
    frames = np.empty((len(rows), *corpus.game.resolution, 3), np.uint8)
    offset = 0
    for dataset, shard in corpus.shards(split):
        first, last = np.searchsorted(rows, (offset, offset + shard.frames))
        if first < last:
            _fill(frames[first:last], rows[first:last] - offset, (e for _, e in dataset.numbered(shard)))
        offset += shard.frames
    return frames


def _fill(frames: np.ndarray, rows: np.ndarray, episodes: Iterable[Episode]) -> None:
    """Writes the frames at ascending rows of a shard's episodes."""
    offset = 0
    for episode in episodes:
        end = offset + len(episode.frames)
        first, last = np.searchsorted(rows, (offset, end))
        frames[first:last] = episode.frames[rows[first:last] - offset]
        offset = end


def encoder_fingerprint(autoencoder: Autoencoder) -> str:
    """Of what encodes; whatever decodes the latents, they stay the same."""
    encoder = {k: v for k, v in all_arrays(autoencoder).items() if not k.startswith("decoder.")}
    return fingerprint(encoder)[:16]


@jax.jit
def _encode_chunk(autoencoder: Autoencoder, frames: jax.Array) -> jax.Array:
    return autoencoder.encode(to_pixels(frames))


def encode_frames(autoencoder: Autoencoder, frames: np.ndarray, size: int = 32) -> np.ndarray:
    """Latents of any number of frames, in padded chunks of one shape, so that nothing is compiled twice."""
    chunks = []
    for start in range(0, len(frames), size):
        chunk = frames[start : start + size]
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
        chunks.append(np.asarray(_encode_chunk(autoencoder, jnp.asarray(padded)))[: len(chunk)])
    return np.concatenate(chunks)


def _collate(pairs: Iterable[tuple[Episode, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of `LatentData` for these episodes, and how many frames each has."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (_LATENTS, *_COLUMNS)}
    for episode, latents in pairs:
        ends = np.zeros(len(episode) + 1, np.uint8)
        ends[len(episode) - 1] = episode.terminated
        columns["latents"].append(latents.astype(np.float16))
        columns["actions"].append(np.append(episode.actions, 0).astype(np.int32))
        columns["rewards"].append(np.append(episode.rewards, 0).astype(np.float32))
        columns["variables"].append(episode.variables)
        columns["ends"].append(ends)
    lengths = np.array([len(ends) for ends in columns["ends"]])
    return {"lengths": lengths, **{name: np.concatenate(column) for name, column in columns.items()}}


def _write(columns: dict[str, np.ndarray], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(columns, temporary)
    publish(temporary, path)
    _mapped.cache_clear()  # this file may be in place of a damaged one


def _is_whole(path: Path) -> bool:
    """Whether the file is there; one that was cut short is removed, for it is only a cache."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {_LATENTS, "lengths", *_COLUMNS} <= set(file.keys())
    except FileNotFoundError:
        return False
    except SafetensorError:
        path.unlink()
        return False


def _columns(path: Path) -> dict[str, np.ndarray]:
    """All but the latents."""
    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in (*_COLUMNS, "lengths")}


@lru_cache(_MAPPED_FILES)
def _mapped(path: Path) -> np.ndarray:
    """The latents of a file, read from the disk where they are looked at."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[_LATENTS]
    offset = 8 + length + entry["data_offsets"][0]
    return np.memmap(path, np.float16, "r", offset, tuple(entry["shape"])).view(np.ndarray)


Weigh: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From `LatentData.starts` and the windows, how probable each window is; `weighed` makes one of a mixture."""


def weighed(mixture: Mixture, corpus: Corpus, split: Split) -> Weigh:
    """Windows of that split as the mixture has them."""
    return partial(mixture.probabilities, corpus.index(split))


class Windows:
    """Random windows of a `LatentData`, a function of the step."""

    def __init__(
        self,
        data: LatentData,
        context: int,
        seed: int,
        *,
        pictures_only: bool,
        weigh: Weigh | None = None,
        ahead: int = 1,
    ):
        """`pictures_only` leaves out transitions that terminate: their next frame is no picture.

        `weigh` says how probable each window is; without it, all are alike. With `ahead` of more than 1, a window goes
        on for so many frames after the present one, and has them in `following`.
        """
        self.data = data
        self.context = context
        self.ahead = ahead
        self._seed = seed
        index = data.windows(context, ahead)
        self.index = index[data.ends[index + ahead - 1] == 0] if pictures_only else index
        if not len(self.index):
            longer = f"the context of {context} frames" + (f" and {ahead - 1} more" if ahead > 1 else "")
            raise ValueError(f"no episode is longer than {longer}: collect longer episodes")
        self._cumulative = None if weigh is None else _cumulative(weigh(data.starts, self.index))

    def batch(self, step: int, size: int) -> Batch:
        """`size` windows drawn with replacement."""
        rng = np.random.default_rng([self._seed, step])
        if self._cumulative is None:
            return self.gather(self.index[rng.integers(len(self.index), size=size)])
        return self.gather(self.index[np.searchsorted(self._cumulative, rng.random(size), side="right")])

    def evenly(self, size: int, batches: int) -> list[Batch]:
        """At most `batches` batches spread evenly over the data: for validation."""
        chosen = np.linspace(0, len(self.index) - 1, size * batches).astype(int)
        return [self.gather(self.index[part]) for part in chosen.reshape(batches, size)]

    def gather(self, last: np.ndarray) -> Batch:
        """The windows whose present frame is `last`."""
        batch = self.data.gather(last, self.context)
        return batch if self.ahead == 1 else batch | self.data.following(last, self.ahead)


def _cumulative(probabilities: np.ndarray) -> np.ndarray:
    """Ends in 1 exactly, so that no draw from [0, 1) falls on a window of probability 0."""
    sums = np.cumsum(probabilities)
    cumulative: np.ndarray = sums / sums[-1]
    return cumulative
