from dataclasses import replace

import numpy as np
import pytest

from neural_env.data import recorder as module
from neural_env.data.episode import SPLITS, Episode
from neural_env.data.recorder import Recorder
from neural_env.data.shards import Dataset, ShardError, load_manifest, save_manifest
from neural_env.game import GameConfig

GAME = GameConfig("toy", ("noop", "go"), ("health",), 4, (6, 8))


def episode(seed, t=5, **changes):
    rng = np.random.default_rng(seed)
    fields = {
        "frames": rng.integers(0, 256, (t + 1, 6, 8, 3), np.uint8),
        "actions": rng.integers(0, 2, t).astype(np.int32),
        "rewards": rng.normal(size=t).astype(np.float32),
        "variables": rng.normal(size=(t + 1, 1)).astype(np.float32),
        "signals": rng.normal(size=(t + 1, 2)).astype(np.float32),
        "policy": "ppo",
        "policy_version": seed,
        "skill": float(seed),
    }
    return Episode(**{**fields, **changes}, terminated=True, truncated=False, seed=seed)


def recorder(folder, **changes):
    options = {"policy": "ppo", "signal_names": ("killcount", "dead"), "episodes_per_shard": 4, **changes}
    return Recorder(folder, GAME, **options)


def seeds(folder):
    dataset = Dataset.open(folder)
    return sorted(e.seed for split in SPLITS for e in dataset.episodes(split))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_recorded_episodes_are_there_after_the_run(tmp_path):
    with recorder(tmp_path) as run:
        for seed in range(25):
            run.add(episode(seed))
    assert seeds(tmp_path) == list(range(25)) and run.count == 25
    stored = {e.seed: e for e in Dataset.open(tmp_path).episodes("train")}
    assert np.array_equal(stored[7].frames, episode(7).frames) and stored[7].skill == 7.0
    assert Dataset.open(tmp_path).index("train").episodes.tolist() == [i for i in range(25) if i % 10 > 1]


def test_a_shard_is_written_when_it_is_full_and_a_killed_run_loses_only_what_came_after(tmp_path):
    run = recorder(tmp_path)
    for seed in range(2, 8):
        run.add(episode(seed))
    assert seeds(tmp_path) == [2, 3, 4, 5]  # nothing was flushed: as if the run had been killed here
    again = recorder(tmp_path)
    assert again.count == 4
    again.add(episode(6))
    again.flush()
    assert seeds(tmp_path) == [2, 3, 4, 5, 6]


def test_an_exception_in_the_run_loses_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), recorder(tmp_path) as run:
        run.add(episode(3))
        raise KeyboardInterrupt
    assert seeds(tmp_path) == [3]


def test_memory_is_bounded_by_writing_shards_early(tmp_path, monkeypatch):
    one = episode(2).frames.nbytes
    monkeypatch.setattr(module, "BUFFER_BYTES", 2 * one)
    run = recorder(tmp_path, episodes_per_shard=100)
    for seed in (2, 3, 10, 4, 5):
        run.add(episode(seed))
        assert sum(run._buffered(split) for split in SPLITS) <= 2 * one
    run.flush()
    assert seeds(tmp_path) == [2, 3, 4, 5, 10]


@pytest.mark.parametrize("count", [0, 1, 7, 10, 13, 20])
def test_going_on_from_a_checkpoint_repeats_no_episode_and_loses_none(tmp_path, count):
    with recorder(tmp_path) as run:
        for seed in range(20):
            run.add(episode(seed))
    again = recorder(tmp_path)
    again.truncate_to(count)
    assert again.count == count and seeds(tmp_path) == list(range(count))
    for seed in range(count, 22):
        again.add(episode(seed, t=6))
    again.flush()
    assert seeds(tmp_path) == list(range(22))
    lengths = {e.seed: len(e) for split in SPLITS for e in Dataset.open(tmp_path).episodes(split)}
    assert lengths == {seed: 5 if seed < count else 6 for seed in range(22)}


def test_truncation_leaves_no_files_behind(tmp_path):
    with recorder(tmp_path) as run:
        for seed in range(20):
            run.add(episode(seed))
        run.truncate_to(3)
    shards = load_manifest(tmp_path).shards
    named = {name for shard in shards for name in (shard.file, shard.index_file)}
    assert {name for name in contents(tmp_path) if "-" in name} == named


def test_a_count_beyond_the_recording_is_refused(tmp_path):
    run = recorder(tmp_path)
    run.add(episode(2))
    with pytest.raises(ValueError, match="holds 1 episodes, not 5: flush before"):
        run.truncate_to(5)


def test_a_seed_is_recorded_once(tmp_path):
    with recorder(tmp_path) as run:
        run.add(episode(2))
        with pytest.raises(ValueError, match="seed 2 is recorded already"):
            run.add(episode(2))
    with pytest.raises(ValueError, match="seed 2 is recorded already"):
        recorder(tmp_path).add(episode(2))


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": np.zeros((6, 8, 6, 3), np.uint8)},
        {"variables": np.zeros((6, 2), np.float32)},
        {"signals": np.zeros((6, 0), np.float32)},
    ],
)
def test_an_episode_of_another_shape_is_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="record one game"):
        recorder(tmp_path).add(episode(2, **changes))


def test_an_action_that_has_no_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="actions must index"):
        recorder(tmp_path).add(episode(2, actions=np.array([0, 0, 2, 0, 0], np.int32)))


def test_a_collected_dataset_is_extended_and_says_who_played(tmp_path):
    with recorder(tmp_path, policy="sticky_random(repeat=0.5)") as run:
        run.add(episode(2, policy="sticky_random(repeat=0.5)", policy_version=0, skill=None))
    save_manifest(replace(load_manifest(tmp_path), episodes=1), tmp_path)  # as `collect` leaves it
    with recorder(tmp_path) as run:
        run.add(episode(3))
    manifest = load_manifest(tmp_path)
    assert manifest.policy == "sticky_random(repeat=0.5) + ppo" and manifest.episodes is None
    index = Dataset.open(tmp_path).index("train")
    assert [index.policy_names[i] for i in index.policies] == ["sticky_random(repeat=0.5)", "ppo"]
    assert index.episodes.tolist() == [0, 1]


def test_another_game_in_the_folder_is_refused(tmp_path):
    recorder(tmp_path)
    with pytest.raises(ValueError, match="signal_names"):
        recorder(tmp_path, signal_names=())


def test_an_unfinished_collection_is_not_extended(tmp_path):
    recorder(tmp_path)
    save_manifest(replace(load_manifest(tmp_path), episodes=4), tmp_path)
    with pytest.raises(ValueError, match="isn't finished: collect again"):
        recorder(tmp_path)


def test_a_damaged_folder_is_reported(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ShardError, match="no JSON"):
        recorder(tmp_path)


def test_a_recorder_needs_room_for_an_episode(tmp_path):
    with pytest.raises(ValueError, match="episodes_per_shard must be at least 1, got 0"):
        recorder(tmp_path, episodes_per_shard=0)
