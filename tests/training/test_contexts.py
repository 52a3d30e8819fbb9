import numpy as np
import pytest

import neural_env
from neural_env.data.collect import CollectConfig, collect
from neural_env.data.mixture import Mixture
from neural_env.data.shards import Dataset
from neural_env.training import contexts as module
from neural_env.training.contexts import contexts
from neural_env.training.latents import encode_frames


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("played") / "data"
    collect(CollectConfig(out=folder, scenario="take_cover", episodes=3, first_seed=2))
    return folder


@pytest.fixture(scope="module")
def world(tiny_world_folder):
    return neural_env.load(tiny_world_folder)


@pytest.fixture(scope="module")
def played(world, data):
    """The actions of each episode, and its frames as latents."""
    episodes = [episode for _, episode in Dataset.open(data).numbered(Dataset.open(data).manifest.of_split("train")[0])]
    return [(e.actions, encode_frames(world.world.autoencoder, e.frames).astype(np.float16)) for e in episodes]


def drawn(world, data, cache, mixture, count=40):
    return contexts(world, (data,), count, mixture, 0, cache / "starts.safetensors")


def place(played, latents, actions):
    """The episode and the step of a context, found by its pictures; its actions must be those between them."""
    for number, (done, frames) in enumerate(played):
        for last in range(len(latents) - 1, len(frames)):
            if np.allclose(frames[last - len(latents) + 1 : last + 1], latents, atol=2e-3):
                assert done[last - len(actions) : last].tolist() == actions.tolist()
                return number, last
    raise AssertionError("it is of no episode")


def test_contexts_are_moments_of_whole_episodes_with_the_actions_between_their_frames(world, data, played, tmp_path):
    starts = drawn(world, data, tmp_path, Mixture(uniform=1.0))
    places = [place(played, *row) for row in zip(starts.latents, starts.actions, strict=True)]
    assert {number for number, _ in places} == {0, 1, 2} and len(set(places)) > 20
    assert all(last < len(played[number][1]) - 1 for number, last in places)  # the last frame repeats the one before


def test_a_mixture_says_which_moments(world, data, played, tmp_path):
    deadly = Mixture(events=1.0, kinds=("death",), reach=1, lead=5)
    starts = drawn(world, data, tmp_path, deadly)
    for row in zip(starts.latents, starts.actions, strict=True):
        number, last = place(played, *row)
        assert last >= len(played[number][0]) - 6  # six steps before the last one at most


def test_contexts_are_the_same_however_many_are_in_memory_at_a_time(world, data, tmp_path, monkeypatch):
    whole = drawn(world, data, tmp_path, Mixture(uniform=1.0), 17)
    monkeypatch.setattr(module, "_TOGETHER", 5)
    (tmp_path / "parts").mkdir()
    parts = drawn(world, data, tmp_path / "parts", Mixture(uniform=1.0), 17)
    np.testing.assert_array_equal(whole.actions, parts.actions)
    np.testing.assert_allclose(whole.latents, parts.latents, atol=2e-3)


def test_they_are_kept_and_made_again_where_what_was_kept_is_damaged(world, data, tmp_path, monkeypatch):
    first = drawn(world, data, tmp_path, Mixture(uniform=1.0), 8)
    cache = tmp_path / "starts.safetensors"
    monkeypatch.setattr(module, "_moments", lambda *_: pytest.fail("they were kept"))
    np.testing.assert_array_equal(drawn(world, data, tmp_path, Mixture(uniform=1.0), 8).latents, first.latents)
    monkeypatch.undo()
    cache.write_bytes(cache.read_bytes()[:50])
    np.testing.assert_array_equal(drawn(world, data, tmp_path, Mixture(uniform=1.0), 8).latents, first.latents)


def test_an_event_that_never_comes_is_named(world, data, tmp_path):
    with pytest.raises(ValueError, match="no window ends near any of kill"):
        drawn(world, data, tmp_path, Mixture(events=1.0, kinds=("kill",)))


def test_episodes_that_are_too_short_are_refused(world, tmp_path):
    collect(CollectConfig(out=tmp_path / "short", scenario="take_cover", episodes=2, first_seed=2, max_episode_steps=2))
    with pytest.raises(ValueError, match="has no training episode of 4 steps"):
        drawn(world, tmp_path / "short", tmp_path, Mixture(uniform=1.0))


def test_a_dataset_of_another_game_is_refused(world, tmp_path):
    collect(CollectConfig(out=tmp_path / "other", scenario="basic", episodes=2, first_seed=2, max_episode_steps=8))
    with pytest.raises(ValueError, match=r"has scenario 'basic', the world dreams 'take_cover': give its own data"):
        drawn(world, tmp_path / "other", tmp_path, Mixture(uniform=1.0))
