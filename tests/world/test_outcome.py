import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.outcome import OutcomeConfig, OutcomeModel, symexp, symlog

CONFIG = OutcomeConfig(width=4, hidden=16)
GRID, CHANNELS, CONTEXT, ACTIONS = (4, 5), 3, 4, 3


def model_of(variables):
    return OutcomeModel(CONFIG, GRID, CHANNELS, CONTEXT, ACTIONS, variables, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model(perturbed):
    return perturbed(model_of(2))


@pytest.fixture
def inputs():
    keys = jax.random.split(jax.random.key(0))
    context = jax.random.normal(keys[0], (2, CONTEXT, *GRID, CHANNELS))
    latent = jax.random.normal(keys[1], (2, *GRID, CHANNELS))
    return context, jnp.array([[0, 1, 2, 1], [2, 2, 0, 0]], jnp.int32), latent


def test_symexp_undoes_symlog():
    x = jnp.array([-1e4, -116.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 8.0, 101.0, 1e4])
    np.testing.assert_allclose(symexp(symlog(x)), x, rtol=1e-4, atol=1e-7)


def test_symlog_is_odd_and_logarithmic():
    np.testing.assert_allclose(symlog(jnp.array([np.e - 1, 1 - np.e, np.e**5 - 1])), [1, -1, 5], rtol=1e-5)


def test_termination_is_foretold_without_the_next_frame(model, inputs):
    context, actions, latent = inputs
    outcome, other = model(context, actions, latent), model(context, actions, -latent)
    assert (outcome.termination_logit == other.termination_logit).all()
    assert (outcome.reward != other.reward).all() and (outcome.variables != other.variables).all()


@pytest.mark.parametrize("age", range(CONTEXT))
def test_termination_depends_on_every_past_frame_and_action(model, inputs, age):
    context, actions, latent = inputs
    logit = model(*inputs).termination_logit
    assert (model(context.at[:, age].add(1.0), actions, latent).termination_logit != logit).all()
    other = actions.at[:, age].set((actions[:, age] + 1) % ACTIONS)
    assert (model(context, other, latent).termination_logit != logit).all()


def test_reward_is_read_off_the_transition_alone(model, inputs):
    context, actions, latent = inputs
    older = model(context.at[:, :-1].add(1.0), actions.at[:, :-1].set(0), latent)
    assert (older.reward == model(*inputs).reward).all()
    assert (model(context, actions.at[:, -1].set(2), latent).reward != model(*inputs).reward).all()


def test_reward_comes_out_of_symlog(model, inputs):
    np.testing.assert_allclose(model(*inputs).reward, symexp(model.raw(*inputs)[0]), rtol=1e-6)


def test_variables_are_given_in_the_games_own_units(model, inputs):
    graph, state = nnx.split(model)
    scaled = nnx.merge(graph, state)
    scaled.variable_mean[...] = jnp.array([60.0, 3.0])
    scaled.variable_std[...] = jnp.array([30.0, 0.5])
    raw = model.raw(*inputs)[2]
    expected = raw * np.array([30.0, 0.5]) + np.array([60.0, 3.0])
    np.testing.assert_allclose(scaled(*inputs).variables, expected, rtol=1e-5)
    context, actions, latent = inputs
    np.testing.assert_allclose(scaled.variables(context[:, -1], actions[:, -1], latent), expected, rtol=1e-5)


def test_a_game_without_variables_has_none(inputs):
    outcome = model_of(0)(*inputs)
    assert outcome.variables.shape == (2, 0) and outcome.reward.shape == outcome.termination_logit.shape == (2,)
