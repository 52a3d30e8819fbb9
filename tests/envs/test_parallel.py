"""PettingZoo's agents: its own tests, and that each lives in a dream of its own."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, render_test, seed_test

from neural_env.envs.parallel import SeparateDreams, env, parallel_env


@pytest.fixture(scope="module")
def arguments(mortal_world_folder):
    """Of a world whose dreams end soon, but not all at once."""
    return {"num_agents": 3, "checkpoint": str(mortal_world_folder), "max_episode_steps": 6}


@pytest.fixture(scope="module")
def dreams(arguments):
    """One environment for all tests: compiling takes seconds."""
    made = parallel_env(**arguments, render_mode="rgb_array")
    yield made
    made.close()


def play(dreams, seed=None, steps=6):
    """Everything that the agents are told, by step, until none is left."""
    said = [dreams.reset(seed=seed)]
    for i in range(steps):
        if not dreams.agents:
            break
        said.append(dreams.step({agent: (i + j) % 3 for j, agent in enumerate(dreams.agents)}))
    return said


def test_pettingzoos_parallel_api_test(dreams):
    parallel_api_test(dreams, num_cycles=30)


def test_pettingzoos_parallel_seed_test(arguments):
    parallel_seed_test(lambda: parallel_env(**arguments), num_cycles=10)


def test_pettingzoos_api_test_of_the_agents_in_turn(arguments):
    turns = env(**arguments)
    api_test(turns, num_cycles=30)
    turns.close()


def test_pettingzoos_seed_test_of_the_agents_in_turn(arguments):
    seed_test(lambda: env(**arguments), num_cycles=10)


def test_pettingzoos_render_test(arguments):
    render_test(lambda **mode: env(**{**arguments, "num_agents": 2}, **mode))


def test_each_agent_lives_in_the_dream_of_a_single_environment(tiny_world_folder):
    dreams = parallel_env(2, checkpoint=str(tiny_world_folder))
    shown = play(dreams, seed=4, steps=3)
    for i, agent in enumerate(dreams.possible_agents):
        alone = gym.make("neural_env:NeuralDoom-v0", checkpoint=str(tiny_world_folder))
        frame, info = alone.reset(seed=4 + i)
        np.testing.assert_array_equal(shown[0][0][agent], frame)
        assert shown[0][1][agent] == info
        _, reward, *_, info = alone.step(i)
        assert shown[1][1][agent] == pytest.approx(reward, abs=1e-4)
        assert shown[1][4][agent] == pytest.approx(info, abs=1e-3)
        alone.close()
    dreams.close()


def test_what_one_agent_does_is_nothing_to_another(tiny_world_folder):
    dreams = parallel_env(2, checkpoint=str(tiny_world_folder))
    shown = []
    for action in (1, 2):
        dreams.reset(seed=0)
        shown.append(dreams.step({"dream_0": action, "dream_1": 0})[0])
    assert (shown[0]["dream_0"] != shown[1]["dream_0"]).any()
    assert (shown[0]["dream_1"] == shown[1]["dream_1"]).all()
    dreams.close()


def test_agents_leave_one_by_one_and_come_back_with_the_next_reset(dreams):
    lives = []
    for seed in range(6):
        said = play(dreams, seed=seed)
        lives.append([len(step[1]) for step in said[1:]])
        for observations, rewards, terminated, truncated, infos in said[1:]:
            assert observations.keys() == rewards.keys() == terminated.keys() == truncated.keys() == infos.keys()
        assert dreams.agents == []
        with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\)"):
            dreams.step({})
    assert any(1 in alive or 2 in alive for alive in lives)  # some outlived others
    assert all(alive == sorted(alive, reverse=True) and alive[0] == 3 for alive in lives)


def test_who_lives_to_the_limit_is_truncated(tiny_world_folder):
    dreams = parallel_env(2, checkpoint=str(tiny_world_folder), max_episode_steps=2)
    said = play(dreams, seed=0)
    assert len(said) == 3 and said[2][3] == {"dream_0": True, "dream_1": True} and not any(said[2][2].values())
    dreams.close()


def test_an_action_for_each_that_lives_is_asked_for(dreams):
    dreams.reset(seed=0)
    for actions in ({"dream_0": 0}, {"dream_0": 0, "dream_1": 0, "dream_2": 0, "dream_3": 0}):
        with pytest.raises(gym.error.InvalidAction, match="one action for each of"):
            dreams.step(actions)
    with pytest.raises(gym.error.InvalidAction, match="0 noop"):
        dreams.step({"dream_0": 0, "dream_1": 3, "dream_2": 0})


def test_resets_without_a_seed_go_on_with_a_stream_that_does_not_depend_on_the_play(dreams):
    shown = []
    for steps in (0, 5):
        play(dreams, seed=8, steps=steps)
        shown.append([dreams.reset()[0]["dream_1"] for _ in range(2)])
    assert (np.stack(shown[0]) == np.stack(shown[1])).all()


def test_the_dead_show_their_last_screen(dreams):
    for seed in range(20):
        dreams.reset(seed=seed)
        last = {}
        while dreams.agents:
            last |= dreams.step(dict.fromkeys(dreams.agents, 0))[0]
        black = np.zeros_like(last["dream_0"])
        picture = dreams.render().reshape(2, 120, 2, 160, 3).swapaxes(1, 2).reshape(4, 120, 160, 3)
        assert (
            picture == np.stack([*last.values(), black])[[list(last).index(f"dream_{i}") for i in range(3)] + [3]]
        ).all()


def test_saved_moments_are_taken_back(dreams):
    dreams.reset(seed=0)
    states = dreams.get_state()
    expected = dreams.step(dict.fromkeys(dreams.agents, 1))
    dreams.reset(seed=5, options={"state": states})
    again = dreams.step(dict.fromkeys(dreams.agents, 1))
    np.testing.assert_equal(again, expected)
    observations, _ = dreams.reset(options={"state": states["dream_2"]})
    assert all((observations[agent] == states["dream_2"].frame).all() for agent in dreams.agents)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda dreams: pickle.loads(pickle.dumps(dreams))])  # noqa: S301
def test_copies_dream_the_same(dreams, clone):
    again = clone(dreams)
    np.testing.assert_equal(play(again, seed=2), play(dreams, seed=2))
    again.close()


def test_spaces_are_those_of_the_single_environment_and_each_agents_own(dreams, arguments):
    assert dreams.action_space("dream_0") == gym.spaces.Discrete(3)
    assert dreams.observation_space("dream_1") == gym.spaces.Box(0, 255, (120, 160, 3), np.uint8)
    assert dreams.action_space("dream_0") is not dreams.action_space("dream_1")
    assert isinstance(dreams, SeparateDreams) and str(dreams) == "neural_doom_separate_dreams_v0"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_agents": 0}, "num_agents must be"),
        ({"render_mode": "ansi"}, "render_mode"),
        ({"num_steps": 0}, "num_steps"),
    ],
)
def test_bad_arguments_are_refused(arguments, change, why):
    with pytest.raises(ValueError, match=why):
        parallel_env(**{**arguments, **change})


def test_rendering_before_the_reset_is_refused(arguments):
    dreams = parallel_env(**arguments, render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\)"):
        dreams.render()
    dreams.close()
