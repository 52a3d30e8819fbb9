"""What a dataset holds, in numbers: read from its indices, so that not a frame is unpacked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neural_env.data.episode import SPLITS, Split
from neural_env.data.events import EVENTS
from neural_env.data.index import Index, joined
from neural_env.data.shards import Dataset


@dataclass(frozen=True)
class Size:
    """How much there is of something."""

    episodes: int
    frames: int
    transitions: int
    bytes: int  # on disk


@dataclass(frozen=True)
class Spread:
    """How some numbers are spread."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Share:
    """What one policy played."""

    policy: str
    episodes: int
    transitions: int
    versions: tuple[int, int]  # first and last
    returns: Spread
    skills: tuple[float, float] | None  # lowest and highest; None if nobody knows


@dataclass(frozen=True)
class Summary:
    """A dataset in numbers."""

    sizes: dict[Split, Size]
    total: Size
    actions: dict[str, float]  # share of the transitions
    events: dict[str, int]  # how many transitions hold one
    returns: Spread
    lengths: Spread  # transitions of an episode
    terminated: float  # share of the episodes that the game ended
    policies: tuple[Share, ...]

    @property
    def bytes_per_frame(self) -> float:
        """On disk."""
        return self.total.bytes / self.total.frames


def summary_of(dataset: Dataset) -> Summary:
    """Count everything; raises `ShardError` for a bad index and `ValueError` for a dataset without episodes."""
    index = joined([dataset.index(split) for split in SPLITS])
    if not len(index.seeds):
        raise ValueError(f"{dataset.folder} has no episodes yet: collect or record some")
    sizes: dict[Split, Size] = {split: _size(dataset, split) for split in SPLITS}
    counts = np.bincount(index.actions, minlength=len(dataset.action_names))
    return Summary(
        sizes=sizes,
        total=Size(*(sum(getattr(s, n) for s in sizes.values()) for n in Size.__dataclass_fields__)),
        actions=dict(zip(dataset.action_names, (counts / counts.sum()).tolist(), strict=True)),
        events={name: int(index.of(name).sum()) for name in EVENTS},
        returns=_spread(index.returns),
        lengths=_spread(index.lengths),
        terminated=float(index.terminated.mean()),
        policies=tuple(_share(index, i) for i in range(len(index.policy_names))),
    )


def _size(dataset: Dataset, split: Split) -> Size:
    shards = dataset.manifest.of_split(split)
    return Size(*(sum(getattr(shard, name) for shard in shards) for name in Size.__dataclass_fields__))


def _spread(values: np.ndarray) -> Spread:
    return Spread(float(values.mean()), float(values.std()), float(values.min()), float(values.max()))


def _share(index: Index, policy: int) -> Share:
    mine = index.policies == policy
    versions, skills = index.policy_versions[mine], index.skills[mine]
    known = skills[~np.isnan(skills)]
    return Share(
        policy=index.policy_names[policy],
        episodes=int(mine.sum()),
        transitions=int(index.lengths[mine].sum()),
        versions=(int(versions.min()), int(versions.max())),
        returns=_spread(index.returns[mine]),
        skills=(float(known.min()), float(known.max())) if len(known) else None,
    )
