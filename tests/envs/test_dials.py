"""Turning the dream while it runs, in the single and the vector environment; nothing is compiled for it."""

import gymnasium as gym
import jax
import numpy as np
import pytest

from neural_env.envs import core
from neural_env.envs.dials import TERMINATIONS
from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.vector import NeuralDoomVector


@pytest.fixture(scope="module")
def guided_folder(tmp_path_factory, make_guided_world, save_world):
    """The checkpoint of a world that knows to dream without a past."""
    return save_world(make_guided_world(), tmp_path_factory.mktemp("worlds") / "guided")


@pytest.fixture(scope="module")
def make(guided_folder):
    made = []

    def make(kind=NeuralDoom, **arguments):
        made.append(kind(**{"checkpoint": str(guided_folder), **arguments}))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture(scope="module")
def shared(make):
    return make()


@pytest.fixture
def env(shared):
    shared.context_noise, shared.guidance, shared.temperature, shared.max_episode_steps = 0.0, 1.0, 1.0, 525
    shared.reset(seed=0)
    return shared


@pytest.fixture(scope="module")
def three(make):
    return make(NeuralDoomVector, num_envs=3)


def following(env, **dials):
    """The frame after one step from a fixed moment."""
    for name, value in dials.items():
        setattr(env, name, value)
    env.reset(seed=0)
    return env.step(1)[0]


@pytest.mark.parametrize("dials", [{"context_noise": 0.5}, {"guidance": 3.0}, {"temperature": 0.0}])
def test_a_dial_that_is_turned_is_one_that_was_given(make, env, dials):
    plain = following(env)
    turned = following(env, **dials)
    assert (turned != plain).any()
    assert (following(make(**dials)) == turned).all()


def test_guidance_of_one_is_none(env):
    once = following(env, guidance=1.0)
    assert (once == following(env, guidance=1)).all()
    assert (once != following(env, guidance=1.5)).any()


def test_turning_dials_compiles_nothing(env, monkeypatch, make):
    traces = []
    original = core.step
    monkeypatch.setattr(core, "step", lambda *args, **kwargs: traces.append(1) or original(*args, **kwargs))
    for fresh in (make(), make(NeuralDoomVector, num_envs=2)):
        traces.clear()
        fresh.reset(seed=0)
        one = 0 if isinstance(fresh, NeuralDoom) else [0, 0]
        for i in range(8):
            fresh.context_noise, fresh.guidance, fresh.temperature = i / 20, 1 + (i % 3), i / 4
            fresh.step(one)
        if isinstance(fresh, NeuralDoomVector):
            fresh.context_noise, fresh.temperature = np.array([0.1, 0.2]), [0, 2]
            fresh.step(one)
        assert len(traces) == 1


def test_each_dream_of_many_may_have_its_own_noise_and_temperature(three):
    def frames(context_noise, temperature):
        three.context_noise, three.temperature = context_noise, temperature
        three.reset(seed=0)
        return three.step([1, 1, 1])[0]

    plain, noisy, cold = frames(0.0, 1.0), frames(0.5, 1.0), frames(0.0, 0.0)
    mixed = frames(np.array([0.0, 0.5, 0.0]), [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(mixed, [plain[0], noisy[1], cold[2]])
    three.context_noise[:] = 0.7  # a copy: what the dream has is checked when it is set
    assert three.context_noise.tolist() == [0.0, 0.5, 0.0]


def test_many_guided_dreams_are_as_many_single_ones(three, env):
    three.context_noise, three.temperature, three.guidance = 0.0, 1.0, 2.0
    three.reset(seed=0)
    frames = three.step([1, 1, 1])[0]
    three.guidance = 1.0
    assert np.abs(frames[0].astype(int) - following(env, guidance=2.0)).max() <= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_noise", 0.8),
        ("context_noise", float("nan")),
        ("context_noise", [0.1, 0.2]),
        ("context_noise", "high"),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("guidance", 0.5),
        ("guidance", [1.0, 1.5, 2.0]),
    ],
)
def test_what_is_out_of_range_is_refused_and_changes_nothing(env, three, name, value):
    for dreams in (env, three):
        before = np.array(getattr(dreams, name))
        with pytest.raises(ValueError, match=rf"{name} must be in \["):
            setattr(dreams, name, value)
        np.testing.assert_array_equal(getattr(dreams, name), before)


def test_guidance_of_a_world_that_never_dreamed_without_a_past_is_refused(tiny_world_folder):
    for kind in (NeuralDoom, NeuralDoomVector):
        with pytest.raises(ValueError, match=r"guidance must be 1 in this world.*context_dropout"):
            kind(checkpoint=str(tiny_world_folder), guidance=1.5)
        env = kind(checkpoint=str(tiny_world_folder))
        with pytest.raises(ValueError, match="context_dropout"):
            env.guidance = 2
        assert env.guidance == 1.0
        env.close()


@pytest.mark.parametrize("termination", TERMINATIONS)
def test_dreams_end_as_they_are_told(mortal_world_folder, termination):
    env = NeuralDoomVector(16, checkpoint=str(mortal_world_folder), termination=termination, autoreset_mode="SameStep")
    env.reset(seed=0)
    ended = sum(env.step(np.zeros(16, int))[2].sum() for _ in range(4))
    assert (ended > 0) == (termination == "sample")  # the world foretells an even 27 %
    env.close()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"termination": "always"}, "termination must be one of 'sample', 'threshold', 'never', got 'always'"),
        ({"observation": "depth"}, "observation must be one of 'rgb', 'latent', 'dict', got 'depth'"),
        ({"max_episode_steps": 0}, "max_episode_steps must be an integer of at least 1, or -1, got 0"),
        ({"max_episode_steps": 2.5}, "max_episode_steps"),
        ({"device": "GPU 1"}, 'device must be None or a name like "cpu"'),
        ({"device": 0}, "device must be None"),
        ({"temperature": 3}, r"temperature must be in \[0, 2\].* got 3"),
        ({"guidance": "high"}, "guidance must be in"),
    ],
)
@pytest.mark.parametrize("kind", [NeuralDoom, NeuralDoomVector])
def test_arguments_out_of_range_are_refused(make, kind, arguments, why):
    with pytest.raises(ValueError, match=why):
        make(kind, **arguments)


def test_a_device_is_used_and_one_that_is_not_there_is_refused_with_those_there_are(make):
    for kind in (NeuralDoom, NeuralDoomVector):
        for name in ("cpu", "cpu:0"):
            assert make(kind, device=name).reset(seed=0)[0].any()
        for name in ("tpu", "cpu:7"):
            with pytest.raises(ValueError, match=rf"no device '{name}' here: choose one of \['cpu:0'\]"):
                make(kind, device=name).reset(seed=0)


def test_the_dreams_own_time_limit_never_says_both(mortal_world_folder):
    for seed in range(12):
        env = NeuralDoom(checkpoint=str(mortal_world_folder), max_episode_steps=1)
        env.reset(seed=seed)
        _, _, terminated, truncated, _ = env.step(0)
        assert terminated != truncated
        with pytest.raises(gym.error.ResetNeeded):
            env.step(0)
        env.close()


def test_a_time_limit_goes_on_from_a_kept_moment_and_can_be_set(env):
    env.max_episode_steps = 3
    env.step(0)
    state = env.get_state()
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    env.set_state(state)
    env.max_episode_steps = None
    assert [env.step(0)[3] for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("steps", [0, -2, 2.5, "x", True])
def test_a_time_limit_that_is_none_is_refused_when_it_is_set(env, steps):
    before = env.unwrapped.max_episode_steps
    with pytest.raises(ValueError, match="max_episode_steps must be an integer of at least 1, or -1"):
        env.unwrapped.max_episode_steps = steps
    assert env.unwrapped.max_episode_steps == before


def test_no_time_limit_is_none_or_minus_one(env):
    before = env.unwrapped.max_episode_steps
    for none in (None, -1):
        env.unwrapped.max_episode_steps = none
        assert env.unwrapped.max_episode_steps is None
    env.unwrapped.max_episode_steps = before


def test_an_unknown_way_to_end_is_refused_when_it_is_set(env):
    with pytest.raises(ValueError, match="termination must be one of 'sample'"):
        env.unwrapped.termination = "foo"


def test_makes_time_limit_only_shortens_the_dreams_own(guided_folder):
    env = gym.make("NeuralDoom-v0", checkpoint=str(guided_folder), max_episode_steps=2)
    assert env.spec.max_episode_steps == 2 and env.unwrapped.max_episode_steps == 525
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    env.close()


def test_many_dreams_share_two_devices_and_a_dial_a_row(guided_folder):
    """In a process of its own: how many devices the host pretends to have is decided before JAX starts."""
    import os
    import subprocess
    import sys

    code = """
import sys, jax, numpy as np
from neural_env.envs.vector import NeuralDoomVector
env = NeuralDoomVector(4, checkpoint=sys.argv[1], context_noise=[0, 0.1, 0.2, 0.3], guidance=1.5)
env.reset(seed=0)
frames = env.step([0, 1, 2, 0])[0]
assert len(env._batch.carries.key.sharding.device_set) == 2
one = NeuralDoomVector(4, checkpoint=sys.argv[1], context_noise=[0, 0.1, 0.2, 0.3], guidance=1.5, device="cpu:1")
one.reset(seed=0)
assert len(one._batch.carries.key.sharding.device_set) == 1
print(np.abs(frames.astype(int) - one.step([0, 1, 2, 0])[0]).max())
"""
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(guided_folder)], capture_output=True, text=True, env=environment, timeout=250
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 1


def test_the_dials_are_a_pytree_of_numbers():
    from neural_env.envs.dials import Dials

    leaves, tree = jax.tree.flatten(Dials(context_noise=0.1, num_steps=3))
    assert leaves == [0.1, 1.0] and jax.tree.unflatten(tree, leaves) == Dials(context_noise=0.1, num_steps=3)
