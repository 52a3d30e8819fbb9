"""The `dm_env` adapter: the library's own test, and what it can't know."""

import unittest

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from dm_env import specs, test_utils
from gymnasium import spaces

from neural_env.adapters.dm_env import DreamEnvironment, spec_of

ID = "neural_env:NeuralDoom-v0"


@pytest.fixture
def make(tiny_world_folder):
    made = []

    def make(seed=None, **kwargs):
        kwargs = {"checkpoint": str(tiny_world_folder), "max_episode_steps": 3, **kwargs}
        made.append(DreamEnvironment(gym.make(ID, **kwargs), seed=seed))
        return made[-1]

    yield make
    for environment in made:
        environment.close()


def test_it_passes_the_librarys_own_test(make):
    class Mixin(test_utils.EnvironmentTestMixin):
        def make_object_under_test(self):
            return make()

    case = type("Case", (Mixin, unittest.TestCase), {})
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun == 4 and result.wasSuccessful(), result.errors + result.failures


def test_a_time_limit_leaves_the_discount_and_a_death_does_not(make, mortal_world_folder):
    environment = make()
    environment.reset()
    assert [environment.step(0).discount for _ in range(3)] == [1.0, 1.0, 1.0]
    mortal = make(0, checkpoint=str(mortal_world_folder), max_episode_steps=-1)
    step = mortal.reset()
    while not step.last():
        step = mortal.step(0)
    assert step.discount == 0.0 and type(step.reward) is float
    assert mortal.step(0).first()


def test_the_seed_is_the_first_episodes_and_later_ones_go_on_with_the_stream(make, tiny_world_folder):
    env = gym.make(ID, checkpoint=str(tiny_world_folder))
    expected = [env.reset(seed=5)[0], env.reset()[0]]
    environment = make(seed=5)
    assert all((environment.reset().observation == frame).all() for frame in expected)
    env.close()


def test_the_info_of_the_latest_step_is_at_hand(make):
    environment = make()
    environment.reset()
    environment.step(1)
    assert set(environment.info) == {"health"}


def test_an_action_spec_names_the_actions_there_are(make):
    environment = make()
    assert environment.action_spec() == specs.DiscreteArray(3, np.int64, "action")
    assert environment.observation_spec().shape == (120, 160, 3)
    assert environment.step(None).step_type is dm_env.StepType.FIRST  # a fresh one begins, whatever the action
    with pytest.raises(gym.error.InvalidAction, match="0 noop"):
        environment.step(3)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 3), np.float32),
        spaces.MultiBinary(4),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.Discrete(5),
    ],
)
def test_a_spec_takes_what_the_space_contains_and_nothing_beyond_its_bounds(space):
    spec = spec_of(space, "x")
    space.seed(0)
    for _ in range(20):
        assert spec.validate(space.sample()) is not None
    with pytest.raises(ValueError):
        spec.validate(np.full(spec.shape, 9, spec.dtype))
    assert space.contains(spec.generate_value())


def test_a_dict_space_becomes_a_dict_of_specs():
    made = spec_of(spaces.Dict(a=spaces.Discrete(2), b=spaces.MultiBinary(3)), "x")
    assert set(made) == {"a", "b"} and made["a"].name == "a"


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Discrete(3, start=1)])
def test_a_space_without_a_spec_is_refused_with_those_there_are(space):
    with pytest.raises(TypeError, match="use a Box, Discrete from 0, MultiBinary, MultiDiscrete or Dict"):
        spec_of(space, "x")
