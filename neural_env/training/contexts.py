"""Real contexts for dreams to begin from: moments of a dataset's episodes, or those that a checkpoint brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.progress import track
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from neural_env.checkpoint import Checkpoint, Starts
from neural_env.data.corpus import Corpus
from neural_env.data.mixture import Mixture
from neural_env.data.shards import Dataset
from neural_env.training.latents import encode_frames, frames_at, whole_windows

_FRAMES = 150_000  # of each dataset's training episodes, at most, are drawn from: whole shards, spread evenly over it
_TOGETHER = 1024  # moments whose frames are in memory at a time


def contexts(
    checkpoint: Checkpoint, data: tuple[Path, ...], count: int, mixture: Mixture, seed: int, cache: Path
) -> Starts:
    """The checkpoint's starts, or `count` moments of the training episodes in `data`, encoded once into `cache`.

    A world's own starts are the first frames of episodes. Moments of whole episodes show an agent what only comes
    later, without dreaming for so long; `mixture` says how often which of them are drawn. The transition that a window
    ends with is here the first that is dreamed. Of a large dataset, some shards alone are drawn from.

    Raises:
        ShardError: the dataset can't be read.
        ValueError: it is of another game, has no training episode that is long enough, or nothing of what the mixture
            asks for.
    """
    if not data:
        return checkpoint.starts
    if cache.is_file():
        try:
            return Starts(**load_file(cache))
        except (SafetensorError, TypeError):  # cut short: it is only a cache
            cache.unlink()
    corpus = Corpus.open(data, verify=False, max_frames=_FRAMES)
    for dataset in corpus.datasets:
        _check_same_game(checkpoint, dataset)
    starts = _moments(checkpoint, corpus, count, mixture, np.random.default_rng([seed, 3]))
    temporary = cache.with_suffix(".tmp")
    save_file({"latents": starts.latents, "actions": starts.actions}, temporary)
    temporary.replace(cache)
    return starts


def _moments(checkpoint: Checkpoint, corpus: Corpus, count: int, mixture: Mixture, rng: np.random.Generator) -> Starts:
    n, index = checkpoint.world.context, corpus.index("train")
    first = np.concatenate([[0], np.cumsum(index.lengths + 1)])  # the row of each episode's first frame
    present = whole_windows(first, n)  # never an episode's last frame: where the game ended, it shows nothing new
    if not len(present):
        raise ValueError(f"{corpus.name} has no training episode of {n} steps: collect more, or longer ones")
    rows = np.sort(rng.choice(present, count, p=mixture.probabilities(index, first, present)))
    episode = np.searchsorted(first, rows, side="right") - 1
    transition = rows - episode  # each episode before has one row more than transitions
    actions = index.actions[transition[:, None] + np.arange(1 - n, 0)]
    latents = []
    for some in track(np.array_split(rows, -(-count // _TOGETHER)), "real contexts"):
        past = some[:, None] + np.arange(1 - n, 1)
        frames, where = np.unique(past, return_inverse=True)
        encoded = encode_frames(checkpoint.world.autoencoder, frames_at(corpus, "train", frames)).astype(np.float16)
        latents.append(encoded[where.reshape(past.shape)])
    return Starts(np.concatenate(latents), actions)


def _check_same_game(checkpoint: Checkpoint, dataset: Dataset) -> None:
    for name in ("scenario", "action_names", "resolution", "frame_skip"):
        dreams, holds = getattr(checkpoint.game, name), getattr(dataset, name)
        if dreams != holds:
            raise ValueError(f"{dataset.folder} has {name} {holds!r}, the world dreams {dreams!r}: give its own data")
