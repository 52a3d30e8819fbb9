"""The index of a shard: what can be asked of its episodes without unpacking a frame.

It lies beside the shard as safetensors, and the manifest vouches for it with its sha256. It can always be made again
from the shard's records, which is how it is verified.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import safetensors
import safetensors.numpy

from neural_env.data.episode import Episode
from neural_env.data.events import EventMask, events_of, has


@dataclass(frozen=True, eq=False)
class Index:
    """Of `e` episodes with `n` transitions together, in stored order."""

    episodes: np.ndarray  # int64 [e]: index in the dataset, in the order of play
    seeds: np.ndarray  # int64 [e]
    lengths: np.ndarray  # int64 [e]: transitions
    returns: np.ndarray  # float64 [e]: sum of rewards
    terminated: np.ndarray  # bool [e]
    policy_versions: np.ndarray  # int64 [e]
    skills: np.ndarray  # float64 [e], NaN where nobody knows
    policies: np.ndarray  # int64 [e]: which of `policy_names` played
    actions: np.ndarray  # int32 [n]
    events: EventMask  # uint16 [n]
    policy_names: tuple[str, ...]

    def of(self, event: str) -> np.ndarray:
        """Whether each transition holds that event, bool [n]; raises `ValueError` for an unknown one."""
        return has(self.events, event)


_ARRAYS = tuple(field.name for field in fields(Index) if field.name != "policy_names")


def index_of(episodes: Iterable[tuple[int, Episode]], signal_names: Sequence[str]) -> Index:
    """The index of whole episodes, each with its index in the dataset."""
    return joined([_row(index, episode, signal_names) for index, episode in episodes])


def _row(index: int, episode: Episode, signal_names: Sequence[str]) -> Index:
    skill = np.nan if episode.skill is None else episode.skill
    return Index(
        episodes=np.array([index]),
        seeds=np.array([episode.seed]),
        lengths=np.array([len(episode)]),
        returns=np.array([episode.rewards.sum(dtype=np.float64)]),
        terminated=np.array([episode.terminated]),
        policy_versions=np.array([episode.policy_version]),
        skills=np.array([skill], np.float64),
        policies=np.array([0]),
        actions=episode.actions,
        events=events_of(episode, signal_names),
        policy_names=(episode.policy,),
    )


def joined(parts: Sequence[Index]) -> Index:
    """One index after the other."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.policy_names))
    arrays = {name: [getattr(part, name) for part in parts] for name in _ARRAYS}
    renamed = [np.array([names.index(name) for name in part.policy_names])[part.policies] for part in parts]
    arrays["policies"] = renamed
    columns = {name: np.concatenate([_EMPTY[name], *column]) for name, column in arrays.items()}
    return Index(**columns, policy_names=names)


_EMPTY: dict[str, np.ndarray] = {
    **{name: np.zeros(0, np.int64) for name in ("episodes", "seeds", "lengths", "policy_versions", "policies")},
    "returns": np.zeros(0, np.float64),
    "skills": np.zeros(0, np.float64),
    "terminated": np.zeros(0, np.bool_),
    "actions": np.zeros(0, np.int32),
    "events": np.zeros(0, np.uint16),
}


def index_bytes(index: Index) -> bytes:
    """The file; equal indices give equal bytes."""
    arrays = {name: np.ascontiguousarray(getattr(index, name)) for name in _ARRAYS}
    return safetensors.numpy.save(arrays, metadata={"policy_names": json.dumps(index.policy_names)})


def index_from(content: bytes) -> Index:
    """The index of a file; raises `ValueError` if it is damaged."""
    try:
        arrays = safetensors.numpy.load(content)
        length = int.from_bytes(content[:8], "little")
        names = tuple(json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["policy_names"]))
        return Index(**{name: arrays[name] for name in _ARRAYS}, policy_names=names)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the index is damaged ({type(error).__name__}: {error}); collect its shard again") from error
