import gymnasium as gym
import numpy as np
import pytest

from neural_env.envs.real_doom import RealDoom
from neural_env.wrappers import NoiseAugmentedContext


def levels(env, seed=0, steps=5):
    """What info tells, and what the dream is stepped with."""
    told = [env.reset(seed=seed)[1]["context_noise"]]
    dialled = []
    for _ in range(steps):
        dialled.append(env.unwrapped.context_noise)
        told.append(env.step(0)[4]["context_noise"])
    assert told[1:] == dialled and told[0] == dialled[0]
    return dialled


def test_a_level_is_kept(dream):
    assert levels(NoiseAugmentedContext(dream)) == [0.1] * 5
    assert levels(NoiseAugmentedContext(dream, level=0.7)) == [0.7] * 5


def test_the_dream_is_the_one_that_has_this_level_from_the_start(dream, make_dream):
    other = make_dream(context_noise=0.4)
    wrapped = NoiseAugmentedContext(dream, level=0.4)
    for env in (other, wrapped):
        env.reset(seed=3)
    for action in (1, 2, 0):
        assert np.array_equal(wrapped.step(action)[0], other.step(action)[0])
    plain = dream
    plain.unwrapped.context_noise = 0.0
    plain.reset(seed=3)
    assert not np.array_equal(plain.step(1)[0], wrapped.step(1)[0])
    other.close()


def test_breakpoints_are_joined_by_lines_and_begin_anew_with_each_episode(dream):
    env = NoiseAugmentedContext(dream, schedule=[[1, 0.0], [3, 0.4]])
    assert levels(env) == pytest.approx([0.0, 0.0, 0.2, 0.4, 0.4])
    assert levels(env, steps=3) == pytest.approx([0.0, 0.0, 0.2])


def test_a_drawn_level_lasts_an_episode_or_a_step_and_follows_from_the_seed(dream):
    episode = NoiseAugmentedContext(dream, schedule=("uniform", 0.2, 0.6))
    step = NoiseAugmentedContext(dream, schedule=["uniform", 0.2, 0.6, "step"])
    for env, distinct in ((episode, 1), (step, 5)):
        first, second = levels(env, seed=1), levels(env, seed=None)
        assert len(set(first)) == distinct and all(0.2 <= level <= 0.6 for level in first)
        assert first != second
        assert [levels(env, seed=1), levels(env, seed=None)] == [first, second]
        assert levels(env, seed=2) != first


def test_the_draws_leave_the_environments_own_stream_alone(dream):
    def starts(env):
        shown = [env.reset(seed=5)[0], *(env.reset()[0] for _ in range(3))]
        return shown

    drawn = starts(NoiseAugmentedContext(dream, schedule=["uniform", 0.0, 0.7, "step"]))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, starts(dream), strict=True))


def test_an_environment_that_was_never_seeded_draws_too(make_dream):
    env = NoiseAugmentedContext(make_dream(), schedule=["uniform", 0.1, 0.7])
    assert 0.1 <= env.reset()[1]["context_noise"] <= 0.7
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 0.8}, r"in \[0, 0.7\], got 0.8"),
        ({"level": -0.1}, r"in \[0, 0.7\]"),
        ({"level": True}, "must be a number"),
        ({"level": 0.1, "schedule": [[0, 0.1]]}, "not both"),
        ({"schedule": []}, "schedule must be"),
        ({"schedule": "uniform"}, "schedule must be"),
        ({"schedule": ["uniform", 0.1]}, "schedule must be"),
        ({"schedule": ["uniform", 0.1, 0.2, "day"]}, "schedule must be"),
        ({"schedule": ["uniform", 0.3, 0.2]}, "low <= high"),
        ({"schedule": [[3, 0.1], [3, 0.2]]}, "rising steps"),
        ({"schedule": [[0.5, 0.1]]}, "schedule must be"),
        ({"schedule": [1, 2]}, "schedule must be"),
        ({"schedule": [[0, 0.9]]}, r"in \[0, 0.7\], got 0.9"),
    ],
)
def test_what_is_no_schedule_is_refused(dream, arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseAugmentedContext(dream, **arguments)


def test_only_a_dream_has_a_context_to_corrupt():
    real = RealDoom("take_cover")
    with pytest.raises(TypeError, match="wraps a NeuralDoom, got RealDoom"):
        NoiseAugmentedContext(real)
    real.close()


def test_stepping_before_the_reset_is_refused(make_dream):
    env = NoiseAugmentedContext(make_dream())
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.close()
