"""Several datasets of one game, read as one: random play beside agents', a first collection beside a later one.

A corpus may be bounded. It then has of each dataset and split only some shards, drawn evenly from the first to the
last, so that an agent's early games and its late ones are both there. Whole shards, because what isn't drawn is never
read; and a larger bound draws all that a smaller one did, so that nothing is encoded twice when it is raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neural_env.data.episode import SPLITS, Episode, Split
from neural_env.data.index import Index, joined
from neural_env.data.shards import Dataset, Shard
from neural_env.game import GameConfig, first_difference

_GOLDEN = (np.sqrt(5) - 1) / 2  # the multiples of no other number fill the unit interval as evenly


@dataclass(frozen=True)
class Corpus:
    """What a model is trained on: the first dataset's episodes, then the next one's."""

    datasets: tuple[Dataset, ...]  # of one game, no two alike; where the corpus is bounded, with the shards drawn alone
    hashes: tuple[str, ...]  # of each whole dataset's manifest

    @classmethod
    def open(cls, folders: Sequence[Path], *, verify: bool = True, max_frames: int | None = None) -> Corpus:
        """The datasets in `folders`.

        Arguments:
            folders: each with a `manifest.json`.
            verify: compare size and sha256 of every shard with its manifest.
            max_frames: of a split of one dataset; at least one shard is drawn. None: all there are.

        Raises:
            ShardError: a dataset is missing, damaged or unfinished.
            ValueError: no folder, another game in one than in the first, the same dataset twice, or a bound below 1.
        """
        if not folders:
            raise ValueError("there is nothing to train on: name one dataset folder or more")
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"at most {max_frames} frames of a dataset leaves none: allow at least 1, or all by None")
        whole = [Dataset.open(folder, verify=verify) for folder in folders]
        _check_one_game(whole)
        _check_distinct(whole)
        bounded = whole if max_frames is None else [thinned(dataset, max_frames) for dataset in whole]
        return cls(tuple(bounded), tuple(dataset.manifest_hash for dataset in whole))

    @property
    def name(self) -> str:
        """The folders, for messages."""
        return " + ".join(str(dataset.folder) for dataset in self.datasets)

    @property
    def game(self) -> GameConfig:
        """The game that all of it was collected from."""
        return game_of(self.datasets[0])

    def num_frames(self, split: Split) -> int:
        """How many frames the split's episodes have together."""
        return sum(dataset.num_frames(split) for dataset in self.datasets)

    def shards(self, split: Split) -> Iterator[tuple[Dataset, Shard]]:
        """The split's shards, each with the dataset that it is of."""
        for dataset in self.datasets:
            for shard in dataset.manifest.of_split(split):
                yield dataset, shard

    def episodes(self, split: Split) -> Iterator[Episode]:
        """The split's episodes, one at a time, in the order of `shards`; raises `ShardError`."""
        for dataset in self.datasets:
            yield from dataset.episodes(split)

    def index(self, split: Split) -> Index:
        """What the split's episodes are and where their events are, in the order of `episodes`; reads no frame."""
        return joined([dataset.index(split) for dataset in self.datasets])

    def provenance(self) -> list[dict[str, Any]]:
        """Of each dataset: its manifest's hash, who played, and the frames used of each split; for JSON."""
        return [
            {
                "manifest_hash": name,
                "policy": dataset.manifest.policy,
                "frames": {split: dataset.num_frames(split) for split in SPLITS},
            }
            for dataset, name in zip(self.datasets, self.hashes, strict=True)
        ]


@dataclass(frozen=True)
class Material:
    """What a world was trained on, all datasets together, as far as its provenance tells."""

    frames: dict[str, int]  # by split; empty if it doesn't tell of every dataset
    policies: tuple[str, ...]  # who played, each once
    hashes: tuple[str, ...]  # of the manifests


def material_of(provenance: Mapping[str, Any]) -> Material:
    """What `Corpus.provenance` left in a world's provenance; the first worlds name one dataset, without a list."""
    data = provenance.get("data") or []
    parts = [data] if isinstance(data, Mapping) else data
    splits = [split for split in SPLITS if parts and all(split in part.get("frames", {}) for part in parts)]
    return Material(
        {split: sum(part["frames"][split] for part in parts) for split in splits},
        tuple(dict.fromkeys(part["policy"] for part in parts if "policy" in part)),
        tuple(part["manifest_hash"] for part in parts if "manifest_hash" in part),
    )


def game_of(dataset: Dataset) -> GameConfig:
    """The game that a dataset was collected from."""
    return GameConfig(
        dataset.scenario, dataset.action_names, dataset.variable_names, dataset.frame_skip, dataset.resolution
    )


def thinned(dataset: Dataset, max_frames: int) -> Dataset:
    """The dataset with at most `max_frames` of each split, in whole shards; at least one of a split that has any."""
    kept = {shard.file for split in SPLITS for shard in _drawn(dataset.manifest.of_split(split), max_frames)}
    shards = tuple(shard for shard in dataset.manifest.shards if shard.file in kept)
    return replace(dataset, manifest=replace(dataset.manifest, shards=shards))


def _drawn(shards: Sequence[Shard], max_frames: int) -> list[Shard]:
    order = np.argsort((np.arange(len(shards)) * _GOLDEN) % 1)
    frames = np.cumsum([shards[i].frames for i in order])
    count = max(int(np.searchsorted(frames, max_frames, side="right")), 1)
    return [shards[i] for i in order[:count]]


def _check_one_game(datasets: Sequence[Dataset]) -> None:
    first, *others = ((dataset, game_of(dataset)) for dataset in datasets)
    for dataset, game in others:
        if difference := first_difference(first[1], game):
            what, mine, its = difference
            raise ValueError(
                f"the datasets of a run are of one game: {first[0].folder} has the {what} {mine!r}, {dataset.folder} "
                f"{its!r}; leave one of them out, or collect it again with the settings of the other"
            )


def _check_distinct(datasets: Sequence[Dataset]) -> None:
    seen: dict[str, Path] = {}
    for dataset in datasets:
        if dataset.manifest_hash in seen:
            twice = f"{seen[dataset.manifest_hash]} and {dataset.folder} are the same dataset"
            raise ValueError(
                f"{twice}: give it once; `--random`, `--late`, `--events` and the like say what is drawn more often"
            )
        seen[dataset.manifest_hash] = dataset.folder
