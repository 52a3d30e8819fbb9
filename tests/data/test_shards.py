import json
from dataclasses import replace

import numpy as np
import pytest

from neural_env.data.episode import SPLITS, Episode, split_of
from neural_env.data.shards import (
    MANIFEST,
    TEMPORARY,
    Dataset,
    Manifest,
    ShardError,
    load_manifest,
    save_manifest,
    write_shard,
)


def episode(seed, t=70):
    rng = np.random.default_rng(seed)
    return Episode(
        frames=rng.integers(0, 256, (t + 1, 6, 8, 3), np.uint8),
        actions=rng.integers(0, 3, t).astype(np.int32),
        rewards=rng.normal(size=t).astype(np.float32),
        variables=rng.normal(size=(t + 1, 1)).astype(np.float32),
        signals=np.cumsum(rng.random((t + 1, 2)) < 0.05, axis=0, dtype=np.float32),
        terminated=True,
        truncated=False,
        seed=seed,
        policy="nobody" if seed % 2 else "somebody",
        policy_version=seed // 2,
        skill=None if seed < 4 else float(seed),
    )


SIGNALS = ("killcount", "dead")


EPISODES = [episode(seed, t=60 + seed) for seed in range(12)]


@pytest.fixture
def folder(tmp_path):
    manifest = Manifest(
        scenario="take_cover",
        action_names=("noop", "move_left", "move_right"),
        variable_names=("health",),
        signal_names=SIGNALS,
        resolution=(6, 8),
        frame_skip=4,
        policy="nobody",
        first_seed=0,
        episodes=12,
        episodes_per_shard=20,
        max_episode_steps=525,
        code_version="0",
    )
    for split in SPLITS:
        mine = [(i, e) for i, e in enumerate(EPISODES) if e.split == split]
        path = tmp_path / f"{split}-00000.array_record"
        manifest = manifest.with_shard(
            write_shard(path, mine, scenario="take_cover", split=split, signal_names=SIGNALS)
        )
    save_manifest(manifest, tmp_path)
    return tmp_path


def read_all(folder, **options):
    dataset = Dataset.open(folder, **options)
    return [e for split in SPLITS for e in dataset.episodes(split)]


def change_manifest(folder, **changes):
    save_manifest(replace(load_manifest(folder), **changes), folder)


def change_shard(folder, file, **changes):
    shards = load_manifest(folder).shards
    change_manifest(folder, shards=tuple(replace(s, **changes) if s.file == file else s for s in shards))


TRAIN = "train-00000.array_record"


def test_episodes_come_back_bit_for_bit_and_in_order(folder):
    dataset = Dataset.open(folder)
    for split in SPLITS:
        found, expected = list(dataset.episodes(split)), [e for e in EPISODES if e.split == split]
        assert [e.seed for e in found] == [e.seed for e in expected]
        for a, b in zip(found, expected, strict=True):
            for name in ("frames", "actions", "rewards", "variables", "signals"):
                assert np.array_equal(getattr(a, name), getattr(b, name))
            for name in ("terminated", "truncated", "policy", "policy_version", "skill"):
                assert getattr(a, name) == getattr(b, name)


def test_no_seed_is_in_two_splits_and_each_is_where_it_belongs(folder):
    dataset = Dataset.open(folder)
    seeds = {split: {e.seed for e in dataset.episodes(split)} for split in SPLITS}
    assert sum(map(len, seeds.values())) == len(set.union(*seeds.values())) == 12
    assert all(split_of(seed) == split for split, group in seeds.items() for seed in group)


def test_the_dataset_says_what_it_is(folder):
    dataset = Dataset.open(str(folder))
    assert dataset.scenario == "take_cover" and dataset.resolution == (6, 8) and dataset.frame_skip == 4
    assert dataset.action_names == ("noop", "move_left", "move_right") and dataset.variable_names == ("health",)
    for split in SPLITS:
        assert dataset.num_frames(split) == sum(len(e.frames) for e in EPISODES if e.split == split)


def test_the_manifest_hash_names_the_contents(folder):
    before = Dataset.open(folder).manifest_hash
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(json.dumps(json.loads(text)))
    assert Dataset.open(folder).manifest_hash == before
    change_manifest(folder, policy="somebody")
    assert Dataset.open(folder).manifest_hash != before


def test_an_unknown_split_is_refused_with_the_list(folder):
    with pytest.raises(ValueError, match="'valid'; choose one of train, validation, test"):
        Dataset.open(folder).num_frames("valid")


@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_shard_is_an_error(folder, verify):
    (folder / TRAIN).unlink()
    with pytest.raises(ShardError, match="missing") as caught:
        read_all(folder, verify=verify)
    assert caught.value.path == folder / TRAIN


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_shard_is_an_error(folder, keep, verify):
    content = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ShardError, match="truncated" if verify else TRAIN):
        read_all(folder, verify=verify)


def test_a_flipped_byte_is_an_error(folder):
    content = bytearray((folder / TRAIN).read_bytes())
    content[len(content) // 3] ^= 1
    (folder / TRAIN).write_bytes(content)
    with pytest.raises(ShardError, match=r"altered.*sha256"):
        Dataset.open(folder)


def test_a_flipped_byte_is_an_error_even_unverified(folder):
    content = bytearray((folder / TRAIN).read_bytes())
    content[len(content) // 3] ^= 1
    (folder / TRAIN).write_bytes(content)
    with pytest.raises(ShardError):
        read_all(folder, verify=False)


def test_a_folder_without_a_manifest_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="no dataset here"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"schema": 2}', '{"schema": 2, "shards": [{}]}', "[]"])
def test_a_damaged_manifest_is_an_error(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ShardError, match=MANIFEST):
        Dataset.open(folder)


def test_a_foreign_schema_version_is_an_error(folder):
    change_manifest(folder, schema=1)
    with pytest.raises(ShardError, match="schema version is 1, this package reads 2 and 3: collect anew"):
        Dataset.open(folder)


def test_a_shard_with_records_of_another_schema_version_is_an_error(folder, monkeypatch):
    monkeypatch.setattr("neural_env.data.episode.READABLE", (4,))
    with pytest.raises(ShardError, match="the record has schema version 3"):
        read_all(folder)


@pytest.mark.parametrize(
    "lie",
    [
        {"episodes": 9, "frames": 593, "seeds": tuple(range(2, 11))},
        {"transitions": 1, "frames": 11},
        {"segments": 1},
        {"seeds": (2, 3, 4, 5, 6, 7, 8, 9, 12, 13)},
        {"split": "test"},
        {"frames": 5},
        {"episodes": 3},
    ],
)
def test_a_manifest_that_lies_about_a_shard_is_an_error(folder, lie):
    change_shard(folder, TRAIN, **lie)
    with pytest.raises(ShardError):
        read_all(folder, partial=True)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"resolution": (120, 160)}, "a frame has shape"),
        ({"variable_names": ("health", "ammo2")}, "a frame has 1 variables"),
        ({"signal_names": ("killcount",)}, "a frame has 2 signals"),
        ({"action_names": ("noop",)}, "an action outside"),
        ({"scenario": "basic"}, "it holds 'take_cover', the dataset is of 'basic'"),
    ],
)
def test_a_manifest_that_lies_about_the_dataset_is_an_error(folder, lie, message):
    change_manifest(folder, **lie)
    with pytest.raises(ShardError, match=message):
        read_all(folder)


def test_a_seed_that_is_named_twice_is_an_error(folder):
    shards = load_manifest(folder).shards
    change_manifest(folder, shards=(*shards, replace(shards[0], file="another")))
    with pytest.raises(ShardError, match="named more than once"):
        Dataset.open(folder)


def test_an_unfinished_dataset_is_refused_unless_asked_for(folder):
    change_manifest(folder, episodes=40)
    with pytest.raises(ShardError, match="12 of 40 episodes are there; collect again"):
        Dataset.open(folder)
    assert len(read_all(folder, partial=True)) == 12


def test_a_shard_refuses_an_episode_of_another_split(tmp_path):
    with pytest.raises(ValueError, match="seed 10 belongs to split 'test'"):
        write_shard(tmp_path / "x", [(0, episode(10))], scenario="basic", split="train", signal_names=SIGNALS)
    assert not (tmp_path / "x").exists()


def test_a_dataset_without_a_number_asked_for_is_always_complete(folder):
    change_manifest(folder, episodes=None)
    assert len(read_all(folder)) == 12


def test_the_index_tells_what_the_episodes_are_without_reading_them(folder):
    index = Dataset.open(folder).index("train")
    mine = [(i, e) for i, e in enumerate(EPISODES) if e.split == "train"]
    assert index.episodes.tolist() == [i for i, _ in mine]
    assert index.seeds.tolist() == [e.seed for _, e in mine]
    assert index.lengths.tolist() == [len(e) for _, e in mine]
    assert index.policy_versions.tolist() == [e.policy_version for _, e in mine]
    assert [index.policy_names[i] for i in index.policies] == [e.policy for _, e in mine]
    assert [None if np.isnan(skill) else skill for skill in index.skills] == [e.skill for _, e in mine]
    assert index.returns == pytest.approx([e.rewards.sum() for _, e in mine], abs=1e-4)
    assert np.array_equal(index.actions, np.concatenate([e.actions for _, e in mine]))


def test_events_are_asked_for_by_split_and_name(folder):
    events = Dataset.open(folder).events("train")
    kills = np.concatenate([np.diff(e.signals[:, 0]) for e in EPISODES if e.split == "train"])
    assert np.array_equal(events["kill"], kills > 0) and events["kill"].any()
    assert not events["secret"].any()


@pytest.mark.parametrize("verify", [True, False])
def test_an_altered_index_is_an_error(folder, verify):
    path = folder / "train-00000.index"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match="the index is altered") as caught:
        Dataset.open(folder, verify=verify).index("train")
    assert caught.value.path == path


def test_a_missing_index_is_an_error(folder):
    (folder / "train-00000.index").unlink()
    with pytest.raises(ShardError, match=r"train-00000\.index: the shard's index is missing"):
        Dataset.open(folder)


def test_a_shard_refuses_an_episode_with_other_signals(tmp_path):
    with pytest.raises(ValueError, match="an episode has 2 signals, the dataset's are none"):
        write_shard(tmp_path / "x", [(0, episode(3))], scenario="basic", split="train", signal_names=())


def test_a_shard_has_its_name_only_when_it_is_finished(tmp_path):
    def episodes():
        yield 0, episode(2)
        assert [path.suffix for path in tmp_path.iterdir()] == [TEMPORARY]

    write_shard(tmp_path / "x", episodes(), scenario="basic", split="train", signal_names=SIGNALS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.index"]
