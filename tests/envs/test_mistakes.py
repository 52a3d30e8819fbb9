"""What a user gets wrong, and the error that says what to do instead."""

import re

import gymnasium as gym
import numpy as np
import pytest

from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.snapshot import Snapshot, SnapshotError


@pytest.fixture(scope="module")
def env(tiny_world_folder):
    env = NeuralDoom(checkpoint=str(tiny_world_folder))
    env.reset(seed=0)
    yield env
    env.close()


@pytest.mark.parametrize(
    ("mistake", "error", "cure"),
    [
        (lambda env: env.step(np.nan), gym.error.InvalidAction, "choose one of 0 noop"),
        (lambda env: env.step(1.5), gym.error.InvalidAction, "choose one of 0 noop"),
        (lambda env: env.step([1]), gym.error.InvalidAction, "choose one of 0 noop"),
        (lambda env: env.set_state({}), TypeError, "a state must be a Snapshot, from get_state() or Snapshot.load()"),
        (lambda env: env.set_state("corridor.safetensors"), TypeError, "Snapshot.load()"),
        (lambda env: env.reset(options={"state": {}}), TypeError, "from get_state() or Snapshot.load()"),
        (lambda env: env.branch({}, [0]), TypeError, "branch must be a Snapshot"),
        (lambda env: env.branch(env.get_state(), [[0], [0, 1]]), gym.error.InvalidAction, "give all rows one length"),
        (lambda env: env.branch(env.get_state(), [np.nan]), gym.error.InvalidAction, "integers of 0..2"),
        (lambda env: NeuralDoom(scenario="basic"), ValueError, "only of ['defend_the_center', 'take_cover']"),
        (lambda env: NeuralDoom(temprature=1), TypeError, "it has scenario, checkpoint, num_steps"),
        (lambda env: NeuralDoom(checkpoint="no/such/world"), ValueError, "neural-env bundle"),
    ],
)
def test_a_mistake_is_answered_with_its_cure(env, mistake, error, cure):
    env.reset(seed=0)
    with pytest.raises(error, match=re.escape(cure)):
        mistake(env)
    env.reset(seed=0)
    env.step(0)


def test_a_file_that_is_no_snapshot_says_so(tiny_world_folder):
    with pytest.raises(SnapshotError, match=r"no usable snapshot.*snapshot/1.*save a new one"):
        Snapshot.load(tiny_world_folder / "weights.safetensors")


@pytest.mark.parametrize("name", ["NeuralDoomTakeCover-v0", "neural_env:NeuralDoomTakeCover-v0"])
def test_each_bundled_scenario_has_an_id_whose_specification_goes_through_json(name):
    env = gym.make(name, render_mode="rgb_array", context_noise=0.1)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec and again.unwrapped.scenario == "take_cover"
    assert again.unwrapped.context_noise == 0.1
    many = gym.make_vec(name, num_envs=2)
    assert many.unwrapped.max_episode_steps == 525 and many.spec.id == "NeuralDoomTakeCover-v0"
    for made in (env, again, many):
        made.close()
