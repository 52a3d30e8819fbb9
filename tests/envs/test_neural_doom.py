"""What the dream has beyond the contract: its dials, its starts and its context."""

import os
import shutil
import subprocess
import sys

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env import bundled
from neural_env.checkpoint import CheckpointError, load
from neural_env.envs import core
from neural_env.envs.neural_doom import NeuralDoom


@pytest.fixture(scope="module")
def make(tiny_world_folder):
    envs = []

    def make(**arguments):
        envs.append(NeuralDoom(**{"checkpoint": str(tiny_world_folder), **arguments}))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


@pytest.fixture(scope="module")
def shared(make):
    return make(render_mode="rgb_array")


@pytest.fixture
def env(shared):
    shared.reset(seed=0)
    return shared


@pytest.fixture(scope="module")
def context():
    """Four frames and the three actions between them."""
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(4, 120, 160, 3), dtype=np.uint8)
    return {"context": frames, "actions": np.array([1, 0, 2], np.int32)}


def frames(env, seed=0, steps=4, **options):
    shown = [env.reset(seed=seed, **options)[0]]
    return np.stack([*shown, *(env.step(1)[0] for _ in range(steps))])


def test_the_constructor_starts_no_jax_backend(tiny_world_folder):
    code = """
import sys
from neural_env.envs.neural_doom import NeuralDoom
env = NeuralDoom(checkpoint=sys.argv[1])
from jax._src import xla_bridge
started = [xla_bridge.backends_are_initialized()]
env.close()
print(*started, xla_bridge.backends_are_initialized())
"""
    command = [sys.executable, "-c", code, str(tiny_world_folder)]
    ran = subprocess.run(command, check=True, env=os.environ, timeout=200, stdout=subprocess.PIPE, text=True)
    assert ran.stdout.split() == ["False", "False"]


def test_the_constructor_reads_no_weights(tiny_world_folder, tmp_path):
    folder = shutil.copytree(tiny_world_folder, tmp_path / "world")
    (folder / "weights.safetensors").write_bytes(b"damaged")
    env = NeuralDoom(checkpoint=str(folder))
    assert env.action_names == ("noop", "move_left", "move_right")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        env.reset(seed=0)
    env.close()


def test_an_unusable_checkpoint_is_reported_at_once(tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder of that name"):
        NeuralDoom(checkpoint=str(tmp_path / "none"))


def test_a_scenario_finds_its_bundled_world(tiny_world_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "BUNDLED", tmp_path)
    shutil.copytree(tiny_world_folder, tmp_path / "take_cover")
    for arguments in ({}, {"scenario": "take_cover"}, {"checkpoint": "take_cover"}):
        assert NeuralDoom(**arguments).scenario == "take_cover"
    with pytest.raises(ValueError, match=r"no bundled world of scenario 'basic', only of \['take_cover'\].*checkpoint"):
        NeuralDoom("basic")


def test_another_scenario_than_the_worlds_is_refused(make):
    assert make(scenario="take_cover").scenario == "take_cover"
    with pytest.raises(ValueError, match="dreams 'take_cover', not 'basic'"):
        make(scenario="basic")


def test_another_frame_skip_than_the_worlds_is_refused(make):
    assert make(frame_skip=4).frame_skip == make().frame_skip == 4
    with pytest.raises(ValueError, match="frame_skip 4, not 2"):
        make(frame_skip=2)


def test_no_number_of_steps_is_what_suits_the_world(make):
    assert make(num_steps=None).num_steps == make().num_steps == 1


@pytest.mark.parametrize("num_steps", [0, -1, 1.5, "2", True])
def test_a_number_of_steps_that_is_none_is_refused(make, num_steps):
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1"):
        make(num_steps=num_steps)


@pytest.mark.parametrize("context_noise", [-0.1, 0.71, float("nan"), float("inf")])
def test_a_noise_level_that_training_never_showed_is_refused(make, context_noise):
    with pytest.raises(ValueError, match=r"context_noise must be in \[0, 0\.7\]"):
        make(context_noise=context_noise)


def test_the_highest_noise_level_is_the_one_of_training():
    from neural_env.envs import arguments
    from neural_env.world import conditioning

    assert arguments.CONTEXT_NOISE_MAX == conditioning.CONTEXT_NOISE_MAX


def test_the_dials_change_the_dream_and_not_where_it_starts(make, env):
    plain = frames(env)
    for arguments in ({"num_steps": 3}, {"context_noise": 0.7}):
        dialled = frames(make(**arguments))
        assert (dialled[0] == plain[0]).all() and (dialled[1:] != plain[1:]).any(), arguments


def test_actions_change_the_dream(env):
    env.reset(seed=0)
    left = env.step(1)[0]
    env.reset(seed=0)
    assert (env.step(2)[0] != left).any()


def test_seeds_draw_their_starts_from_those_of_the_world(env, tiny_world_folder):
    loaded = load(tiny_world_folder)
    shown = {env.reset(seed=seed)[0].tobytes() for seed in range(30)}
    starts = np.asarray(loaded.world.decode(jnp.asarray(loaded.starts.latents[:, -1]))).astype(int)
    assert len(shown) >= 6
    for frame in shown:
        distance = np.abs(np.frombuffer(frame, np.uint8).reshape(120, 160, 3) - starts).mean(axis=(1, 2, 3))
        assert sorted(distance)[0] < 0.01 < 1 < sorted(distance)[1]  # one of them, but for rounding


def test_episodes_from_one_start_differ_by_their_seed(env, context):
    first, again, other = (frames(env, seed, options=context) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first[0] == other[0]).all() and (first[1:] != other[1:]).any()


def test_playing_leaves_the_starts_as_they_were(env):
    """The past is overwritten in place, step by step: it must be a copy."""
    before = frames(env, seed=3)
    for _ in range(3):
        frames(env, seed=3, steps=8)
    assert (frames(env, seed=3) == before).all()


def test_an_episode_starts_from_the_clients_own_frames(env, context, tiny_world):
    frame, info = env.reset(seed=0, options=context)
    expected = np.asarray(tiny_world.decode(tiny_world.encode(jnp.asarray(context["context"][-1:]))))[0]
    assert np.abs(frame.astype(int) - expected).mean() < 1  # the checkpoint's weights are rounded
    assert np.isfinite(info["health"])


def test_older_frames_and_actions_of_a_given_context_matter(env, context):
    plain = frames(env, options=context)
    older = {**context, "context": context["context"][[1, 0, 2, 3]]}
    other = {**context, "actions": np.array([2, 0, 2], np.int32)}
    for changed in (frames(env, options=older), frames(env, options=other)):
        assert (changed[0] == plain[0]).all() and (changed[1:] != plain[1:]).any()


@pytest.mark.parametrize("kind", [list, np.int64, np.uint8])
def test_actions_of_a_context_may_be_any_integers(env, context, kind):
    actions = [1, 0, 2] if kind is list else context["actions"].astype(kind)
    assert (frames(env, options={**context, "actions": actions}) == frames(env, options=context)).all()


def test_a_given_context_does_not_shift_the_stream(env, context):
    env.reset(seed=9)
    expected = frames(env, None)
    env.reset(seed=9, options=context)
    assert (frames(env, None) == expected).all()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"context": np.zeros((3, 120, 160, 3), np.uint8)}, r"uint8 of shape \(4, 120, 160, 3\), got uint8 \(3, "),
        ({"context": np.zeros((4, 60, 80, 3), np.uint8)}, r"got uint8 \(4, 60, 80, 3\)"),
        ({"context": np.zeros((4, 120, 160, 3), np.float32)}, "got float32"),
        ({"actions": np.array([0, 1], np.int32)}, "3 integers"),
        ({"actions": np.array([0, 1, 3], np.int32)}, r"3 integers.*\[0, 1, 3\]"),
        ({"actions": np.array([0, 1, -1], np.int32)}, "3 integers"),
        ({"actions": np.array([0.0, 1.0, 2.0])}, "3 integers"),
    ],
)
def test_a_context_that_does_not_fit_is_refused_with_what_would(env, context, change, why):
    with pytest.raises(ValueError, match=why):
        env.reset(options={**context, **change})
    with pytest.raises(ValueError, match=why):
        env.set_context(**{**context, **change})


@pytest.mark.parametrize("missing", ["context", "actions"])
def test_half_a_context_is_refused(env, context, missing):
    with pytest.raises(ValueError, match="reset options are 'context' and 'actions'"):
        env.reset(options={name: value for name, value in context.items() if name != missing})


def test_after_a_refused_reset_there_is_no_episode_and_the_next_reset_works(env):
    with pytest.raises(ValueError, match="reset options"):
        env.reset(options={"context": None})
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.step(0)


def test_a_new_context_replaces_the_past_in_the_middle_of_an_episode(env, context):
    started = frames(env, options=context)
    env.reset(seed=0)
    frame = env.set_context(**context)
    assert (frame == started[0]).all() and (env.render() == frame).all()
    env.step(1)
    again = env.set_context(**context)
    assert (again == frame).all()
    assert env.step(1)[0].shape == frame.shape


def test_the_context_length_is_the_worlds(env):
    assert env.context_length == 4


def test_a_hundred_steps_and_every_kind_of_start_are_compiled_once(make, context, monkeypatch):
    traces = []
    original = core.step

    def counted(*args, **kwargs):
        traces.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(core, "step", counted)
    env = make()
    for start in ({}, {"options": context}, {}):
        env.reset(seed=1, **start)
        for i in range(35):
            env.step(i % 3)
        env.set_context(**context)
        env.step(0)
    assert len(traces) == 1


def test_dreams_end_as_their_world_foretells(mortal_world_folder):
    env = NeuralDoom(checkpoint=str(mortal_world_folder))
    env.reset(seed=0)
    lengths = []
    for _ in range(60):
        env.reset()
        steps = 1
        while not env.step(0)[2]:
            steps += 1
            assert steps < 1000
        lengths.append(steps)
    env.close()
    mean = 1 + np.e  # of a geometric distribution with p = 1 / (1 + e)
    assert abs(np.mean(lengths) - mean) < 5 * np.sqrt(mean * (mean - 1) / len(lengths))
