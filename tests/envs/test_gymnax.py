from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.checkpoint import load, save
from neural_env.envs import gymnax
from neural_env.envs.dials import Dials
from neural_env.envs.neural_doom import NeuralDoom


@pytest.fixture(scope="module")
def made(tiny_world_folder):
    return gymnax.make(str(tiny_world_folder), max_steps_in_episode=5)


@pytest.fixture(scope="module")
def roll(made):
    """Three dreams, twelve random steps each, in one compiled scan."""
    env, params = made

    @jax.jit
    def roll(key, params):
        def one(carry, key):
            observation, state = carry
            key_action, key_step = jax.random.split(key)
            actions = jax.vmap(env.action_space(params).sample)(jax.random.split(key_action, 3))
            keys = jax.random.split(key_step, 3)
            after = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, actions, params)
            return after[:2], (observation, state.time, *after[2:])

        key_reset, key_roll = jax.random.split(key)
        begun = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key_reset, 3), params)
        return jax.lax.scan(one, begun, jax.random.split(key_roll, 12))

    return lambda seed, params=params: roll(jax.random.key(seed), params)


def test_episodes_begin_anew_within_the_step_that_ends_them(made, roll):
    _, (observations, time, reward, done, info) = roll(0)
    assert observations.shape == (12, 3, 120, 160, 3) and observations.dtype == jnp.uint8
    assert reward.shape == done.shape == info["health"].shape == (12, 3)
    assert time[:, 0].tolist() == [0, 1, 2, 3, 4] * 2 + [0, 1]
    np.testing.assert_array_equal(done, time == 4)
    assert (info["truncated"] == done).all() and not info["terminated"].any() and (info["discount"] == 1).all()


def test_an_episode_begins_with_one_of_the_starts(made, roll):
    env, params = made
    _, (observations, time, *_) = roll(1)
    begun = np.asarray(observations)[np.asarray(time) == 0]
    assert (begun[:, None] == np.asarray(params.first)).all(axis=(2, 3, 4)).any(axis=1).all()
    _, state = env.reset(jax.random.key(3), params)
    looked_up, _ = env.reset(jax.random.key(3), params)
    assert np.abs(np.asarray(env.get_obs(state, params)).astype(int) - looked_up).max() <= 1


def test_equal_keys_show_what_the_gymnasium_environment_shows(made, tiny_world_folder):
    env, params = made
    single = NeuralDoom(checkpoint=str(tiny_world_folder))
    single.reset(seed=0)
    first = single.get_state()
    state = gymnax.EnvState(
        dream=gymnax.DreamState(jnp.asarray(first.context), jnp.asarray(first.actions)),
        time=jnp.int32(0),
        terminated=jnp.bool_(False),
    )
    step = jax.jit(env.step_env)
    for action in (0, 1, 2, 2):
        _, key = jax.random.split(jax.random.wrap_key_data(jnp.asarray(single.get_state().key)))
        frame, reward, terminated, _, info = single.step(action)
        seen, state, theirs, done, told = step(key, state, action, params)
        assert np.abs(np.asarray(seen).astype(int) - frame).max() <= 1 and bool(done) == terminated
        np.testing.assert_allclose([theirs, told["health"]], [reward, info["health"]], rtol=1e-3, atol=1e-4)
    single.close()


def test_another_world_and_other_dials_are_only_other_parameters(made, roll, make_world):
    from dataclasses import replace

    _, params = made
    one = roll(0)[1][0]
    dying = params.replace(world=make_world(termination_logit=9.0), max_steps_in_episode=-1)
    _, (_, _, _, done, info) = roll(0, dying)
    assert done.all() and info["terminated"].all() and (info["discount"] == 0).all()
    cold = params.replace(dials=replace(params.dials, temperature=np.float32(0)))
    assert (roll(0, cold)[1][0] != one).any()


def test_keys_may_be_of_the_old_kind(made):
    env, params = made
    old, new = (env.reset(key, params)[0] for key in (jax.random.PRNGKey(4), jax.random.key(4)))
    np.testing.assert_array_equal(old, new)


def test_the_spaces_hold_what_is_seen_and_what_is_sampled(made, roll):
    env, params = made
    actions, observations = env.action_space(params), env.observation_space(params)
    assert env.num_actions == actions.n == 3 and env.name == "NeuralDoom-v0" and env.default_params is params
    drawn = jax.vmap(actions.sample)(jax.random.split(jax.random.key(0), 100))
    assert set(drawn.tolist()) == {0, 1, 2} and actions.contains(drawn).all() and not actions.contains(3)
    assert observations.shape == (120, 160, 3) and observations.contains(roll(0)[1][0][0, 0])
    assert observations.sample(jax.random.key(0)).dtype == jnp.uint8


def test_latents_are_seen_without_decoding(tiny_world_folder, monkeypatch):
    from neural_env.world.model import WorldModel

    def refuse(*_):
        raise AssertionError("the decoder was run")

    monkeypatch.setattr(WorldModel, "decode", refuse)
    env, params = gymnax.make(str(tiny_world_folder), observation="latent", dials=Dials(num_steps=2))
    first, state = env.reset(jax.random.key(0), params)
    seen, *_ = jax.jit(env.step)(jax.random.key(1), state, 1, params)
    assert first.shape == seen.shape == env.observation_space(params).shape == (15, 20, 4)
    assert params.max_steps_in_episode == 525 and (env.get_obs(state, params) == first).all()
    assert env.observation_space(params).contains(env.observation_space(params).sample(jax.random.key(0)))


def test_a_world_is_run_with_as_many_steps_as_suit_it_unless_told_otherwise(tiny_world_folder, tmp_path):
    loaded = load(tiny_world_folder)
    save(replace(loaded, model=replace(loaded.model, num_steps=2)), tmp_path)
    told = gymnax.make(str(tmp_path), observation="latent", dials=Dials(temperature=0.5))[1].dials
    untold = gymnax.make(str(tmp_path), observation="latent")[1].dials
    assert (untold.num_steps, untold.temperature) == (2, 1) and (told.num_steps, told.temperature) == (1, 0.5)


def test_what_cannot_be_seen_or_timed_is_refused(tiny_world_folder):
    with pytest.raises(ValueError, match="observation must be one of 'rgb', 'latent'"):
        gymnax.make(str(tiny_world_folder), observation="dict")
    with pytest.raises(ValueError, match="max_episode_steps"):
        gymnax.make(str(tiny_world_folder), max_steps_in_episode=0)
