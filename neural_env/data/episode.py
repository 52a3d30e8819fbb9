"""An episode, and the segments it is stored in.

::

    frame 0 --action 0--> frame 1 --action 1--> ... frame t
            reward 0              reward 1

A segment is one stored record: at most 64 transitions of one episode, in order. Its last frame is the first one of the
next segment too, so that each segment is complete in itself. It is stored as safetensors, whose metadata hold the
header as JSON.

Frames are RGB, or rows of a palette where the game draws with one: a third of the bytes, and nothing is lost. They are
stored row by row of the picture, each row through all of the segment's time: what moves moves along a row, so that
zstd finds it there, in a sixth fewer bytes and less time than frame by frame.

Several agents in one episode will be a leading axis on frames, actions, rewards, variables and signals (and a list of
flags in the header), under a higher `SCHEMA_VERSION`; time stays the first axis of what one agent saw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import safetensors
import safetensors.numpy

SCHEMA_VERSION = 3
"""Of the stored records and their manifest; raised by every change that old readers would misread."""

READABLE = (2, SCHEMA_VERSION)
"""The schemas that are read; only the last is written. In 2, frames are always RGB, and stored frame by frame."""

SEGMENT_TRANSITIONS = 64

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(seed: int) -> Split:
    """Where an episode belongs, by its seed alone: no seed is in two splits, in any dataset ever made."""
    return {0: "test", 1: "validation"}.get(seed % 10, "train")  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Episode:
    """One play of the game, from reset to its end; checked when made.

    `actions[i]` leads from `frames[i]` to `frames[i + 1]` and earns `rewards[i]`. Raises `ValueError`.
    """

    frames: np.ndarray  # uint8 [t + 1, H, W, 3], [0, 255]; with a palette [t + 1, H, W], rows of it
    actions: np.ndarray  # int32 [t], indices into the scenario's action names
    rewards: np.ndarray  # float32 [t]
    variables: np.ndarray  # float32 [t + 1, v]: what the agent may read
    signals: np.ndarray  # float32 [t + 1, s]: what it may not, see `data.vizdoom.SIGNALS`; s is 0 where there are none
    terminated: bool  # the game ended
    truncated: bool  # it was cut off; never both
    seed: int  # of the environment's reset
    policy: str  # who played
    policy_version: int = 0  # updates that the policy has had; 0 for one that doesn't learn
    skill: float | None = None  # mean return of that policy over its episodes before this one; None if nobody knows
    palette: np.ndarray | None = None  # uint8 [c, 3], the colours of the frames; None: they are RGB

    def __post_init__(self) -> None:
        check_transitions(self)
        if self.terminated and self.truncated:
            raise ValueError(f"episode {self.seed} is both terminated and truncated; keep terminated")
        for name in ("seed", "policy_version"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.skill is not None and not math.isfinite(self.skill):
            raise ValueError(f"skill must be a finite number, or None where it isn't known, got {self.skill}")

    def __len__(self) -> int:
        """The number of transitions."""
        return len(self.actions)

    @property
    def split(self) -> Split:
        """The split its seed belongs to."""
        return split_of(self.seed)

    def in_rgb(self) -> Episode:
        """The episode with its frames in RGB."""
        if self.palette is None:
            return self
        return replace(self, frames=self.palette.take(self.frames, axis=0), palette=None)

    def in_palette(self, palette: np.ndarray) -> Episode:
        """The episode with its frames in rows of `palette`, uint8 [c, 3]; raises `ValueError` for a colour it lacks."""
        rows = np.full(2**24, -1, np.int16)
        rows[_packed(palette)[::-1]] = np.arange(len(palette))[::-1]  # of two equal colours, the first
        found = rows[_packed(self.in_rgb().frames)]
        if found.min() < 0:
            raise ValueError(f"episode {self.seed} has colours that aren't in the palette: store it in RGB")
        return replace(self, frames=found.astype(np.uint8), palette=palette)


def _packed(colours: np.ndarray) -> np.ndarray:
    """Each colour `[..., 3]` as one number, int32 `[...]`."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    packed: np.ndarray = red << 16 | green << 8 | blue
    return packed


@dataclass(frozen=True)
class SegmentHeader:
    """What a record says of itself."""

    schema: int  # SCHEMA_VERSION of the writer
    scenario: str
    seed: int
    policy: str
    policy_version: int
    skill: float | None
    episode: int  # index in the dataset
    segment: int  # index in the episode
    start: int  # the episode's transition that this segment begins with
    length: int  # transitions of the whole episode
    terminated: bool  # of the segment's last transition
    truncated: bool


@dataclass(frozen=True, eq=False)
class Segment:
    """At most 64 transitions `n` of an episode, with the `n + 1` frames around them."""

    header: SegmentHeader
    frames: np.ndarray  # uint8 [n + 1, H, W, 3], or [n + 1, H, W] with a palette
    actions: np.ndarray  # int32 [n]
    rewards: np.ndarray  # float32 [n]
    variables: np.ndarray  # float32 [n + 1, v]
    signals: np.ndarray  # float32 [n + 1, s]
    palette: np.ndarray | None = None  # uint8 [c, 3]

    def __post_init__(self) -> None:
        check_transitions(self)


def check_transitions(arrays: Episode | Segment) -> None:
    """Raise `ValueError` unless types, ranks and lengths fit each other."""
    _check_array("frames", arrays.frames, np.uint8, 4 if arrays.palette is None else 3)
    for name, (dtype, rank) in _TYPES.items():
        _check_array(name, getattr(arrays, name), dtype, rank)
    t = len(arrays.actions)
    if t < 1:
        raise ValueError("an episode or segment has at least one transition, got 0 actions")
    for name, expected in {"frames": t + 1, "rewards": t, "variables": t + 1, "signals": t + 1}.items():
        found = len(getattr(arrays, name))
        if found != expected:
            raise ValueError(f"{t} actions need {expected} {name}, got {found}")
    if arrays.palette is not None:
        _check_palette(arrays.palette, arrays.frames)
    elif arrays.frames.shape[-1] != 3:
        raise ValueError(f"frames are RGB, [t + 1, H, W, 3], got shape {arrays.frames.shape}")


def _check_palette(palette: np.ndarray, frames: np.ndarray) -> None:
    _check_array("palette", palette, np.uint8, 2)
    if not 1 <= len(palette) <= 256 or palette.shape[1] != 3:
        raise ValueError(f"a palette is 1 to 256 RGB colours, [c, 3], got shape {palette.shape}")
    if len(palette) < 256 and frames.max() >= len(palette):
        raise ValueError(f"a palette of {len(palette)} colours has no row {frames.max()}: give all that the frames use")


_TYPES: dict[str, tuple[type[np.generic], int]] = {
    "actions": (np.int32, 1),
    "rewards": (np.float32, 1),
    "variables": (np.float32, 2),
    "signals": (np.float32, 2),
}


def _check_array(name: str, array: np.ndarray, dtype: type[np.generic], rank: int) -> None:
    if array.dtype != dtype or array.ndim != rank:
        expected = f"{np.dtype(dtype).name} of rank {rank}"
        raise ValueError(f"{name} must be {expected}, got {array.dtype} of shape {array.shape}; convert before storing")


def cut(episode: Episode, *, scenario: str, index: int) -> list[Segment]:
    """The episode's segments, in order; `index` is its place in the dataset."""
    starts = range(0, len(episode), SEGMENT_TRANSITIONS)
    return [_segment(episode, scenario, index, number, start) for number, start in enumerate(starts)]


def _segment(episode: Episode, scenario: str, index: int, number: int, start: int) -> Segment:
    stop = min(start + SEGMENT_TRANSITIONS, len(episode))
    last = stop == len(episode)
    header = SegmentHeader(
        schema=SCHEMA_VERSION,
        scenario=scenario,
        seed=episode.seed,
        policy=episode.policy,
        policy_version=episode.policy_version,
        skill=episode.skill,
        episode=index,
        segment=number,
        start=start,
        length=len(episode),
        terminated=episode.terminated and last,
        truncated=episode.truncated and last,
    )
    return Segment(
        header,
        frames=episode.frames[start : stop + 1],
        actions=episode.actions[start:stop],
        rewards=episode.rewards[start:stop],
        variables=episode.variables[start : stop + 1],
        signals=episode.signals[start : stop + 1],
        palette=episode.palette,
    )


def join(segments: Sequence[Segment]) -> Episode:
    """The episode that `cut` took apart; raises `ValueError` if a segment is missing, foreign or out of order."""
    if not segments:
        raise ValueError("an episode has at least one segment, got none")
    _check_sequence(segments)
    _check_one_palette(segments)
    last = segments[-1]
    return Episode(
        frames=np.concatenate([*(s.frames[:-1] for s in segments), last.frames[-1:]]),
        actions=np.concatenate([s.actions for s in segments]),
        rewards=np.concatenate([s.rewards for s in segments]),
        variables=np.concatenate([*(s.variables[:-1] for s in segments), last.variables[-1:]]),
        signals=np.concatenate([*(s.signals[:-1] for s in segments), last.signals[-1:]]),
        terminated=last.header.terminated,
        truncated=last.header.truncated,
        seed=last.header.seed,
        policy=last.header.policy,
        policy_version=last.header.policy_version,
        skill=last.header.skill,
        palette=last.palette,
    )


def _check_one_palette(segments: Sequence[Segment]) -> None:
    palettes = {None if segment.palette is None else segment.palette.tobytes() for segment in segments}
    if len(palettes) > 1:
        raise ValueError(f"episode {segments[0].header.episode} has segments of {len(palettes)} palettes, not of one")


def _check_sequence(segments: Sequence[Segment]) -> None:
    first, start = segments[0].header, 0
    for number, segment in enumerate(segments):
        header = segment.header
        found = (header.episode, header.seed, header.segment, header.start)
        expected = (first.episode, first.seed, number, start)
        if found != expected:
            raise ValueError(f"expected (episode, seed, segment, start) {expected}, found {found}")
        start += len(segment.actions)
    if start != first.length:
        raise ValueError(f"episode {first.episode} has {first.length} transitions, its segments hold {start}")


def to_bytes(segment: Segment) -> bytes:
    """The record: safetensors, the header as JSON in the metadata; equal segments give equal bytes.

    The same bytes as the library's, which copies the frames twice where this copies them once.
    """
    stored = {name: np.ascontiguousarray(getattr(segment, name)) for name in _STORED if name != "frames"}
    frames = segment.frames.swapaxes(0, 1)
    if segment.palette is None:
        arrays = {**stored, "frames": np.ascontiguousarray(frames)}
    else:
        arrays = {**stored, "frames": _unified(frames, segment.palette), "palette": segment.palette}
    header: dict[str, Any] = {"__metadata__": {"header": json.dumps(asdict(segment.header), sort_keys=True)}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(array.data for array in arrays.values())])


def _unified(frames: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The frames, contiguous, with the first of each two colours that are equal: equal pictures give equal bytes."""
    content = frames.tobytes()
    found = [(row, first) for row, first in _twins(palette.tobytes()) if row in content]
    unified = np.frombuffer(content, np.uint8).reshape(frames.shape)
    for row, first in found:
        unified = unified + (unified == row) * np.uint8(first - row & 255)
    return unified


@cache
def _twins(palette: bytes) -> list[tuple[int, int]]:
    """The rows of a palette whose colour an earlier one has, each with the earliest."""
    colours = [palette[i : i + 3] for i in range(0, len(palette), 3)]
    return [(row, first) for row, colour in enumerate(colours) if (first := colours.index(colour)) < row]


def from_bytes(record: bytes) -> Segment:
    """The segment of a record; raises `ValueError` if the record is damaged or of another schema version."""
    try:
        header = _header(record)
        arrays = safetensors.numpy.load(record)
        if header.schema > 2:
            arrays["frames"] = arrays["frames"].swapaxes(0, 1)
        return Segment(header, palette=arrays.get("palette"), **{name: arrays[name] for name in _STORED})
    except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the record is damaged ({type(error).__name__}: {error}); collect its shard again") from error


_STORED = ("rewards", "signals", "variables", "actions", "frames")  # safetensors' order: by type, then by name
_DTYPES = {"uint8": "U8", "int32": "I32", "float32": "F32"}  # safetensors' names


def _header(record: bytes) -> SegmentHeader:
    """A safetensors file begins with the length of its JSON, 8 bytes little-endian; its loader drops the metadata."""
    length = int.from_bytes(record[:8], "little")
    metadata = json.loads(record[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata["header"])
    if header["schema"] not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise ValueError(f"the record has schema version {header['schema']}, this reader knows {known}: collect anew")
    return SegmentHeader(**header)
