"""The dream and the real game keep one contract: every test here runs on both."""

import copy
import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import neural_env  # noqa: F401  registers the environments
from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.real_doom import RealDoom


@dataclass
class Kind:
    """How to make one of the two."""

    id: str
    cls: type
    arguments: dict[str, Any]
    mortal: dict[str, Any]  # arguments with which an episode soon ends

    def make(self, **more):
        return self.cls(**self.arguments, **more)

    def registered(self, **more):
        return gym.make(self.id, **self.arguments, **more)


@pytest.fixture(scope="module")
def kinds(tiny_world_folder, mortal_world_folder):
    dream, mortal = ({"checkpoint": str(folder)} for folder in (tiny_world_folder, mortal_world_folder))
    real = {"scenario": "take_cover"}
    return {
        "dream": Kind("NeuralDoom-v0", NeuralDoom, dream, mortal),
        "real": Kind("RealDoom-v0", RealDoom, real, real),
    }


@pytest.fixture(scope="module", params=["dream", "real"])
def kind(request, kinds):
    return kinds[request.param]


@pytest.fixture(scope="module")
def shared(kind):
    """One environment for all tests that leave it usable: engines and compiled programs are slow to start."""
    env = kind.make(render_mode="rgb_array")
    yield env
    env.close()


@pytest.fixture
def env(shared):
    shared.reset(seed=0)
    return shared


@pytest.fixture
def fresh(kind):
    env = kind.make(render_mode="rgb_array")
    yield env
    env.close()


def play(env, seed=None, steps=6):
    """Everything that an episode shows, from reset on."""
    frame, info = env.reset(seed=seed)
    shown = [(frame, 0.0, False, False, info)]
    shown += [env.step(i % env.action_space.n) for i in range(steps)]
    return shown


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(first, second, strict=True)
    )


def test_the_two_have_equal_spaces_names_and_frame_rate(kinds):
    dream, real = (kinds[name].make() for name in ("dream", "real"))
    for name in ("observation_space", "action_space", "action_names", "variable_names", "metadata", "frame_skip"):
        assert getattr(dream, name) == getattr(real, name), name
    assert type(dream).metadata == type(real).metadata
    dream.close()
    real.close()


def test_the_observation_is_the_screen_and_actions_are_named_from_the_no_op_on(env):
    assert env.observation_space == gym.spaces.Box(0, 255, (120, 160, 3), np.uint8)
    assert env.action_names == ("noop", "move_left", "move_right")
    assert env.action_space == gym.spaces.Discrete(3)
    assert env.metadata["render_fps"] == 35 / 4


def test_observations_lie_in_the_space_and_numbers_are_pythons_own(env):
    for frame, reward, terminated, truncated, info in play(env, seed=3):
        assert type(frame) is np.ndarray and frame.dtype == np.uint8 and env.observation_space.contains(frame)
        assert type(reward) is float and type(terminated) is bool and type(truncated) is bool
        assert set(info) == {"health"} and type(info["health"]) is float


def test_observations_and_infos_are_fresh_objects_that_may_be_written_to(env):
    frame, info = env.reset(seed=5)
    kept = frame.copy()
    frame[:] = 7
    info.clear()
    assert np.array_equal(env.render(), kept)
    following, *_, second = env.step(0)
    assert not np.shares_memory(frame, following) and (frame == 7).all()
    assert second
    following[:] = 9
    assert not np.shares_memory(env.render(), env.render()) and not (env.render() == 9).all()


def test_writing_to_an_observation_changes_nothing_that_follows(env):
    expected = play(env, seed=8)
    frame, _ = env.reset(seed=8)
    for i in range(6):
        frame[:] = 0
        frame, *rest = env.step(i % 3)
        assert same([(frame, *rest)], [expected[i + 1]])


def test_equal_seeds_show_equal_episodes_to_the_last_bit(env, fresh):
    expected = play(env, seed=11)
    play(env, seed=12)
    assert same(play(env, seed=11), expected)
    assert same(play(fresh, seed=11), expected)


def test_other_seeds_show_other_episodes(env):
    assert not same(play(env, seed=11), play(env, seed=12))


def test_reset_without_a_seed_goes_on_with_the_stream(env):
    first = [play(env, seed=4), play(env), play(env)]
    again = [play(env, seed=4), play(env), play(env)]
    assert all(map(same, first, again))
    assert not same(first[0], first[1]) and not same(first[1], first[2])


def test_the_stream_does_not_depend_on_how_long_an_episode_was(env):
    play(env, seed=4, steps=1)
    short = play(env)
    play(env, seed=4, steps=6)
    assert same(short, play(env))


def test_actions_may_be_any_kind_of_integer(env):
    shown = []
    for action in (1, np.int64(1), np.int32(1), np.uint8(1)):
        env.reset(seed=2)
        shown.append(env.step(action))
    assert all(same([shown[0]], [other]) for other in shown)


def test_an_episode_is_terminated_or_truncated_never_both_and_then_needs_a_reset(kind):
    env = kind.cls(**kind.mortal)
    env.reset(seed=0)
    for _ in range(600):
        frame, _, terminated, truncated, info = env.step(0)
        assert not (terminated and truncated)
        if terminated or truncated:
            break
    assert terminated and env.observation_space.contains(frame) and "health" in info
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(0)
    env.reset()
    env.step(0)
    env.close()


def test_the_time_limit_of_a_made_environment_truncates_only(kind):
    env = kind.registered(max_episode_steps=3)
    env.reset(seed=0)
    flags = [env.step(0)[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]
    env.close()


def test_a_made_environment_ends_after_the_525_steps_of_the_take_cover_score(kind):
    env = kind.registered()
    assert (env.spec.max_episode_steps or env.unwrapped.max_episode_steps) == 525
    env.close()


def test_stepping_before_the_reset_is_refused(fresh):
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        fresh.step(0)


def test_a_closed_environment_is_refused_and_may_be_closed_again(fresh):
    fresh.reset(seed=0)
    fresh.close()
    fresh.close()
    for call in (fresh.reset, lambda: fresh.step(0), fresh.render):
        with pytest.raises(gym.error.ClosedEnvironmentError, match="make a new one"):
            call()


def test_an_environment_that_never_played_may_be_closed(fresh):
    fresh.close()
    with pytest.raises(gym.error.ClosedEnvironmentError, match="make a new one"):
        fresh.reset(seed=0)


@pytest.mark.parametrize("action", [-1, 3, 0.5, 1.0, "noop", None, np.zeros(2, np.int64), np.float32(1)])
def test_an_invalid_action_is_refused_with_the_names_and_nothing_is_lost(env, action):
    expected = play(env, seed=1, steps=1)
    frame, info = env.reset(seed=1)
    with pytest.raises(gym.error.InvalidAction, match="0 noop, 1 move_left, 2 move_right"):
        env.step(action)
    assert same([(frame, 0.0, False, False, info), env.step(0)], expected)


def test_rendering_shows_the_frame_observed_last(env):
    frame, _ = env.reset(seed=0)
    assert np.array_equal(env.render(), frame)
    frame, *_ = env.step(1)
    assert np.array_equal(env.render(), frame)


def test_rendering_before_the_reset_is_refused(fresh):
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        fresh.render()


def test_without_a_render_mode_there_is_nothing_to_render(kind):
    env = kind.make()
    assert env.render() is None
    env.close()


def test_human_mode_shows_a_window_and_renders_nothing(kind):
    env = kind.make(render_mode="human")
    env.reset(seed=0)
    env.step(0)
    assert env.render() is None
    env.close()


def test_an_unknown_render_mode_is_refused_with_those_there_are(kind):
    with pytest.raises(ValueError, match=r"render_mode 'ansi'.*'human', 'rgb_array'"):
        kind.make(render_mode="ansi")


def test_an_unknown_argument_is_refused_by_name(kind):
    with pytest.raises(TypeError, match="frameskip"):
        kind.make(frameskip=4)
    with pytest.raises(TypeError, match="frameskip"):
        kind.registered(frameskip=4)


def test_an_unknown_reset_option_is_refused_by_name(env):
    with pytest.raises(ValueError, match="level"):
        env.reset(options={"level": 3})
    assert np.array_equal(env.reset(seed=0, options={})[0], env.reset(seed=0)[0])


def test_gymnasiums_own_checker_is_content(kind):
    env = kind.registered(render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])  # noqa: S301
def test_a_copy_is_a_new_environment_with_the_same_arguments(env, clone):
    expected = play(env, seed=1)
    other = clone(env)
    assert other.render_mode == "rgb_array"
    with pytest.raises(gym.error.ResetNeeded):
        other.step(0)
    assert same(play(other, seed=1), expected)
    other.close()
    env.step(0)


def test_a_specification_goes_through_json_and_makes_the_same_environment(kind, env):
    made = kind.registered(render_mode="rgb_array")
    spec = EnvSpec.from_json(made.spec.to_json())
    again = gym.make(spec)
    assert again.spec == made.spec and again.render_mode == "rgb_array"
    assert same(play(again, seed=6), play(env, seed=6))
    made.close()
    again.close()
