"""Real contexts for dreams to begin from: moments of a dataset's episodes, or those that a checkpoint brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from neural_env.checkpoint import Checkpoint, Starts
from neural_env.data.episode import Episode
from neural_env.data.shards import Dataset
from neural_env.training.latents import encode_frames

_SHARDS = 32  # at most that many are read, spread evenly over the dataset


def contexts(checkpoint: Checkpoint, data: Path | None, count: int, seed: int, cache: Path) -> Starts:
    """The checkpoint's starts, or `count` moments of the training episodes in `data`, encoded once into `cache`.

    A world's own starts are the first frames of episodes. Moments of whole episodes show an agent what only comes
    later, without dreaming for so long.

    Raises:
        ShardError: the dataset can't be read.
        ValueError: it is of another game, or has no training episode that is long enough.
    """
    if data is None:
        return checkpoint.starts
    if cache.is_file():
        try:
            return Starts(**load_file(cache))
        except (SafetensorError, TypeError):  # cut short: it is only a cache
            cache.unlink()
    starts = _moments(checkpoint, Dataset.open(data, verify=False), count, seed)
    temporary = cache.with_suffix(".tmp")
    save_file({"latents": starts.latents, "actions": starts.actions}, temporary)
    temporary.replace(cache)
    return starts


def _moments(checkpoint: Checkpoint, dataset: Dataset, count: int, seed: int) -> Starts:
    _check_same_game(checkpoint, dataset)
    shards = dataset.manifest.of_split("train")
    chosen = [shards[i] for i in np.unique(np.linspace(0, len(shards) - 1, _SHARDS).astype(int))] if shards else []
    n, rng = checkpoint.world.context, np.random.default_rng([seed, 3])
    latents, actions = [], []
    for number, shard in enumerate(track(chosen, "real contexts")):
        wanted = count * (number + 1) // len(chosen) - count * number // len(chosen)
        episodes = [episode for _, episode in dataset.numbered(shard) if len(episode) >= n]
        windows = _windows(episodes, n, wanted, rng)
        if windows:
            frames = np.concatenate([episode.frames[first : first + n] for episode, first in windows])
            encoded = encode_frames(checkpoint.world.autoencoder, frames).astype(np.float16)
            latents.append(encoded.reshape(len(windows), n, *encoded.shape[1:]))
            actions += [episode.actions[first : first + n - 1] for episode, first in windows]
    if not latents:
        raise ValueError(f"{dataset.folder} has no training episode of {n} steps: collect more, or longer ones")
    return Starts(np.concatenate(latents), np.stack(actions))


def _windows(episodes: list[Episode], n: int, count: int, rng: np.random.Generator) -> list[tuple[Episode, int]]:
    """`count` random windows of `n` frames: the episode and the first frame. The last frame of an episode is in none:
    where the game ended, it shows nothing new."""
    lengths = np.array([len(episode) - n + 1 for episode in episodes])
    if not len(lengths):
        return []
    edges = np.cumsum(lengths)
    drawn = rng.integers(edges[-1], size=count)
    rows = np.searchsorted(edges, drawn, side="right")
    return [(episodes[row], int(at - edges[row] + lengths[row])) for row, at in zip(rows, drawn, strict=True)]


def _check_same_game(checkpoint: Checkpoint, dataset: Dataset) -> None:
    for name in ("scenario", "action_names", "resolution", "frame_skip"):
        dreams, holds = getattr(checkpoint.game, name), getattr(dataset, name)
        if dreams != holds:
            raise ValueError(f"{dataset.folder} has {name} {holds!r}, the world dreams {dreams!r}: give its own data")
