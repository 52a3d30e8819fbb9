import json
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import safetensors.numpy

from neural_env.data import episode as module
from neural_env.data.episode import SEGMENT_TRANSITIONS, Episode, cut, from_bytes, join, split_of, to_bytes


def make(t=10, v=1, seed=3, terminated=True, truncated=False, s=2, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "frames": rng.integers(0, 256, (t + 1, 6, 8, 3), np.uint8),
        "actions": rng.integers(0, 3, t).astype(np.int32),
        "rewards": rng.normal(size=t).astype(np.float32),
        "variables": rng.normal(size=(t + 1, v)).astype(np.float32),
        "signals": rng.normal(size=(t + 1, s)).astype(np.float32),
        "policy": "nobody",
        "policy_version": 7,
        "skill": 12.5,
    }
    return Episode(**{**arrays, "seed": seed, **changes}, terminated=terminated, truncated=truncated)


def assert_same(first, second):
    for name in ("frames", "actions", "rewards", "variables", "signals"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.dtype == b.dtype and np.array_equal(a, b)
    for name in ("terminated", "truncated", "seed", "policy", "policy_version", "skill"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize("t", [1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("v", [0, 2])
def test_an_episode_survives_the_round_trip_through_records_unchanged(t, v):
    episode = make(t, v, s=3 * v)
    records = [to_bytes(segment) for segment in cut(episode, scenario="basic", index=0)]
    assert_same(episode, join([from_bytes(record) for record in records]))


def test_segments_hold_at_most_64_transitions_and_share_their_border_frames():
    segments = cut(make(130), scenario="basic", index=0)
    assert [len(s.actions) for s in segments] == [64, 64, 2]
    assert [len(s.frames) for s in segments] == [65, 65, 3]
    assert [s.header.start for s in segments] == [0, 64, 128]
    for before, after in pairwise(segments):
        assert np.array_equal(before.frames[-1], after.frames[0])


@pytest.mark.parametrize(("terminated", "truncated"), [(True, False), (False, True), (False, False)])
def test_only_the_last_segment_carries_the_end(terminated, truncated):
    segments = cut(make(130, terminated=terminated, truncated=truncated), scenario="basic", index=0)
    assert [s.header.terminated for s in segments] == [False, False, terminated]
    assert [s.header.truncated for s in segments] == [False, False, truncated]


def test_equal_segments_give_equal_bytes():
    first, second = (cut(make(20), scenario="basic", index=4)[0] for _ in range(2))
    assert to_bytes(first) == to_bytes(second)


def test_an_episode_is_not_both_terminated_and_truncated():
    with pytest.raises(ValueError, match="both terminated and truncated"):
        make(terminated=True, truncated=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros((10, 6, 8, 3), np.uint8)}, "10 actions need 11 frames, got 10"),
        ({"frames": np.zeros((11, 6, 8, 3), np.float32)}, "frames must be uint8 of rank 4, got float32"),
        ({"frames": np.zeros((11, 6, 8, 4), np.uint8)}, "frames are RGB"),
        ({"actions": np.zeros(10, np.int64)}, "actions must be int32 of rank 1, got int64"),
        ({"rewards": np.zeros(9, np.float32)}, "10 actions need 10 rewards, got 9"),
        ({"variables": np.zeros((10, 1), np.float32)}, "10 actions need 11 variables, got 10"),
        ({"variables": np.zeros(11, np.float32)}, "variables must be float32 of rank 2"),
        ({"signals": np.zeros((10, 2), np.float32)}, "10 actions need 11 signals, got 10"),
        ({"signals": np.zeros((11, 2))}, "signals must be float32 of rank 2, got float64"),
        ({"policy_version": -1}, "policy_version must be at least 0, got -1"),
        ({"skill": float("nan")}, "skill must be a finite number, or None"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_is_expected(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_skill_that_nobody_knows_stays_unknown():
    episode = make(skill=None)
    assert join([from_bytes(to_bytes(segment)) for segment in cut(episode, scenario="basic", index=0)]).skill is None


def test_an_episode_without_transitions_is_refused():
    with pytest.raises(ValueError, match="at least one transition"):
        make(t=0)


def test_a_missing_segment_is_noticed_wherever_it_was():
    segments = cut(make(200), scenario="basic", index=0)
    for missing in range(len(segments)):
        with pytest.raises(ValueError, match=r"expected|its segments hold"):
            join([s for i, s in enumerate(segments) if i != missing])
    with pytest.raises(ValueError, match="at least one segment"):
        join([])


def test_segments_of_two_episodes_are_not_joined():
    first = cut(make(100, seed=1), scenario="basic", index=0)
    second = cut(make(100, seed=2), scenario="basic", index=1)
    with pytest.raises(ValueError, match="expected"):
        join([first[0], second[1]])


def test_a_damaged_record_is_refused():
    record = to_bytes(cut(make(), scenario="basic", index=0)[0])
    for damaged in (record[:-1], record[:40], b"", b"\xff" * 100, b"\x02" + bytes(7) + b"[]"):
        with pytest.raises(ValueError, match="damaged"):
            from_bytes(damaged)


def test_a_record_of_another_schema_version_is_refused(monkeypatch):
    monkeypatch.setattr(module, "SCHEMA_VERSION", 99)
    record = to_bytes(cut(make(), scenario="basic", index=0)[0])
    monkeypatch.undo()
    with pytest.raises(ValueError, match="schema version 99, this reader knows 2 and 3: collect anew"):
        from_bytes(record)


def test_the_header_is_plain_json():
    record = to_bytes(cut(make(seed=7), scenario="basic", index=4)[0])
    length = int.from_bytes(record[:8], "little")
    header = json.loads(json.loads(record[8 : 8 + length])["__metadata__"]["header"])
    assert header["scenario"] == "basic" and header["seed"] == 7 and header["episode"] == 4


def test_every_seed_has_one_split_and_the_splits_are_a_tenth_a_tenth_and_the_rest():
    splits = [split_of(seed) for seed in range(1000)]
    assert {split: splits.count(split) for split in splits} == {"test": 100, "validation": 100, "train": 800}
    assert split_of(10) == "test" and split_of(21) == "validation" and split_of(39) == "train"


def test_segments_are_never_longer_than_the_format_says():
    assert SEGMENT_TRANSITIONS == 64


COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 9, 255], [255, 0, 0], [7, 7, 7]], np.uint8)  # 1 and 3 are the same


def make_indexed(t=70, **changes):
    frames = np.random.default_rng(t).integers(0, len(COLOURS), (t + 1, 6, 8), np.uint8)
    return make(t, frames=frames, palette=COLOURS, **changes)


def stored(episode):
    return [to_bytes(segment) for segment in cut(episode, scenario="basic", index=0)]


def test_frames_in_a_palette_come_back_with_the_same_colours():
    episode = make_indexed()
    back = join([from_bytes(record) for record in stored(episode)])
    assert back.frames.ndim == 3 and (back.palette == COLOURS).all()
    assert back.in_rgb().frames.shape == (71, 6, 8, 3) and back.in_rgb().palette is None
    assert_same(back.in_rgb(), episode.in_rgb())


def test_a_palette_takes_a_third_of_the_bytes():
    episode = make_indexed()
    assert sum(map(len, stored(episode))) < 0.6 * sum(map(len, stored(episode.in_rgb())))


def test_equal_pictures_give_equal_records_whichever_of_two_equal_colours_was_drawn():
    episode = make_indexed()
    assert (episode.frames == 3).any()
    again = episode.in_rgb().in_palette(COLOURS)
    assert not (again.frames == 3).any()
    assert stored(again) == stored(episode)


def test_a_colour_that_the_palette_lacks_is_refused():
    with pytest.raises(ValueError, match=r"has colours that aren't in the palette"):
        make().in_palette(COLOURS)


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        (COLOURS[:3], "a palette of 3 colours has no row 4"),
        (np.zeros((257, 3), np.uint8), "1 to 256 RGB colours"),
        (np.zeros((5, 4), np.uint8), "1 to 256 RGB colours"),
        (COLOURS.astype(np.int32), "palette must be uint8"),
    ],
)
def test_palettes_that_make_no_picture_are_refused(palette, message):
    with pytest.raises(ValueError, match=message):
        make(1, frames=np.full((2, 6, 8), 4, np.uint8), palette=palette)


def test_segments_of_two_palettes_arent_joined():
    first, second = cut(make_indexed(), scenario="basic", index=0)
    with pytest.raises(ValueError, match="segments of 2 palettes"):
        join([first, replace(second, palette=COLOURS[::-1].copy())])


def old_record(segment):
    """As schema 2 had it: frame by frame, RGB."""
    header = json.dumps({**asdict(segment.header), "schema": 2}, sort_keys=True)
    names = ("frames", "actions", "rewards", "variables", "signals")
    arrays = {name: np.ascontiguousarray(getattr(segment, name)) for name in names}
    return safetensors.numpy.save(arrays, metadata={"header": header})


def test_records_of_schema_2_are_read():
    episode = make(70)
    records = [old_record(segment) for segment in cut(episode, scenario="basic", index=0)]
    assert_same(join([from_bytes(record) for record in records]), episode)
