import copy
import os
import pickle
import signal
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from neural_env.data.vizdoom import SIGNALS, EngineCrashed
from neural_env.envs.real_doom import RealDoom


@pytest.fixture
def env():
    env = RealDoom("basic")
    yield env
    env.close()


def play(env, seed=None, steps=10):
    frame, info = env.reset(seed=seed)
    results = [(frame, 0.0, False, False, info)]
    for i in range(steps):
        results.append(env.step(i % env.action_space.n))
        if results[-1][2] or results[-1][3]:
            break
    return results


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("scenario", ["take_cover", "predict_position"])
def test_gymnasium_own_checker_is_content(scenario, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(gym.registry, "Checked-v0", gym.envs.registration.EnvSpec("Checked-v0", RealDoom))
    env = gym.make("Checked-v0", scenario=scenario, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_names_and_spaces_need_no_engine():
    env = RealDoom()
    assert env.action_names == ("noop", "move_left", "move_right")
    assert env.variable_names == ("health",)
    assert (env.scenario, env.frame_skip) == ("take_cover", 4)
    assert env.observation_space == gym.spaces.Box(0, 255, (120, 160, 3), np.uint8)
    assert env.action_space == gym.spaces.Discrete(3)
    assert env._engine._game is None
    env.close()


def test_frames_per_second_follow_the_frame_skip():
    assert RealDoom(frame_skip=4).metadata["render_fps"] == 8.75
    assert RealDoom(frame_skip=1).metadata["render_fps"] == 35
    assert RealDoom.metadata["render_fps"] == 8.75


def test_equal_seeds_give_equal_episodes(env):
    first = play(env, seed=11)
    play(env, seed=12)
    assert same(first, play(env, seed=11))


def test_resets_without_a_seed_go_on_with_the_stream(env):
    first = [play(env, seed=4, steps=2), play(env, steps=2), play(env, steps=2)]
    again = [play(env, seed=4, steps=2), play(env, steps=2), play(env, steps=2)]
    assert all(map(same, first, again))
    assert not same(first[0], first[1]) and not same(first[1], first[2])


def test_info_holds_the_variables_as_python_floats(env):
    _, info = env.reset(seed=0)
    assert info == {"ammo2": 50.0} and type(info["ammo2"]) is float
    *_, info = env.step(0)
    assert set(info) == {"ammo2"}


def test_info_holds_the_signals_if_asked_for_and_nothing_else_changes(env):
    telling = RealDoom("basic", signals=True)
    for quiet, told in zip(play(env, seed=2), play(telling, seed=2), strict=True):
        signals = told[4].pop("signals")
        assert tuple(signals) == SIGNALS and all(type(value) is float for value in signals.values())
        assert signals["ammo"] == quiet[4]["ammo2"]
        assert np.array_equal(quiet[0], told[0]) and quiet[1:] == told[1:]
    telling.close()


def test_reward_is_an_unclipped_python_float(env):
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(0)
    assert type(reward) is float and reward == -4.0
    assert type(terminated) is bool and type(truncated) is bool


def test_observations_and_infos_are_fresh_objects(env):
    frame, info = env.reset(seed=0)
    kept = frame.copy()
    frame[:] = 0
    info.clear()
    env.render_mode = "rgb_array"
    assert np.array_equal(env.render(), kept)
    rendered = env.render()
    assert rendered is not env.render()


def test_a_timeout_only_truncates_and_the_last_frame_is_real(env):
    *_, before, last = run_out(env)
    frame, _, terminated, truncated, _ = last
    assert (terminated, truncated) == (False, True)
    assert frame.any() and np.array_equal(frame, before[0])


def run_out(env):
    results = [(*env.reset(seed=0), False, False)]
    while not (results[-1][2] or results[-1][3]):
        results.append(env.step(0))
    return results


def test_death_only_terminates():
    env = RealDoom("take_cover")
    frame, _, terminated, truncated, info = run_out(env)[-1]
    env.close()
    assert (terminated, truncated) == (True, False)
    assert frame.any() and info["health"] <= 0


def test_stepping_before_the_reset_is_refused(env):
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(0)


def test_stepping_after_the_end_is_refused(env):
    run_out(env)
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(0)


def test_using_a_closed_environment_is_refused(env):
    env.reset(seed=0)
    env.close()
    env.close()
    for call in (env.reset, lambda: env.step(0)):
        with pytest.raises(gym.error.ClosedEnvironmentError, match="make a new one"):
            call()


@pytest.mark.parametrize("action", [-1, 4, 0.5, "left", None, np.zeros(2, np.int64)])
def test_an_invalid_action_is_refused_with_the_list_of_actions(env, action):
    env.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match="0 noop, 1 move_left, 2 move_right, 3 attack"):
        env.step(action)
    env.step(np.int64(1))  # and nothing is lost


def test_rendering_before_the_reset_is_refused():
    env = RealDoom("basic", render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    env.close()


def test_unknown_arguments_are_refused_with_what_exists():
    with pytest.raises(ValueError, match="take_cover"):
        RealDoom("doom3")
    with pytest.raises(ValueError, match=r"\(240, 320\)"):
        RealDoom(resolution=(10, 10))
    with pytest.raises(ValueError, match="rgb_array"):
        RealDoom(render_mode="ansi")
    with pytest.raises(TypeError, match="frameskip"):
        RealDoom(frameskip=4)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])  # noqa: S301
def test_a_copy_is_a_new_environment_with_the_same_arguments(env, clone):
    env.reset(seed=0)
    other = clone(env)
    assert same(play(env, seed=1, steps=3), play(other, seed=1, steps=3))
    other.close()
    env.step(0)


def test_a_crashed_engine_is_reported_and_the_next_reset_works(env):
    first = play(env, seed=2, steps=2)
    home = env._engine._game.get_doom_config_path().encode()
    (process,) = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if is_engine(read(p), home)]
    os.kill(process, signal.SIGKILL)
    with pytest.raises(EngineCrashed, match="reset"):
        env.step(0)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    assert same(first, play(env, seed=2, steps=2))


def is_engine(command, home):
    """Whether it is the engine of that home, and not the shell that watches over it."""
    return home in command and not command.startswith(b"/bin/sh")


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_engine_left_open_is_closed_with_its_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = RealDoom("basic")
    env.reset(seed=0)
    home = Path(env._engine._game.get_doom_config_path()).parent
    del env
    assert not home.exists() and not list(tmp_path.iterdir())


def test_human_mode_shows_the_screen_in_a_window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = RealDoom("basic", render_mode="human")
    frame, _ = env.reset(seed=0)
    assert env.render() is None
    shown = env._window._pygame.surfarray.array3d(env._window._screen).swapaxes(0, 1)
    assert np.array_equal(shown[::4, ::4], frame)
    env.step(0)
    env.close()


def test_human_mode_without_pygame_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = RealDoom("basic", render_mode="human")
    with pytest.raises(gym.error.DependencyNotInstalled, match="pip install pygame-ce"):
        env.reset(seed=0)
    env.close()
