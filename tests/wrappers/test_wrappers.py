"""What all wrappers keep: Gymnasium's checker, specifications, copies, stacks, and the examples in their docstrings."""

import copy
import doctest
import importlib
import pickle
import pkgutil
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from neural_env import wrappers
from neural_env.wrappers import ActionMapping, Disagreement, NoiseAugmentedContext, RealStarts, ShadowMode

STACKS = {
    "level": lambda env: NoiseAugmentedContext(env, level=0.3),
    "schedule": lambda env: NoiseAugmentedContext(env, schedule=((0, 0.0), (5, 0.3))),
    "drawn": lambda env: NoiseAugmentedContext(env, schedule=("uniform", 0.0, 0.5, "step")),
    "actions": lambda env: ActionMapping(env, actions=("move_left", "noop")),
    "buttons": lambda env: ActionMapping(env, buttons=("MOVE_LEFT", "MOVE_RIGHT"), unmapped="nearest"),
    "groups": lambda env: ActionMapping(env, groups=(("noop", "move_left"), ("noop",))),
    "scenario": lambda env: ActionMapping(env, scenario="deadly_corridor", unmapped="nearest"),
    "vizdoom": lambda env: ActionMapping(env, vizdoom={"scenario": "take_cover", "max_buttons_pressed": 1}),
    "keys": lambda env: ActionMapping(env, keys="all", unmapped="nearest"),
    "shadow": lambda env: ShadowMode(env, sync=8, metrics=("ssim",), truncate_below=1.0),
    "lpips": lambda env: ShadowMode(env, metrics=["psnr", "ssim", "lpips"]),
    "samples": lambda env: Disagreement(env, samples=2, truncate_above=100.0),
    "levels": lambda env: Disagreement(env, samples=2, kind="levels"),
    "starts": lambda env: RealStarts(env, warmup=(0, 5)),
    "all": lambda env: ActionMapping(
        Disagreement(ShadowMode(NoiseAugmentedContext(env, level=0.2), sync=2), samples=2),
        actions=["noop", "move_left"],
    ),
}


@pytest.fixture(params=STACKS)
def stack(request):
    return STACKS[request.param]


def play(env, seed=0, steps=3):
    env.action_space.seed(0)
    return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(steps))]


def test_gymnasiums_own_checker_is_content(stack, dream, fake):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version.*")  # it is: a wrapper
        check_env(stack(dream), skip_render_check=True, skip_close_check=True)


def test_a_specification_goes_through_json_and_rebuilds_the_stack(stack, dream, fake):
    env = stack(dream)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec and type(again) is type(env) and again.action_space == env.action_space
    assert again.get_wrapper_attr("_saved_kwargs") == env.get_wrapper_attr("_saved_kwargs")
    again.close()


CLONES = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}  # noqa: S301


@pytest.mark.parametrize("clone", CLONES)
def test_a_stack_that_has_not_begun_can_be_copied(stack, clone, make_dream):
    env = stack(make_dream())
    other = CLONES[clone](env)
    assert type(other) is type(env) and other.action_space == env.action_space
    assert other.get_wrapper_attr("_saved_kwargs") == env.get_wrapper_attr("_saved_kwargs")
    assert other.unwrapped is not env.unwrapped
    other.close()
    env.close()


def test_a_copy_shows_what_the_original_shows(make_dream, fake):
    env = Disagreement(NoiseAugmentedContext(make_dream(), schedule=["uniform", 0.0, 0.5, "step"]), samples=2)
    other = pickle.loads(pickle.dumps(env))  # noqa: S301
    for a, b in zip(play(env), play(other), strict=True):
        assert np.array_equal(a[0], b[0]) and a[1:] == b[1:]
    env.close()
    other.close()


def test_all_compose(dream, fake):
    """The issue's stack: mapped actions around a shadow around noise, with statistics outside."""
    shadow = ShadowMode(NoiseAugmentedContext(dream, level=0.2))
    env = gym.wrappers.RecordEpisodeStatistics(
        ActionMapping(Disagreement(shadow, samples=2), buttons=["MOVE_LEFT", "MOVE_RIGHT"])
    )
    fake.ends = (3 + 4, False)
    env.reset(seed=0)
    rewards = 0.0
    for pressed in ([1, 0], [0, 1], [0, 0], [1, 0]):
        _, reward, terminated, truncated, info = env.step(np.array(pressed, np.int8))
        rewards += reward
        assert info["context_noise"] == 0.2 and info["disagreement"] > 0 and "psnr" in info["shadow"]
    assert (terminated, truncated) == (False, True)
    assert shadow._past.real.actions == [0, 0, 0, 1, 2, 0, 1]
    assert info["episode"]["l"] == info["episode_shadow"]["steps"] == 4
    assert info["episode"]["r"] == pytest.approx(rewards)


def modules():
    return [info.name for info in pkgutil.walk_packages(wrappers.__path__, "neural_env.wrappers.")]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_the_docstrings_hold(name, tiny_world_folder, monkeypatch):
    monkeypatch.setitem(gym.registry["NeuralDoom-v0"].kwargs, "checkpoint", str(tiny_world_folder))
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
    public = [c for c in vars(module).values() if getattr(c, "__name__", "") in wrappers.__all__]
    if any(c.__module__ == name for c in public):
        assert tried, f"{name} has a wrapper without an example"
