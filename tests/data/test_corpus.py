import itertools
from dataclasses import replace

import numpy as np
import pytest

from neural_env.data.corpus import Corpus, game_of, material_of, thinned
from neural_env.data.episode import SPLITS, Episode
from neural_env.data.mixture import Mixture
from neural_env.data.recorder import Recorder
from neural_env.data.shards import Dataset
from neural_env.game import GameConfig

TOY = GameConfig("toy", ("noop", "go"), ("health",), 4, (6, 8))


def episode(seed, steps, *, skill=None):
    rng = np.random.default_rng(seed)
    return Episode(
        frames=rng.integers(0, 256, (steps + 1, 6, 8, 3), np.uint8),
        actions=rng.integers(0, 2, steps).astype(np.int32),
        rewards=np.ones(steps, np.float32),
        variables=rng.normal(size=(steps + 1, 1)).astype(np.float32),
        signals=np.zeros((steps + 1, 0), np.float32),
        terminated=True,
        truncated=False,
        seed=seed,
        policy="random" if skill is None else "ppo",
        policy_version=0 if skill is None else 1,
        skill=skill,
    )


def record(folder, episodes, game=TOY, episodes_per_shard=2):
    with Recorder(folder, game, policy="p", signal_names=(), episodes_per_shard=episodes_per_shard) as recorder:
        for each in episodes:
            recorder.add(each)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random play with all splits, and play of an agent in training episodes alone."""
    root = tmp_path_factory.mktemp("data")
    first = record(root / "random", [episode(seed, 5 + seed % 3) for seed in range(12)])
    return first, record(root / "agent", [episode(seed, 9, skill=float(seed)) for seed in range(22, 28)])


@pytest.fixture(scope="module")
def corpus(folders):
    return Corpus.open(folders)


def test_the_episodes_are_the_first_datasets_and_then_the_next_ones(corpus, folders):
    one, other = (Dataset.open(folder) for folder in folders)
    for split in SPLITS:
        seeds = [e.seed for dataset in (one, other) for e in dataset.episodes(split)]
        assert [e.seed for e in corpus.episodes(split)] == seeds == corpus.index(split).seeds.tolist()
        assert corpus.num_frames(split) == one.num_frames(split) + other.num_frames(split)
    assert corpus.num_frames("validation") > 0 == other.num_frames("validation")
    assert corpus.game == TOY == game_of(one)


def test_a_mixture_weighs_the_union(corpus):
    index = corpus.index("train")
    starts = np.cumsum([0, *(index.lengths + 1)])
    windows = np.concatenate([np.arange(a, b - 1) for a, b in itertools.pairwise(starts)])
    share = Mixture(random=1.0, late=3.0).probabilities(index, starts, windows)
    skills = index.skills[np.searchsorted(starts, windows, side="right") - 1]
    assert share[np.isnan(skills)].sum() == pytest.approx(0.25)
    assert share[skills >= 26].sum() == pytest.approx(0.75)


def test_provenance_lists_every_dataset_with_the_frames_used(folders):
    whole, bounded = Corpus.open(folders), Corpus.open(folders, max_frames=20)
    hashes = [Dataset.open(folder).manifest_hash for folder in folders]
    assert [part["manifest_hash"] for part in whole.provenance()] == hashes
    assert [part["manifest_hash"] for part in bounded.provenance()] == hashes
    assert whole.provenance()[1]["frames"] == {"train": 60, "validation": 0, "test": 0}
    assert bounded.provenance()[1]["frames"] == {"train": 20, "validation": 0, "test": 0}


def test_a_worlds_provenance_is_summed_over_its_datasets(folders):
    listed = Corpus.open(folders).provenance()
    found = material_of({"data": listed})
    assert found.frames["train"] == sum(part["frames"]["train"] for part in listed) > 60
    assert found.policies == ("p",) and found.hashes == tuple(part["manifest_hash"] for part in listed)
    assert material_of({"data": listed[0]}).frames == listed[0]["frames"]  # as the first worlds have it
    untold = material_of({"data": [listed[0], {"policy": "q"}]})
    assert untold.frames == {} and untold.policies == ("p", "q")
    assert material_of({}).frames == {}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Fifty shards of ten frames each."""
    seeds = [seed for seed in range(70) if seed % 10 > 1][:50]
    folder = record(tmp_path_factory.mktemp("long") / "data", [episode(s, 9) for s in seeds], episodes_per_shard=1)
    return Dataset.open(folder)


@pytest.mark.parametrize("limit", [1, 9, 10, 25, 100, 333, 500, 10_000])
def test_a_bound_is_kept_by_whole_shards_and_at_least_one(long, limit):
    frames = thinned(long, limit).num_frames("train")
    assert frames == max(10, 10 * (min(limit, 500) // 10))


@pytest.mark.parametrize("limit", [50, 100, 200, 300])
def test_what_is_drawn_is_spread_from_the_first_to_the_last(long, limit):
    kept = {shard.file for shard in thinned(long, limit).manifest.shards}
    places = np.array([i for i, shard in enumerate(long.manifest.shards) if shard.file in kept])
    gaps = np.diff([-1, *places, 50])
    assert gaps.max() <= 2.7 * 500 / limit  # by Steinhaus' theorem there are gaps of three sizes


def test_a_larger_bound_draws_all_that_a_smaller_one_did(long):
    drawn = [{shard.file for shard in thinned(long, limit).manifest.shards} for limit in (30, 70, 200, 450, 500)]
    assert all(less < more for less, more in itertools.pairwise(drawn))


def test_every_split_that_has_episodes_keeps_some(folders):
    bounded = Corpus.open(folders, max_frames=1)
    assert all(bounded.num_frames(split) > 0 for split in SPLITS)
    assert [e.seed for e in bounded.episodes("train")] == bounded.index("train").seeds.tolist()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"scenario": "other"}, "scenario 'toy'"),
        ({"action_names": ("noop", "stop")}, r"action names \('noop', 'go'\)"),
        ({"variable_names": ("ammo",)}, r"variable names \('health',\)"),
        ({"frame_skip": 2}, "frame skip 4"),
    ],
)
def test_datasets_of_two_games_are_refused_with_what_differs(folders, tmp_path, change, what):
    other = record(tmp_path / "other", [episode(2, 4)], game=replace(TOY, **change))
    with pytest.raises(ValueError, match=rf"of one game: .*random has the {what}, .*other .*; leave") as caught:
        Corpus.open([folders[0], other])
    assert str(other) in str(caught.value)


def test_one_dataset_given_twice_is_refused(folders):
    with pytest.raises(ValueError, match="are the same dataset: give it once"):
        Corpus.open([folders[0], folders[1], folders[0]])


def test_no_dataset_and_no_frames_are_refused(folders):
    with pytest.raises(ValueError, match="name one dataset folder or more"):
        Corpus.open([])
    with pytest.raises(ValueError, match="at most 0 frames of a dataset leaves none"):
        Corpus.open(folders, max_frames=0)
