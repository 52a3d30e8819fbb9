import numpy as np
import pytest

from neural_env.data.episode import Episode
from neural_env.data.events import EVENTS, events_of, has


def episode(signals=None, rewards=None, terminated=True, t=20):
    if signals is None:
        signals = np.zeros((t + 1, 0))
    return Episode(
        frames=np.zeros((t + 1, 2, 2, 3), np.uint8),
        actions=np.zeros(t, np.int32),
        rewards=np.full(t, 4.0, np.float32) if rewards is None else np.asarray(rewards, np.float32),
        variables=np.zeros((t + 1, 0), np.float32),
        signals=np.asarray(signals, np.float32),
        terminated=terminated,
        truncated=not terminated,
        seed=2,
        policy="nobody",
    )


def happened(mask):
    return {name: np.flatnonzero(has(mask, name)).tolist() for name in EVENTS if has(mask, name).any()}


@pytest.mark.parametrize(
    ("signal", "event"),
    [
        ("killcount", "kill"),
        ("hitcount", "hit"),
        ("damage_taken", "damage"),
        ("dead", "death"),
        ("health", "pickup"),
        ("armor", "pickup"),
        ("weapons", "pickup"),
        ("itemcount", "pickup"),
        ("ammo", "ammo"),
        ("secretcount", "secret"),
    ],
)
def test_a_signal_that_rises_is_an_event_of_the_transition_that_raised_it_and_one_that_falls_is_none(signal, event):
    column = np.full((21, 2), 50.0)
    column[8:, 1] += 1  # frame 8 is the first that shows it: transition 7 led there
    column[12:, 1] -= 20
    mask = events_of(episode(column, terminated=False), ("position_x", signal))
    assert mask.dtype == np.uint16 and happened(mask) == {event: [7]}


def test_without_signals_termination_is_the_death_and_truncation_is_none():
    assert happened(events_of(episode(), ())) == {"death": [19]}
    assert happened(events_of(episode(terminated=False), ())) == {}


def test_with_signals_a_game_that_is_won_is_no_death():
    assert happened(events_of(episode(np.zeros((21, 1))), ("dead",))) == {}


def test_a_reward_far_from_the_usual_one_is_an_event():
    rewards = np.full(20, -4.0)
    rewards[[3, 11]] = 96, -9
    assert happened(events_of(episode(rewards=rewards, terminated=False), ())) == {"reward": [3]}
    assert happened(events_of(episode(rewards=np.full(20, -0.0001), terminated=False), ())) == {}


def test_rewards_that_always_differ_are_no_events():
    rewards = np.random.default_rng(0).uniform(-1, 1, 20)
    assert happened(events_of(episode(rewards=rewards, terminated=False), ())) == {}


def test_an_unknown_event_is_refused_with_the_list():
    with pytest.raises(ValueError, match="unknown event 'win'; choose one of kill, hit"):
        has(np.zeros(3, np.uint16), "win")
