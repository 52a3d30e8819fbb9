from itertools import pairwise

import numpy as np
import pytest

from neural_env.data.events import EVENTS
from neural_env.data.index import Index
from neural_env.data.mixture import Mixture

CONTEXT = 3
LENGTHS = np.array([6, 8, 5, 9, 7, 6, 10])  # transitions
STARTS = np.concatenate([[0], np.cumsum(LENGTHS + 1)])
WINDOWS = np.concatenate([np.arange(a + CONTEXT - 1, b - 1) for a, b in pairwise(STARTS)])
EPISODE = np.searchsorted(STARTS, WINDOWS, side="right") - 1


def index(skills=(np.nan, 5, 1, 3, 2, 4, 6), events=()):
    """One episode of a random player, six of a learning one; `events` are (episode, transition, kind)."""
    mask = np.zeros(LENGTHS.sum(), np.uint16)
    for episode, transition, kind in events:
        mask[LENGTHS[:episode].sum() + transition] |= 1 << EVENTS.index(kind)
    return Index(
        episodes=np.arange(7),
        seeds=np.arange(7),
        lengths=LENGTHS,
        returns=np.zeros(7),
        terminated=np.ones(7, bool),
        policy_versions=np.array([0, 0, 1, 2, 3, 4, 5]),
        skills=np.array(skills, float),
        policies=np.array([1, 0, 0, 0, 0, 0, 0]),
        actions=np.zeros(len(mask), np.int32),
        events=mask,
        policy_names=("ppo", "sticky_random"),
    )


def probabilities(mixture, **options):
    return mixture.probabilities(index(**options), STARTS, WINDOWS)


def shares(p):
    """How much of the draws each episode gets."""
    return np.bincount(EPISODE, p, minlength=7)


def test_uniform_is_uniform():
    assert np.allclose(probabilities(Mixture(uniform=3)), 1 / len(WINDOWS))


@pytest.mark.parametrize(
    ("name", "episodes"),
    [("random", [0]), ("early", [2, 4]), ("late", [1, 6])],
)
def test_a_component_draws_its_episodes_and_no_others(name, episodes):
    p = probabilities(Mixture(**{name: 1.0}))
    mine = np.isin(EPISODE, episodes)
    assert np.allclose(p, mine / mine.sum())


def test_where_a_skill_is_unknown_the_policy_version_says_what_is_early():
    p = probabilities(Mixture(early=1.0), skills=(np.nan, np.nan, 1, 3, 2, 4, 6))
    assert np.flatnonzero(shares(p)).tolist() == [1, 2]


def test_shares_are_ratios_and_add_up_to_one():
    p = probabilities(Mixture(random=1, early=1, late=2))
    assert p.sum() == pytest.approx(1) and (p >= 0).all()
    assert shares(p)[[0]].sum() == pytest.approx(0.25)
    assert shares(p)[[2, 4]].sum() == pytest.approx(0.25) and shares(p)[[1, 6]].sum() == pytest.approx(0.5)
    assert np.allclose(p, probabilities(Mixture(random=10, early=10, late=20)))


def test_an_event_is_drawn_where_it_is_near_the_windows_end():
    p = probabilities(Mixture(events=1.0, reach=2), events=[(3, 5, "kill")])
    row = STARTS[3] + 5  # the window whose last transition is the kill
    assert WINDOWS[p > 0].tolist() == [row, row + 1] and np.allclose(p[p > 0], 0.5)


def test_what_leads_to_an_event_is_drawn_too():
    p = probabilities(Mixture(events=1.0, reach=1, lead=2), events=[(3, 5, "damage")])
    row = STARTS[3] + 5
    assert WINDOWS[p > 0].tolist() == [row - 2, row - 1, row]


def test_an_event_never_counts_for_the_episode_before():
    p = probabilities(Mixture(events=1.0, reach=1, lead=50), events=[(3, 0, "damage"), (3, 8, "death")])
    assert set(EPISODE[p > 0]) == {3}


def test_an_event_never_counts_for_the_next_episode():
    p = probabilities(Mixture(events=1.0, reach=8), events=[(3, 8, "death")])
    assert set(EPISODE[p > 0]) == {3}


def test_a_rare_kind_of_event_gets_as_much_as_a_common_one():
    events = [(3, t, "hit") for t in range(2, 9)] + [(5, 4, "secret")]
    p = probabilities(Mixture(events=1.0, reach=1), events=events)
    assert shares(p)[3] == pytest.approx(0.5) and shares(p)[5] == pytest.approx(0.5)


def test_only_the_kinds_that_are_meant_count():
    events = [(3, 5, "hit"), (5, 4, "secret")]
    p = probabilities(Mixture(events=1.0, kinds=("secret",)), events=events)
    assert set(EPISODE[p > 0]) == {5}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "the shares are all 0"),
        ({"early": -1.0}, "the share early must be a number of at least 0, got -1"),
        ({"late": float("nan")}, "the share late"),
        ({"events": 1.0, "kinds": ("win",)}, r"unknown events \['win'\]; choose from kill"),
        ({"events": 1.0, "reach": 0}, "reach must be at least 1"),
        ({"events": 1.0, "lead": -1}, "lead must be at least 0"),
    ],
)
def test_shares_that_make_no_sense_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        Mixture(**shares)


def test_a_share_of_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="set the share events to 0"):
        probabilities(Mixture(events=1.0))
    only_learning = np.isin(EPISODE, range(1, 7))
    with pytest.raises(ValueError, match="no window is of the kind random: record such episodes"):
        Mixture(random=1.0).probabilities(index(), STARTS, WINDOWS[only_learning])


def test_windows_of_another_dataset_are_refused():
    with pytest.raises(ValueError, match="the index is of other episodes"):
        Mixture(uniform=1.0).probabilities(index(), 2 * STARTS, WINDOWS)
