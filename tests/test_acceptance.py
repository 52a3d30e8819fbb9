"""The field's own acceptance tests, on every id and every wrapper; warnings are errors (pyproject.toml)."""

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import neural_env  # noqa: F401  registers the environments
from neural_env import wrappers

IDS = sorted(name for name, spec in gym.registry.items() if str(spec.entry_point).startswith("neural_env."))
DREAMS = [name for name in IDS if name.startswith("Neural")]
STACKS = {
    **{name: (name, {}, ()) for name in IDS},
    "latents": ("NeuralDoom-v0", {"observation": "latent"}, ()),
    "ViZDoom's observation": ("NeuralDoom-v0", {"observation": "dict"}, ()),
    "ActionMapping": ("NeuralDoom-v0", {}, ((wrappers.ActionMapping, {"vizdoom": "take_cover"}),)),
    "ActionMapping of the real game": ("RealDoom-v0", {}, ((wrappers.ActionMapping, {"buttons": ["MOVE_LEFT"]}),)),
    "NoiseAugmentedContext": ("NeuralDoom-v0", {}, ((wrappers.NoiseAugmentedContext, {"level": 0.2}),)),
    "Disagreement": ("NeuralDoom-v0", {}, ((wrappers.Disagreement, {}),)),
    "RealStarts": ("NeuralDoom-v0", {}, ((wrappers.RealStarts, {}),)),
    "GameNGenReward": ("RealDoom-v0", {"signals": True}, ((wrappers.GameNGenReward, {}),)),
    "ShadowMode": ("NeuralDoom-v0", {}, ((wrappers.ShadowMode, {}),)),
    "all that dreams allow": (
        "NeuralDoom-v0",
        {},
        (
            (wrappers.NoiseAugmentedContext, {"level": 0.2}),
            (wrappers.ShadowMode, {"sync": 4}),
            (wrappers.ActionMapping, {"keys": "all", "unmapped": "nearest"}),
        ),
    ),
}


def world_of(name, tiny_world_folder):
    """The tiny world, which is of take_cover; an id of another scenario has its own bundled one."""
    scenario = gym.spec(name).kwargs.get("scenario", "take_cover")
    return {"checkpoint": str(tiny_world_folder)} if name in DREAMS and scenario == "take_cover" else {}


@pytest.fixture(scope="module", params=STACKS)
def make(request, tiny_world_folder):
    """Makes the environment of a stack; all are closed at the end."""
    name, arguments, layers = STACKS[request.param]
    world = world_of(name, tiny_world_folder)
    made = []

    def make(**more):
        env = gym.make(name, **{**world, **arguments, **more})
        for wrapper, its_arguments in layers:
            env = wrapper(env, **its_arguments)
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()


@pytest.fixture(scope="module")
def env(make):
    """One environment for all tests that leave it usable: engines and compiled programs are slow to start."""
    return make(render_mode="rgb_array")


def play(env, seed=3, steps=6):
    """Everything that an episode shows."""
    env.action_space.seed(seed)
    return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(steps))]


@contextmanager
def latents_are_no_picture(env):
    """Stable-Baselines3 takes them for a bad picture; nothing else is let pass."""
    with warnings.catch_warnings():
        if env.observation_space.dtype == np.float32:
            warnings.filterwarnings("ignore", "It seems that your observation.* is an image but")
            warnings.filterwarnings("ignore", "The minimal resolution for an image is 36x36")
        yield


def test_every_wrapper_is_tried():
    tried = {wrapper for _, _, layers in STACKS.values() for wrapper, _ in layers}
    assert tried == {getattr(wrappers, name) for name in wrappers.__all__}


def test_there_is_an_id_for_every_bundled_world():
    from neural_env.bundled import scenarios

    assert len(DREAMS) == 1 + len(scenarios()) and "NeuralDoomTakeCover-v0" in DREAMS


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")  # what is checked is the whole stack
def test_gymnasiums_checker(make):
    check_env(make(render_mode="rgb_array"), skip_render_check=True)  # tests/envs/test_contract.py has the render modes


def test_stable_baselines_checker(env):
    with latents_are_no_picture(env):
        check_env_for_sb3(env)


def test_equal_seeds_show_equal_episodes_to_the_last_bit(env):
    np.testing.assert_equal(play(env), play(env))


def test_the_specification_goes_through_json_and_rebuilds_the_whole_stack(env):
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert str(again) == str(env) and again.spec == env.spec
    np.testing.assert_equal(play(again, steps=2), play(env, steps=2))
    again.close()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])  # noqa: S301
def test_copies_play_the_same(make, env, clone):
    again = clone(make(render_mode="rgb_array"))
    np.testing.assert_equal(play(again, steps=2), play(env, steps=2))
    again.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_processes_end_within_two_minutes(name, tiny_world_folder):
    """Under the default way of starting processes, which forks after an environment was made."""
    code = """
import json, sys, gymnasium as gym, numpy as np
env = gym.make_vec(f"neural_env:{sys.argv[1]}", 2, vectorization_mode="async", **json.loads(sys.argv[2]))
env.reset(seed=0)
print(env.step(np.zeros(2, int))[0].shape)
env.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, name, json.dumps(world_of(name, tiny_world_folder))],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 120, 160, 3)"
