"""Training data as the denoiser sees it: latents, encoded once, and windows that never cross an episode border."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from neural_env.data.episode import Episode, Split
from neural_env.data.mixture import Mixture
from neural_env.data.shards import Dataset
from neural_env.training.loop import Batch
from neural_env.world.autoencoder import Autoencoder, to_pixels
from neural_env.world.parameters import all_arrays, fingerprint

_FIELDS = ("latents", "actions", "rewards", "variables", "ends", "starts")


@dataclass(frozen=True)
class LatentData:
    """Every frame of a split as a latent, episode after episode, with what happened at each.

    Row i of `actions` and `rewards` belongs to the transition from frame i to frame i + 1; the rows of an episode's
    last frame hold zeros. `ends` is 1 where that transition terminated the episode. The frame after it repeats the one
    before (the engine shows none), so it serves as an outcome, never as a picture to learn.
    """

    latents: np.ndarray  # [frames, h, w, c] float16
    actions: np.ndarray  # [frames] int32
    rewards: np.ndarray  # [frames] float32
    variables: np.ndarray  # [frames, v] float32
    ends: np.ndarray  # [frames] uint8
    starts: np.ndarray  # [episodes + 1] int64: where each episode begins; the last is the number of frames

    def windows(self, context: int, ahead: int = 1) -> np.ndarray:
        """Frames i for which frames i - context + 1 ... i + ahead lie in one episode."""
        spans = zip(self.starts[:-1], self.starts[1:], strict=True)
        return np.concatenate([np.arange(start + context - 1, stop - ahead) for start, stop in spans])

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


def encoded(dataset: Dataset, split: Split, autoencoder: Autoencoder, cache: Path) -> LatentData:
    """The split's latents, from `cache` if this auto-encoder has encoded this dataset before."""
    path = cache / f"{split}-{_fingerprint(dataset, autoencoder)}.safetensors"
    if path.is_file():
        try:
            return LatentData(**load_file(path))
        except (SafetensorError, TypeError):  # cut short: it is only a cache
            path.unlink()
    data = _collate(_encode(dataset, split, autoencoder))
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: getattr(data, name) for name in _FIELDS}, temporary)
    temporary.replace(path)
    return data


def frames_at(dataset: Dataset, split: Split, rows: np.ndarray) -> np.ndarray:
    """The frames, uint8 [m, H, W, 3], at ascending rows of the split's `LatentData`."""
    frames, offset = [], 0
    for episode in dataset.episodes(split):
        end = offset + len(episode.frames)
        first, last = np.searchsorted(rows, (offset, end))
        frames.append(episode.frames[rows[first:last] - offset])
        offset = end
    return np.concatenate(frames)


def _fingerprint(dataset: Dataset, autoencoder: Autoencoder) -> str:
    """Of the data and of what encodes them; whatever decodes the latents, they stay the same."""
    encoder = {k: v for k, v in all_arrays(autoencoder).items() if not k.startswith("decoder.")}
    return hashlib.sha256((dataset.manifest_hash + fingerprint(encoder)).encode()).hexdigest()[:16]


def _encode(dataset: Dataset, split: Split, autoencoder: Autoencoder) -> Iterator[tuple[Episode, np.ndarray]]:
    total = sum(shard.episodes for shard in dataset.manifest.of_split(split))
    for episode in track(dataset.episodes(split), description=f"encode {split}", total=total):
        yield episode, encode_frames(autoencoder, episode.frames).astype(np.float16)


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


def _collate(pairs: Iterator[tuple[Episode, np.ndarray]]) -> LatentData:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _FIELDS[:-1]}
    lengths = [0]
    for episode, latents in pairs:
        steps = len(episode.actions)
        ends = np.zeros(steps + 1, np.uint8)
        ends[steps - 1] = episode.terminated
        columns["latents"].append(latents)
        columns["actions"].append(np.append(episode.actions, 0).astype(np.int32))
        columns["rewards"].append(np.append(episode.rewards, 0).astype(np.float32))
        columns["variables"].append(episode.variables)
        columns["ends"].append(ends)
        lengths.append(steps + 1)
    joined = {name: np.concatenate(column) for name, column in columns.items()}
    return LatentData(**joined, starts=np.cumsum(lengths))


Weigh: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From `LatentData.starts` and the windows, how probable each window is; `weighed` makes one of a mixture."""


def weighed(mixture: Mixture, dataset: Dataset, split: Split) -> Weigh:
    """Windows of that split as the mixture has them."""
    return partial(mixture.probabilities, dataset.index(split))


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
