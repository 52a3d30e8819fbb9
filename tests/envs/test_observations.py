"""What an agent may be shown: frames, the model's own latents, or ViZDoom's dictionary."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.vector import NeuralDoomVector
from neural_env.world.autoencoder import Autoencoder


@pytest.fixture(scope="module")
def make(mortal_world_folder):
    made = []

    def make(observation, kind=NeuralDoom, **arguments):
        made.append(kind(checkpoint=str(mortal_world_folder), observation=observation, **arguments))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture
def no_decoder(monkeypatch):
    def refuse(*_):
        raise AssertionError("the decoder was run")

    monkeypatch.setattr(Autoencoder, "decode", refuse)
    return monkeypatch


@pytest.mark.parametrize("observation", ["latent", "dict"])
def test_gymnasiums_checker_is_content(mortal_world_folder, observation):
    folder = str(mortal_world_folder)
    env = gym.make("NeuralDoom-v0", checkpoint=folder, observation=observation, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()


def test_latents_are_seen_without_ever_decoding(make, no_decoder):
    env, many = make("latent"), make("latent", NeuralDoomVector, num_envs=2, autoreset_mode="SameStep")
    assert env.observation_space.shape == (15, 20, 4) and env.observation_space.dtype == np.float32
    first, _ = env.reset(seed=0)
    many.reset(seed=0)
    for _ in range(12):
        latents, *_ = many.step([1, 1])
        assert latents.shape == (2, 15, 20, 4) and latents.dtype == np.float32
    assert first.dtype == np.float32 and (env.step(1)[0] != first).any()


def test_a_latent_is_the_last_of_the_past_and_the_screen_is_decoded_when_asked_for(make):
    env, frames = make("latent", render_mode="rgb_array"), make("rgb")
    env.reset(seed=0)
    frame, _ = frames.reset(seed=0)
    np.testing.assert_array_equal(env.render(), frame)
    latent, frame = env.step(1)[0], frames.step(1)[0]
    state = env.get_state()
    np.testing.assert_array_equal(latent, state.context[-1])
    assert np.abs(env.render().astype(int) - frame).max() <= 1
    np.testing.assert_array_equal(state.frame, env.render())
    latent[:] = 0
    np.testing.assert_array_equal(env.set_state(state), state.context[-1])


def test_rendering_before_the_reset_is_refused_whatever_is_seen(make):
    for observation in ("latent", "dict"):
        with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
            make(observation, render_mode="rgb_array").render()


def test_a_dictionary_is_the_screen_and_the_variables(make):
    env, frames = make("dict"), make("rgb")
    for seen, (frame, *_, info) in (
        (env.reset(seed=0), frames.reset(seed=0)),
        (env.step(1), frames.step(1)),
    ):
        np.testing.assert_array_equal(seen[0]["screen"], frame)
        assert seen[0]["gamevariables"].tolist() == list(info.values()) and env.observation_space.contains(seen[0])


def test_a_dictionary_is_that_of_vizdooms_own_environment(make):
    """At our size, with the HUD and at our frame skip, all of which are arguments of ViZDoom's."""
    from vizdoom import ScreenResolution, gymnasium_wrapper  # noqa: F401  registers the id

    env = gym.make("VizdoomTakeCover-v1", frame_skip=4, screen_resolution=ScreenResolution.RES_160X120, render_hud=True)
    theirs = env.observation_space
    seen, _ = env.reset(seed=0)
    env.close()
    ours = make("dict")
    assert ours.observation_space == theirs and list(ours.observation_space) == list(theirs)
    assert ours.reset(seed=0)[0].keys() == seen.keys()


def listed(step):
    """A step whose `final_obs` are a list, which NumPy can compare."""
    return *step[:4], {name: list(values) if name == "final_obs" else values for name, values in step[4].items()}


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("observation", ["latent", "dict"])
def test_many_dreams_show_what_as_many_single_ones_show(mortal_world_folder, observation, mode):
    arguments = {"checkpoint": str(mortal_world_folder), "observation": observation, "max_episode_steps": 3}
    ours = NeuralDoomVector(1, autoreset_mode=mode, **arguments)
    theirs = SyncVectorEnv([lambda: NeuralDoom(**arguments)], autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    np.testing.assert_equal(ours.reset(seed=3), theirs.reset(seed=3))
    for _ in range(8):
        np.testing.assert_equal(listed(ours.step(np.array([1]))), listed(theirs.step(np.array([1]))))
    ours.close()
    theirs.close()


def test_many_latents_are_rendered_right_after_the_reset(make):
    env = make("latent", NeuralDoomVector, num_envs=2, render_mode="rgb_array")
    frames = make("rgb", NeuralDoomVector, num_envs=2)
    env.reset(seed=0)
    shown = np.abs(np.stack(env.render()).astype(int) - frames.reset(seed=0)[0])
    assert shown.max() <= 1
    env.step([0, 1])
    assert np.abs(np.stack(env.render()).astype(int) - frames.step([0, 1])[0]).max() <= 1
    assert [state.frame.shape for state in env.get_state()] == [(120, 160, 3)] * 2


def test_torchrl_reads_many_dreams_to_the_end_of_their_episodes(mortal_world_folder):
    torchrl = pytest.importorskip("torchrl.envs")
    env = gym.make_vec(
        "neural_env:NeuralDoom-v0", num_envs=2, checkpoint=str(mortal_world_folder), autoreset_mode="SameStep"
    )
    wrapped = torchrl.GymWrapper(env)
    torchrl.check_env_specs(wrapped)
    steps = wrapped.rollout(12, break_when_any_done=False)
    assert steps["next", "terminated"].any() and steps["health"].shape == (2, 12)
    wrapped.close()
