import numpy as np
import pytest

from neural_env.data.shards import Dataset
from neural_env.data.summary import summary_of

# `toy_folder`: seeds 0 to 23, of which 0 to 6 were played at random; see conftest.py


def test_counts_are_those_of_the_episodes(toy_folder):
    dataset = Dataset.open(toy_folder)
    summary = summary_of(dataset)
    episodes = [e for split in ("train", "validation", "test") for e in dataset.episodes(split)]
    assert {split: size.episodes for split, size in summary.sizes.items()} == {"train": 18, "validation": 3, "test": 3}
    assert summary.total.episodes == 24 and summary.total.frames == sum(len(e.frames) for e in episodes)
    actions = np.concatenate([e.actions for e in episodes])
    assert summary.actions == pytest.approx({"noop": np.mean(actions == 0), "go": np.mean(actions == 1)})
    assert summary.events["kill"] == summary.events["death"] == 24 and summary.events["secret"] == 0
    assert summary.returns.mean == pytest.approx(np.mean([e.rewards.sum() for e in episodes]))
    assert (summary.lengths.min, summary.lengths.max) == (5, 7) and summary.terminated == 0.75


def test_the_skill_mix_is_told_by_policy(toy_folder):
    shares = {share.policy: share for share in summary_of(Dataset.open(toy_folder)).policies}
    assert shares["random"].episodes == 7 and shares["random"].skills is None and shares["random"].versions == (0, 0)
    assert shares["ppo"].episodes == 17 and shares["ppo"].versions == (10, 170)
    assert shares["ppo"].skills == pytest.approx((1 / 3, 17 / 3))


def test_bytes_a_frame_are_those_of_the_files(toy_folder):
    summary = summary_of(Dataset.open(toy_folder))
    size = sum(path.stat().st_size for path in toy_folder.glob("*.array_record"))
    assert summary.bytes_per_frame == pytest.approx(size / summary.total.frames)
