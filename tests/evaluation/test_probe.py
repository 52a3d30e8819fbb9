"""The judge: it learns what there is to learn, and nothing where there is nothing."""

import numpy as np
import pytest

from neural_env.evaluation.classifier import clips_of, two_sample_accuracy
from neural_env.evaluation.probe import folds_of, held_out

CLIPS, FRAMES = 48, 4


def clips(seed, noise=0):
    rng = np.random.default_rng(seed)
    smooth = rng.integers(40, 200, (CLIPS, FRAMES, 4, 6, 3)).repeat(8, axis=2).repeat(8, axis=3)
    return np.clip(smooth + noise * rng.normal(size=smooth.shape), 0, 255).astype(np.uint8)


GROUPS = np.arange(CLIPS) // 4


def test_real_against_real_is_about_even():
    accuracy = two_sample_accuracy(clips(0), clips(1), GROUPS, steps=60)
    assert 0.3 < accuracy.value < 0.7 and accuracy.low < 0.5 < accuracy.high


def test_what_can_be_told_apart_is():
    assert two_sample_accuracy(clips(0), clips(1, noise=12), GROUPS, steps=60).low > 0.8


def test_a_clip_is_judged_by_a_network_that_saw_nothing_of_its_episode():
    """Labels that only an episode's own colour gives away can't be learned from other episodes."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 1, 1, 1, 3))
    frames = np.broadcast_to(colours[GROUPS], (CLIPS, FRAMES, 32, 48, 3)).astype(np.uint8)
    labels = (np.random.default_rng(1).permutation(12) % 2)[GROUPS].astype(np.int32)
    judged = held_out(lambda rows: frames[rows], labels, GROUPS, np.ones(CLIPS, bool), 2, 60, "test")
    assert np.mean(judged == labels) < 0.85


@pytest.mark.parametrize("episodes", [8, 12, 50])
@pytest.mark.parametrize("players", [2, 3])
def test_no_fold_is_of_one_player_where_players_take_turns(episodes, players):
    groups = np.arange(episodes).repeat(3) + 5
    folds = folds_of(groups)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    assert np.bincount(folds[::3]).tolist() == [episodes // 2] * 2
    assert all(len(set(np.arange(episodes)[folds[::3] == fold] % players)) == players for fold in (0, 1))


def test_one_episode_is_not_enough():
    with pytest.raises(ValueError, match="clips of 2 episodes or more, got 1: play more episodes"):
        held_out(lambda rows: rows, np.zeros(3), np.zeros(3), np.ones(3, bool), 2, 1, "test")


def test_roll_outs_are_cut_into_clips_in_order():
    frames = np.arange(2 * 7).reshape(2, 7, 1, 1, 1).repeat(3, axis=-1)
    assert clips_of(frames, 3)[..., 0, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [7, 8, 9], [10, 11, 12]]
