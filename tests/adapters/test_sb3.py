"""The adapter for Stable-Baselines3 against its own `DummyVecEnv` of single environments, which it must be equal to."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import tile_images

from neural_env.adapters.sb3 import DreamVecEnv

ID = "neural_env:NeuralDoom-v0"


@pytest.fixture(scope="module")
def make(mortal_world_folder):
    """Adapters over worlds whose episodes end after some steps, by death or by the time limit of 3 steps."""
    made = []

    def make(num_envs=1, wrapper=lambda envs: envs, **kwargs):
        kwargs = {"checkpoint": str(mortal_world_folder), "max_episode_steps": 3, **kwargs}
        made.append(DreamVecEnv(wrapper(gym.make_vec(ID, num_envs, autoreset_mode="SameStep", **kwargs))))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


@pytest.fixture(scope="module")
def two(make):
    """Two dreams for the tests that leave them usable: compiling takes seconds."""
    return make(2, render_mode="rgb_array")


def play(envs, steps=25, seed=3):
    """What a `VecEnv` says, and the infos of its resets."""
    envs.seed(seed)
    said = [(envs.reset(), list(envs.reset_infos))]
    rng = np.random.default_rng(0)
    for _ in range(steps):
        said.append((*envs.step(rng.integers(3, size=envs.num_envs)), list(envs.reset_infos)))
    return said


def test_one_dream_is_stable_baselines_own_adapter_bit_for_bit(make, mortal_world_folder):
    single = DummyVecEnv([lambda: gym.make(ID, checkpoint=str(mortal_world_folder), max_episode_steps=3)])
    ours, theirs = play(make()), play(single)
    single.close()
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_equal(mine, other)
        assert [type(part) for part in mine] == [type(part) for part in other]
        assert [getattr(part, "dtype", None) for part in mine] == [getattr(part, "dtype", None) for part in other]
    endings = [infos[0]["TimeLimit.truncated"] for _, _, dones, infos, _ in ours[1:] if dones[0]]
    assert True in endings and False in endings  # both kinds were compared


def test_the_last_frame_is_in_the_infos_and_the_first_one_in_the_observation(two):
    for _, _, dones, infos, _ in play(two)[1:]:
        for done, info in zip(dones, infos, strict=True):
            assert ("terminal_observation" in info) == done
            if done:
                assert two.observation_space.contains(info["terminal_observation"])


def test_a_deadly_step_at_the_time_limit_is_no_truncation(make):
    class Both(gym.vector.VectorWrapper):
        def step(self, actions):
            observations, rewards, terminated, truncated, infos = self.env.step(actions)
            return observations, rewards, terminated | truncated, truncated, infos

    endings = [step[3][0]["TimeLimit.truncated"] for step in play(make(wrapper=Both))[1:] if step[2][0]]
    assert endings and not any(endings)


def test_seeds_count_up_and_serve_one_reset(two):
    assert two.seed(7) == [7, 8]
    first = two.reset()
    assert two.get_attr("np_random_seed") == [7, 8]
    assert (two.reset() != first).any()
    two.seed(7)
    assert (two.reset() == first).all()


def test_options_serve_one_reset_and_are_the_same_for_all_or_a_snapshot_for_each(two):
    two.seed(0)
    two.reset()
    two.step(np.array([1, 2]))
    states = two.env_method("get_state")
    frames = np.stack([state.frame for state in states])
    two.set_options([{"state": state} for state in states])
    assert (two.reset() == frames).all()
    two.set_options({"state": states[1]})
    assert (two.reset() == frames[[1, 1]]).all()
    assert (two.reset() != frames).any()
    two.set_options([{"state": states[0]}, {}])
    with pytest.raises(ValueError, match="give set_options one dict, or a list"):
        two.reset()
    two.set_options(None)
    two.reset()


def test_attributes_are_the_vector_environments(two):
    assert two.get_attr("render_mode", 0) == ["rgb_array"]
    assert two.get_attr("action_names") == [("noop", "move_left", "move_right")] * 2
    assert two.has_attr("context_noise") and not two.has_attr("gravity")
    with pytest.raises(AttributeError, match="NeuralDoomVector has no attribute 'gravity'"):
        two.get_attr("gravity")


def test_a_dial_is_set_for_all_dreams_or_not_at_all(make):
    envs = make(2)
    envs.set_attr("context_noise", 0.5)
    assert envs.get_attr("context_noise") == [0.5, 0.5] and envs.envs.unwrapped.context_noise == 0.5
    with pytest.raises(ValueError, match="all dreams share 'context_noise'"):
        envs.set_attr("context_noise", 0.1, indices=0)


def test_methods_give_each_dream_its_part(two):
    two.reset()
    whole = two.env_method("get_state")
    assert [state.frame.shape for state in whole] == [(120, 160, 3)] * 2
    (part,) = two.env_method("get_state", indices=1)
    assert (part.frame == whole[1].frame).all()


def test_gymnasiums_vector_wrappers_may_sit_inside(make):
    envs = make(2, RecordEpisodeStatistics)
    assert envs.env_is_wrapped(RecordEpisodeStatistics) == [True, True]
    assert envs.env_is_wrapped(gym.wrappers.TimeLimit, indices=0) == [False]
    total, compared = np.zeros(2), 0
    for _, rewards, dones, infos, _ in play(envs)[1:]:
        total += rewards
        for i in np.flatnonzero(dones):
            assert infos[i]["episode"]["r"] == pytest.approx(total[i], rel=1e-5)
            total[i], compared = 0, compared + 1
    assert compared > 5


def test_the_screens_are_rendered_as_one_picture(two):
    observations = two.reset()
    assert (np.stack(two.get_images()) == observations).all()
    assert (two.render() == tile_images(observations)).all()
    assert two.metadata["render_fps"] == 35 / 4


def test_without_a_render_mode_there_are_no_images(make):
    envs = make()
    envs.reset()
    assert envs.get_images() == [None]


def test_its_own_wrappers_step_it(two):
    envs = VecTransposeImage(VecFrameStack(VecMonitor(two), n_stack=4))
    envs.seed(0)
    observations = envs.reset()
    assert observations.shape == (2, 12, 120, 160) and envs.observation_space.contains(observations[0])
    returns = []
    for _ in range(12):
        observations, _, dones, infos = envs.step(np.zeros(2, int))
        returns += [info["episode"]["l"] for info in infos if "episode" in info]
        assert all(infos[i]["terminal_observation"].shape == (12, 120, 160) for i in np.flatnonzero(dones))
    assert len(returns) > 5 and max(returns) <= 3


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_another_autoreset_mode_is_refused_with_the_cure(mortal_world_folder, mode):
    envs = gym.make_vec(ID, 2, autoreset_mode=mode, checkpoint=str(mortal_world_folder))
    with pytest.raises(ValueError, match='autoreset_mode="SameStep"'):
        DreamVecEnv(envs)
    envs.close()


def test_a_single_environment_is_refused_with_the_cure(mortal_world_folder):
    env = gym.make(ID, checkpoint=str(mortal_world_folder))
    with pytest.raises(TypeError, match=r"gym\.make_vec"):
        DreamVecEnv(env)
    env.close()
