"""The vector environment against Gymnasium's `SyncVectorEnv` of single ones, which is what it must be equal to."""

import copy
import os
import pickle
import subprocess
import sys
import types
from functools import partial

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics, RecordVideo

from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.snapshot import SnapshotError
from neural_env.envs.vector import NeuralDoomVector
from neural_env.world.model import PRESETS, WorldModel

MODES = [mode.value for mode in AutoresetMode]
ID = "neural_env:NeuralDoom-v0"


@pytest.fixture(scope="module")
def calm_world_folder(tmp_path_factory, make_world, perturbed, game, save_world):
    """Of a world whose dreams end soon and whose latents stay small, so that roundings don't grow from step to step."""
    world = perturbed(jax.jit(lambda: WorldModel(PRESETS["tiny"], game, rngs=nnx.Rngs(0)))(), scale=0.02)
    world.outcome.hazard.out.bias[...] = jnp.array([-1.5])
    return save_world(world, tmp_path_factory.mktemp("worlds") / "calm")


@pytest.fixture
def make(calm_world_folder):
    """Vector environments over the calm world, closed at the end; `sync` ones are the standard."""
    made = []

    def make(num_envs=3, mode="NextStep", sync=False, **kwargs):
        kwargs = {"checkpoint": str(calm_world_folder), "max_episode_steps": 6, **kwargs}
        if sync:  # not of `gym.make`: its time limit may say both, terminated and truncated
            made.append(SyncVectorEnv([partial(NeuralDoom, **kwargs)] * num_envs, autoreset_mode=mode))
        else:
            made.append(gym.make_vec(ID, num_envs=num_envs, autoreset_mode=mode, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture(scope="module")
def shared(calm_world_folder):
    """Three dreams for all tests that leave them usable: compiling takes seconds."""
    env = gym.make_vec(ID, num_envs=3, checkpoint=str(calm_world_folder), max_episode_steps=6, render_mode="rgb_array")
    yield env
    env.close()


@pytest.fixture
def three(shared):
    shared.reset(seed=0)
    return shared


def play(env, steps=25, seed=5):
    """Everything that a vector environment says, across the ends of episodes, which are reset by mask if need be."""
    said = [env.reset(seed=seed)]
    rng = np.random.default_rng(0)
    for _ in range(steps):
        said.append(env.step(rng.integers(3, size=env.num_envs)))
        done = said[-1][2] | said[-1][3]
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and done.any():
            said.append(env.reset(options={"reset_mask": done}))
    return said


def assert_same(ours, theirs, exact, where="result"):
    """Equal in structure and types, and in value bit for bit or up to float rounding and one grey level."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for name in ours:
            assert_same(ours[name], theirs[name], exact, f"{where}[{name!r}]")
    elif isinstance(ours, tuple | list):
        assert len(ours) == len(theirs), where
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, exact, f"{where}[{i}]")
    elif ours is not None:
        assert_same_array(ours, theirs, exact, where)


def assert_same_array(ours, theirs, exact, where):
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), where
    if ours.dtype == object:
        assert_same(list(ours), list(theirs), exact, where)
    elif exact or ours.dtype.kind == "b":
        np.testing.assert_array_equal(ours, theirs, where)
    elif ours.dtype == np.uint8:
        np.testing.assert_allclose(ours.astype(int), theirs.astype(int), rtol=0, atol=1, err_msg=where)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=where)


@pytest.mark.parametrize("mode", MODES)
def test_one_dream_is_the_single_environment_bit_for_bit(make, mode):
    ours = play(make(1, mode, context_noise=0.3, num_steps=2))
    theirs = play(make(1, mode, sync=True, context_noise=0.3, num_steps=2))
    assert_same(ours, theirs, exact=True)


@pytest.mark.parametrize("mode", MODES)
def test_three_dreams_are_three_single_environments_up_to_rounding(make, mode):
    ours, theirs = play(make(3, mode)), play(make(3, mode, sync=True))
    assert_same(ours, theirs, exact=False)
    ends = [step for step in ours if len(step) == 5]
    assert any(step[2].any() for step in ends) and any(step[3].any() for step in ends)  # both kinds were compared
    assert all(len(np.unique(step[0])) > 10 for step in ours)  # and pictures, not flat colour


def test_dreams_that_step_in_groups_are_single_environments_up_to_rounding(make):
    """Seven on a CPU: four, then three."""
    assert_same(play(make(7), steps=4), play(make(7, sync=True), steps=4), exact=False)


def test_equal_seeds_give_equal_trajectories_bit_for_bit(three):
    first = play(three)
    play(three, seed=6)
    assert_same(play(three), first, exact=True)


def test_a_seed_for_all_is_counted_up_and_a_list_is_taken_as_it_is(three):
    counted = three.reset(seed=7)
    assert three.np_random_seed == (7, 8, 9)
    assert_same(three.reset(seed=[7, 8, 9]), counted, exact=True)
    assert_same(three.reset(seed=np.int64(7)), counted, exact=True)
    with pytest.raises(ValueError, match="must have 3 entries"):
        three.reset(seed=[1, 2])


def test_without_a_seed_each_dream_goes_on_with_its_own_stream(make):
    ours, theirs = make(2), make(2, sync=True)
    for seed in (3, None, [None, 8], None):
        assert_same(ours.reset(seed=seed), theirs.reset(seed=seed), exact=True)
    first = [env.np_random[0].integers(100) for env in (ours, theirs)]
    assert first[0] == first[1] and len(ours.np_random) == 2


def test_a_masked_reset_leaves_the_others_where_they_are(three):
    env = three
    before, _ = env.reset(seed=0)
    states = env.get_state()
    mask = np.array([False, True, False])
    options = {"reset_mask": mask}
    after, infos = env.reset(seed=10, options=options)
    assert options.keys() == {"reset_mask"}
    np.testing.assert_array_equal((before == after).all(axis=(1, 2, 3)), ~mask)
    np.testing.assert_array_equal(infos["_health"], mask)
    kept = [np.array_equal(a.key, b.key) for a, b in zip(states, env.get_state(), strict=True)]
    assert kept == [True, False, True] and env.np_random_seed == (0, 11, 2)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False, False], TypeError),
        (np.array([1, 0, 0]), TypeError),
        (np.ones(2, bool), ValueError),
        (np.zeros(3, bool), ValueError),
    ],
)
def test_what_is_no_mask_is_refused(three, mask, error):
    with pytest.raises(error, match="reset_mask"):
        three.reset(options={"reset_mask": mask})


def test_a_masked_reset_must_not_be_the_first(make):
    with pytest.raises(gym.error.ResetNeeded, match="never begun"):
        make(2).reset(options={"reset_mask": np.array([True, False])})


def test_all_dreams_begin_from_given_frames(make, game):
    n = 4
    rng = np.random.default_rng(0)
    options = {"context": rng.integers(256, size=(n, 120, 160, 3), dtype=np.uint8), "actions": np.zeros(n - 1, int)}
    ours, theirs = (env.reset(seed=0, options=dict(options)) for env in (make(2), make(2, sync=True)))
    assert_same(ours, theirs, exact=True)
    np.testing.assert_array_equal(ours[0][0], ours[0][1])
    with pytest.raises(ValueError, match="context must be uint8"):
        make(2).reset(options={**options, "context": options["context"][:2]})


def test_disabled_refuses_to_step_what_is_over(make):
    env = make(2, "Disabled", max_episode_steps=1)
    env.reset(seed=0)
    env.step([0, 0])
    with pytest.raises(gym.error.ResetNeeded, match=r"\[0, 1\].*reset_mask"):
        env.step([0, 0])
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"\[1\]"):
        env.step([0, 0])


def test_without_a_limit_nothing_is_truncated(calm_world_folder):
    env = NeuralDoomVector(2, checkpoint=str(calm_world_folder), max_episode_steps=-1)
    assert not any(step[3].any() for step in play(env, steps=12)[1:])
    env.close()


@pytest.mark.parametrize("actions", [0, [0], [0, 0, 3], [0, -1, 0], [0.0] * 3, [0, 0, np.nan], [[0] * 3], ["a"] * 3])
def test_what_is_no_action_is_refused_with_the_choices_and_nothing_is_lost(three, actions):
    with pytest.raises(gym.error.InvalidAction, match="3 integers out of 0 noop, 1 move_left, 2 move_right"):
        three.step(actions)
    three.step(np.array([0, 1, 2]))


def test_step_render_and_state_need_a_reset(make):
    env = make(2, render_mode="rgb_array")
    for call in (lambda: env.step([0, 0]), env.render, env.get_state):
        with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\)"):
            call()


def test_a_closed_environment_says_so(make):
    env = make(2, render_mode="rgb_array")
    env.reset(seed=0)
    env.close()
    env.close()
    for call in (env.reset, env.render, env.get_state, lambda: env.step([0, 0])):
        with pytest.raises(gym.error.ClosedEnvironmentError):
            call()


@pytest.mark.parametrize(
    ("kwargs", "error", "why"),
    [
        ({"autoreset_mode": "Sometimes"}, ValueError, "NextStep"),
        ({"num_envs": 0}, ValueError, "num_envs"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps"),
        ({"render_mode": "human"}, ValueError, "rgb_array"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"context_noise": 0.8}, ValueError, "context_noise"),
        ({"frame_skip": 1}, ValueError, "frame_skip"),
        ({"noise": 1}, TypeError, "unexpected keyword argument 'noise'; it has num_envs"),
    ],
)
def test_bad_arguments_are_refused(calm_world_folder, kwargs, error, why):
    with pytest.raises(error, match=why):
        NeuralDoomVector(**{"checkpoint": str(calm_world_folder), **kwargs})


@pytest.mark.parametrize("mode", [*MODES, *AutoresetMode])
def test_the_mode_is_in_the_metadata_and_the_attribute(make, mode):
    env = make(2, mode)
    assert env.metadata["autoreset_mode"] is env.autoreset_mode is AutoresetMode(mode)


def test_the_specification_goes_through_json(make):
    env = make(2, AutoresetMode.SAME_STEP, render_mode="rgb_array")
    again = gym.make_vec(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert (again.num_envs, again.autoreset_mode, again.max_episode_steps) == (2, AutoresetMode.SAME_STEP, 6)
    assert again.spec == env.spec
    again.close()


def test_the_time_limit_is_the_ids_own(calm_world_folder):
    env = gym.make_vec(ID, num_envs=1, checkpoint=str(calm_world_folder))
    assert env.unwrapped.max_episode_steps == 525
    env.close()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])  # noqa: S301
def test_copies_dream_the_same(make, clone):
    env = make(2)
    again = clone(env)
    assert_same(play(again, steps=3), play(env, steps=3), exact=True)
    again.close()


def test_results_are_fresh_at_every_call(three):
    env = three
    observation, infos = env.reset(seed=0)
    observation[:] = 0
    infos["health"][:] = -1
    for frame in env.render():
        assert frame.any()
        frame[:] = 0
    assert all(frame.any() for frame in env.render())
    first = env.step([0, 0, 0])
    kept = copy.deepcopy(first)
    env.step([1, 1, 1])
    assert_same(first, kept, exact=True)


def test_rendering_works_right_after_reset_and_shows_the_observations(three):
    observation, _ = three.reset(seed=0)
    assert isinstance(three.render(), tuple)
    np.testing.assert_array_equal(np.stack(three.render()), observation)
    observation = three.step([0, 1, 2])[0]
    np.testing.assert_array_equal(np.stack(three.render()), observation)


def test_without_a_render_mode_there_is_nothing_to_render(make):
    assert make(2).render() is None


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_compiled_again_after_the_first_episodes(make, mode, caplog):
    env = make(2, mode)
    with jax.log_compiles():
        play(env, steps=8)
        assert compilations(caplog)
        caplog.clear()
        play(env, steps=20, seed=9)
    assert not compilations(caplog)


def compilations(caplog):
    return [message for message in caplog.messages if message.startswith("Compiling")]


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_statistics_are_those_of_the_episodes(make, mode):
    env = RecordEpisodeStatistics(make(2, mode))
    sums, lengths, begun, compared = np.zeros(2), np.zeros(2, int), np.ones(2, bool), 0
    for step in play(env)[1:]:
        if len(step) == 2:  # a reset by mask
            continue
        _, rewards, terminated, truncated, infos = step
        done = terminated | truncated
        steps = begun if mode == "NextStep" else np.ones(2, bool)
        sums, lengths = sums + rewards * steps, lengths + steps
        if done.any():
            np.testing.assert_allclose(infos["episode"]["r"][done], sums[done])
            np.testing.assert_array_equal(infos["episode"]["l"][done], lengths[done])
        compared += done.sum()
        sums[done], lengths[done], begun = 0, 0, ~done
    assert compared > 5


def test_other_vector_wrappers_step_it(make):
    env = NormalizeReward(make(2))
    assert np.isfinite(play(env, steps=3)[-1][1]).all()


def test_a_video_is_recorded_from_the_first_frame_on(make, tmp_path, monkeypatch):
    """With a stand-in for moviepy, which is no dependency of ours: what counts is which frames it is given."""
    clips = []

    class Clip:
        def __init__(self, frames, fps):
            clips.append((np.stack(frames), fps))

        def write_videofile(self, path, logger=None):
            pass

    for name in ("moviepy", "moviepy.video", "moviepy.video.io"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    clip = types.ModuleType("moviepy.video.io.ImageSequenceClip")
    clip.ImageSequenceClip = Clip
    monkeypatch.setitem(sys.modules, clip.__name__, clip)
    env = make(2, render_mode="rgb_array")
    env = RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda i: i == 0, gc_trigger=None)
    first, _ = env.reset(seed=0)
    for _ in range(8):
        env.step([0, 0])
    env.close()
    frames, fps = clips[0]
    assert fps == 8.75 and 2 <= len(frames) <= 7 and frames.shape[3] == 3
    shown = frames[0].reshape(frames.shape[1] // 120, 120, -1, 160, 3).swapaxes(1, 2).reshape(2, 120, 160, 3)
    np.testing.assert_array_equal(shown, first)


def test_each_dream_goes_back_to_its_own_state(make, tiny_world_folder):
    env = make(2, checkpoint=str(tiny_world_folder))
    env.reset(seed=0)
    env.step([1, 2])
    states = env.get_state()
    ahead = [env.step([2, 0]) for _ in range(2)]
    assert [state.elapsed_steps for state in states] == [1, 1]
    env.reset(options={"state": states})
    assert_same([env.step([2, 0]) for _ in range(2)], ahead, exact=True)
    env.reset(options={"state": states[0]})
    np.testing.assert_array_equal(env.get_state()[1].context, states[0].context)
    with pytest.raises(ValueError, match="one Snapshot or 2 of them"):
        env.reset(options={"state": states[:1]})


def test_a_state_taken_back_keeps_its_count_of_steps(make, tiny_world_folder):
    env = make(2, checkpoint=str(tiny_world_folder), max_episode_steps=3)
    env.reset(seed=0)
    env.step([0, 0])
    env.reset(options={"state": env.get_state()})
    assert [env.step([0, 0])[3].tolist() for _ in range(2)] == [[False, False], [True, True]]


def test_what_is_over_is_no_place_to_begin(make):
    env = make(1, "Disabled", max_episode_steps=1)
    env.reset(seed=0)
    env.step([0])
    assert env.get_state()[0].ended
    with pytest.raises(SnapshotError, match="has ended"):
        env.reset(options={"state": env.get_state()})


def in_a_process_of_its_own(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_making_one_starts_no_jax_backend(calm_world_folder):
    code = """
import sys, gymnasium as gym
env = gym.make_vec("neural_env:NeuralDoom-v0", num_envs=2, checkpoint=sys.argv[1])
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    assert in_a_process_of_its_own(code, calm_world_folder) == ["False"]


def test_dreams_are_spread_over_the_devices_that_divide_them(make, calm_world_folder, tmp_path):
    code = """
import sys, gymnasium as gym, jax, numpy as np
frames = []
for n in (4, 3):
    env = gym.make_vec("neural_env:NeuralDoom-v0", num_envs=n, checkpoint=sys.argv[1], max_episode_steps=6)
    frames.append([env.reset(seed=5)[0]] + [env.step(np.arange(n) % 3)[0] for _ in range(10)])
    print(len(env._batch.carries.state.context.sharding.device_set))
np.savez(sys.argv[2], *map(np.stack, frames))
"""
    flags = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    assert in_a_process_of_its_own(code, calm_world_folder, tmp_path / "frames.npz", **flags) == ["2", "1"]
    with np.load(tmp_path / "frames.npz") as file:
        for n, name in ((4, "arr_0"), (3, "arr_1")):
            env = make(n)
            alone = np.stack([env.reset(seed=5)[0]] + [env.step(np.arange(n) % 3)[0] for _ in range(10)])
            assert abs(file[name].astype(int) - alone).max() <= 1


@pytest.mark.slow
def test_single_environments_also_run_in_gymnasiums_processes(calm_world_folder):
    code = """
import sys, gymnasium as gym, numpy as np
env = gym.make_vec("neural_env:NeuralDoom-v0", 2, vectorization_mode="async", checkpoint=sys.argv[1])
env.reset(seed=0)
print(env.step(np.zeros(2, int))[0].shape)
env.close()
"""
    assert "".join(in_a_process_of_its_own(code, calm_world_folder)) == "(2,120,160,3)"
