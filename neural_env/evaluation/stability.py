"""Whether a dream left to itself for 1,000 steps stays a game: frame statistics and FD-VGG16, segment by segment.

There is no truth to compare such a dream with step by step, so its frames are compared with real ones as sets. A dream
collapses when a statistic of its frames leaves what it was in its first segment by more than a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neural_env.data.episode import Episode
from neural_env.evaluation.bootstrap import Estimate, mean, statistic
from neural_env.evaluation.frechet import frechet_distance, vgg_features
from neural_env.evaluation.rows import Row, percent
from neural_env.evaluation.world import Dreamer, sticky_actions

SECTION = "left to itself"
HELD = "dreams that hold to the end"
SEGMENTS = 4
FACTORS = {"brightness": 2.0, "contrast": 2.0, "sharpness": 2.0, "motion": 4.0}
"""How far a statistic may leave its value in the first segment, up or down; motion also depends on where one stands."""

_LAST = 88  # frames of a film: 10 seconds at four tics a frame
_RESAMPLES = 100  # of a Fréchet distance: each takes a decomposition


@dataclass(frozen=True, eq=False)
class LongDreams:
    """Frames from every segment of dreams, in pairs of neighbours, and real ones."""

    length: int  # steps of a dream
    pairs: np.ndarray  # [d, segments, k, 2, H, W, 3] uint8
    film: np.ndarray  # [len(ages), H, W, 3] of the first dream
    ages: np.ndarray  # [...] steps that the film shows
    last: np.ndarray  # [f, H, W, 3] the end of the first dream, every frame of it
    real: np.ndarray  # [e, k, 2, H, W, 3] uint8, of e episodes


def dream_long(dreamer: Dreamer, episodes: Sequence[Episode], actions: int, dreams: int, length: int) -> LongDreams:
    """Dreams from the first frames of the episodes, under sticky-random actions, terminations passed over.

    As many pairs of frames are taken of each dream's segments as give a segment and the real episodes equal numbers.
    """
    n = dreamer.context
    usable = [episode for episode in episodes if len(episode) > n]
    chosen = [usable[i % len(usable)] for i in range(dreams)]
    past = np.stack([episode.frames[:n] for episode in chosen])
    rows = np.stack([sticky_actions(actions, n - 1 + length, seed) for seed in range(dreams)])
    rows[:, : n - 1] = [episode.actions[: n - 1] for episode in chosen]
    latents = dreamer.dream(past, rows, f"dream {length} steps")
    places = pair_places(length)
    taken = latents[:, places]  # [d, segments, k, 2, h, w, c]
    flat = dreamer.decode(taken.reshape(-1, *latents.shape[2:]))
    pairs = flat.reshape(*taken.shape[:4], *flat.shape[1:])
    ages = np.array([age for age in (1, 25, 50, 100, 200, 500, 1000) if age <= length])
    film = dreamer.decode(latents[0, ages - 1])
    last = dreamer.decode(latents[0, -_LAST:])
    return LongDreams(length, pairs, film, ages, last, _real_pairs(usable, places.shape[1]))


def pair_places(length: int, most: int = 16) -> np.ndarray:
    """Which steps are looked at, [SEGMENTS, k, 2]: neighbours, spread evenly over each segment."""
    size = length // SEGMENTS
    k = min(most, size // 2)
    first = np.linspace(0, size - 2, k).astype(int)
    places: np.ndarray = (np.arange(SEGMENTS) * size)[:, None, None] + first[None, :, None] + np.arange(2)
    return places


def _real_pairs(episodes: Sequence[Episode], k: int) -> np.ndarray:
    places = [np.linspace(0, len(episode) - 2, k).astype(int) for episode in episodes]
    return np.stack([e.frames[at[:, None] + np.arange(2)] for e, at in zip(episodes, places, strict=True)])


def statistics(pairs: np.ndarray) -> dict[str, np.ndarray]:
    """Of pairs of neighbouring frames [..., 2, H, W, 3], in grey levels, each [...].

    brightness: mean. contrast: deviation. sharpness: mean step between neighbouring pixels. motion: mean change.
    """
    x = pairs.astype(np.float32)
    first = x[..., 0, :, :, :]
    return {
        "brightness": first.mean(axis=(-3, -2, -1)),
        "contrast": first.std(axis=(-3, -2, -1)),
        "sharpness": np.abs(np.diff(first, axis=-2)).mean(axis=(-3, -2, -1)),
        "motion": np.abs(x[..., 1, :, :, :] - first).mean(axis=(-3, -2, -1)),
    }


def held(by_segment: dict[str, np.ndarray]) -> np.ndarray:
    """Which dreams [d] hold, given each statistic by dream and segment, [d, segments]."""
    holds = np.ones(len(next(iter(by_segment.values()))), bool)
    for name, values in by_segment.items():
        ratio = (values + 1e-3) / (values[:, :1] + 1e-3)
        holds &= (np.abs(np.log(ratio)) <= np.log(FACTORS[name])).all(axis=1)
    return holds


def stability_rows(long: LongDreams, vgg: bool) -> list[Row]:
    """Share of dreams that hold, the statistics of the last segment, and FD-VGG16 by segment."""
    dreams = np.arange(len(long.pairs))
    of_dreams = {name: values.mean(axis=2) for name, values in statistics(long.pairs).items()}  # [d, segments]
    of_real = {name: values.mean(axis=1) for name, values in statistics(long.real).items()}  # [e]
    note = f"of {len(dreams)} dreams of {long.length} steps, sticky-random actions"
    rows = [Row(SECTION, HELD, percent(mean(held(of_dreams), dreams)), "%", 0, note=note)]
    spans = segment_names(long.length)
    for name, values in of_dreams.items():
        baselines = {
            f"steps {spans[0]}": mean(values[:, 0], dreams),
            "real": mean(of_real[name], np.arange(len(long.real))),
        }
        rows.append(Row(SECTION, f"{name}, steps {spans[-1]}", mean(values[:, -1], dreams), "", 1, baselines))
    return [*rows, *(_frechet_rows(long) if vgg else [])]


def segment_names(length: int) -> list[str]:
    """For example `1-250`."""
    size = length // SEGMENTS
    return [f"{i * size + 1}-{(i + 1) * size}" for i in range(SEGMENTS)]


def _frechet_rows(long: LongDreams) -> list[Row]:
    """Each segment against real frames, beside other real frames of equal number against the same ones."""
    order = np.random.default_rng(0).permutation(len(long.real))  # players take turns: no half is of one of them
    first, second = (long.real[order[half::2], :, 0] for half in (0, 1))
    if not len(second):
        return [Row(SECTION, "FD-VGG16", None, note="needs two real episodes or more")]
    count = min(long.pairs[:, 0, :, 0].shape[0] * long.pairs.shape[2], *(len(x) * x.shape[1] for x in (first, second)))
    reference, floor = (_Set.of(frames, count) for frames in (first, second))
    real = {"real against real": _distance(floor, reference)}
    rows = []
    for i, span in enumerate(segment_names(long.length)):
        segment = _Set.of(long.pairs[:, i, :, 0], count)
        note = f"{count} frames a set" if i == 0 else ""
        rows.append(Row(SECTION, f"FD-VGG16, steps {span}", _distance(segment, reference), "", 0, real, note))
    return rows


@dataclass(frozen=True, eq=False)
class _Set:
    """Features of some frames, and the dream or episode that each comes from."""

    features: np.ndarray  # [m, 512]
    groups: np.ndarray  # [m]

    @staticmethod
    def of(frames: np.ndarray, count: int) -> _Set:
        """At most `count` of frames [groups, k, H, W, 3], spread evenly."""
        groups, k = frames.shape[:2]
        rows = np.linspace(0, groups * k - 1, count).astype(int)
        flat = frames.reshape(groups * k, *frames.shape[2:])
        return _Set(vgg_features(flat[rows]), rows // k)


def _distance(x: _Set, reference: _Set) -> Estimate:
    """The distance, and how it varies with the dreams or episodes in `x`.

    A set with repeated rows is further from everything, so the replicates are moved to have the value as their mean.
    """

    def of_rows(rows: np.ndarray) -> float:
        return frechet_distance(x.features[rows], reference.features)

    drawn = statistic(of_rows, x.groups, _RESAMPLES)
    return Estimate(drawn.value, drawn.replicates - drawn.replicates.mean() + drawn.value, drawn.groups)
