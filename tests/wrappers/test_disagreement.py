import gymnasium as gym
import numpy as np
import pytest

from neural_env.envs.real_doom import RealDoom
from neural_env.wrappers import ActionMapping, Disagreement
from neural_env.wrappers.spread import spread

KINDS = ("samples", "levels")


def play(env, seed=0, steps=4):
    observation, info = env.reset(seed=seed)
    return [(observation, 0.0, False, False, info), *(env.step(i % 3) for i in range(steps))]


def told(shown, key="disagreement"):
    return [step[4][key] for step in shown]


def test_the_spread_is_the_mean_standard_deviation_in_grey_levels():
    base = np.full((4, 5, 3), 100, np.uint8)
    assert spread(np.stack([base, base])) == 0.0
    assert spread(np.stack([base, base + 10])) == 5.0
    half = base.copy()
    half[:2] += 20
    assert spread(np.stack([base, half])) == 5.0
    assert spread(np.stack([base * 0, base * 0 + 255])) == 127.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_dreams_own_course_is_not_touched(dream, kind):
    alone = play(dream)
    watched = play(Disagreement(dream, samples=3, kind=kind))
    for a, b in zip(alone, watched, strict=True):
        assert np.array_equal(a[0], b[0]) and a[1:4] == b[1:4] and a[4]["health"] == b[4]["health"]
    assert dream.unwrapped.context_noise == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_it_follows_from_the_seed_and_is_zero_at_the_start(dream, kind):
    env = Disagreement(dream, samples=2, kind=kind)
    first, second = told(play(env, seed=1)), told(play(env, seed=None))
    assert first[0] == 0.0 and min(first[1:]) > 0 and all(type(value) is float for value in first)
    assert [told(play(env, seed=1)), told(play(env, seed=None))] == [first, second]
    assert first != second


def test_samples_are_branches_with_luck_of_their_own(dream, monkeypatch):
    env = Disagreement(dream, samples=3)
    env.reset(seed=0)
    snapshot, kept = dream.unwrapped.get_state(), []
    original = type(dream.unwrapped).branch

    def branch(self, state, actions, seed=None):
        kept.append((list(actions), seed))
        return original(self, state, actions, seed)

    monkeypatch.setattr(type(dream.unwrapped), "branch", branch)
    value = told([env.step(2)])[0]
    ((actions, seed),) = kept
    assert actions == [2, 2, 2]
    assert value == spread(dream.unwrapped.branch(snapshot, actions, seed=seed).frames)


def test_levels_share_the_luck_of_the_step_and_differ_in_the_noise(dream):
    env = Disagreement(dream, samples=3, kind="levels")
    env.reset(seed=0)
    snapshot, frames = dream.unwrapped.get_state(), []
    value = told([env.step(1)])[0]
    for level in (0.0, 0.35, 0.7):
        dream.unwrapped.context_noise = level
        frames.append(dream.unwrapped.branch(snapshot, [1]).frames[0])
    assert value == spread(np.stack(frames))


def test_a_dream_that_is_too_unsure_is_truncated(dream):
    values = told(play(Disagreement(dream, samples=2)))[1:]
    limit = sorted(values)[-2]
    env = Disagreement(dream, samples=2, truncate_above=limit)
    env.reset(seed=0)
    for i, value in enumerate(values):
        _, _, terminated, truncated, _ = env.step(i % 3)
        assert (terminated, truncated) == (False, value > limit)
        if truncated:
            break
    else:
        pytest.fail("never truncated")


def test_two_kinds_can_be_told_at_once(dream):
    env = Disagreement(Disagreement(dream, 2, "samples", info_key="luck"), 2, "levels", info_key="memory")
    *_, info = play(env)[-1]
    assert info["luck"] > 0 and info["memory"] > 0


def test_an_invalid_action_and_a_missing_reset_are_the_environments_to_refuse(make_dream):
    env = Disagreement(make_dream(), samples=2)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match="1 move_left"):
        env.step(7)
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 1}, "at least 2"),
        ({"samples": 2.0}, "at least 2"),
        ({"kind": "luck"}, "unknown kind 'luck'; choose one of samples, levels"),
    ],
)
def test_what_gives_no_spread_is_refused(dream, arguments, message):
    with pytest.raises(ValueError, match=message):
        Disagreement(dream, **arguments)


def test_it_needs_a_dream_and_the_dreams_own_actions(dream):
    real = RealDoom("take_cover")
    with pytest.raises(TypeError, match="wraps a NeuralDoom"):
        Disagreement(real)
    real.close()
    with pytest.raises(ValueError, match="put ActionMapping around it"):
        Disagreement(ActionMapping(dream, actions=["move_left", "noop"]))
