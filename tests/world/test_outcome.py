import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.outcome import BinnedConfig, PointConfig, Truth, symexp, symlog, two_hot
from neural_env.world.parameters import replaced

CONFIGS = {"points": PointConfig(width=4, hidden=16), "bins": BinnedConfig(bins=9, width=4, blocks=1, hidden=16)}
GRID, CHANNELS, CONTEXT, ACTIONS = (4, 5), 3, 4, 3


def model_of(kind, variables, context=CONTEXT):
    return CONFIGS[kind].build(GRID, CHANNELS, context, ACTIONS, variables, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module", params=CONFIGS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(perturbed, kind):
    return perturbed(model_of(kind, 2))


@pytest.fixture(scope="module")
def points(perturbed):
    return perturbed(model_of("points", 2))


@pytest.fixture(scope="module")
def binned(perturbed):
    """Bins over rewards from -5 to 101, health from 0 to 100 and ammunition from 10 to 50."""
    model = perturbed(model_of("bins", 2))
    measured = model.statistics(np.array([-5.0, 4.0, 101.0]), np.array([[0.0, 10.0], [100.0, 50.0]]))
    for name, array in measured.items():
        getattr(model, name)[...] = jnp.asarray(array, jnp.float32)
    return model


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


# Both kinds.


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


def test_the_variables_alone_are_those_of_the_whole_outcome(model, inputs):
    context, actions, latent = inputs
    alone = model.variables(context[:, -1], actions[:, -1], latent)
    np.testing.assert_allclose(alone, model(*inputs).variables, rtol=1e-5)


def test_a_game_without_variables_has_none(kind, inputs):
    outcome = model_of(kind, 0)(*inputs)
    assert outcome.variables.shape == (2, 0) and outcome.reward.shape == outcome.termination_logit.shape == (2,)


def test_a_past_of_one_frame_is_enough(kind, inputs):
    context, actions, latent = inputs
    outcome = model_of(kind, 2, context=1)(context[:, -1:], actions[:, -1:], latent)
    assert outcome.variables.shape == (2, 2) and jnp.isfinite(outcome.termination_logit).all()


def test_over_drawing_shifts_the_log_odds_that_are_trained_and_not_those_foretold(model, inputs):
    truth = Truth(jnp.ones(2), jnp.array([1.0, 0.0]), jnp.ones((2, 2)))
    logit = model(*inputs).termination_logit
    expected = jax.nn.softplus(jnp.array([-1.0, 1.0]) * (logit + 3.0))
    np.testing.assert_allclose(model.losses(*inputs, truth, 3.0)["hazard"], expected, rtol=1e-5)


# Points.


def test_reward_comes_out_of_symlog(points, inputs):
    outcome = points(*inputs)
    np.testing.assert_allclose(outcome.reward, symexp(points.raw(*inputs)[0]), rtol=1e-6)
    assert (outcome.last_reward == outcome.reward).all()


def test_variables_are_given_in_the_games_own_units(points, inputs):
    statistics = {"variable_mean": jnp.array([60.0, 3.0]), "variable_std": jnp.array([30.0, 0.5])}
    scaled = replaced(points, statistics)
    expected = points.raw(*inputs)[2] * np.array([30.0, 0.5]) + np.array([60.0, 3.0])
    np.testing.assert_allclose(scaled(*inputs).variables, expected, rtol=1e-5)


# Bins.


@pytest.mark.parametrize("bins", [np.linspace(-3, 5, 9), np.array([-7.0, -1.0, 0.0, 0.5, 20.0])])
def test_two_hot_has_the_mean_that_it_encodes_and_no_more_than_two_bins(bins):
    x = np.random.default_rng(0).uniform(bins[0], bins[-1], (4, 50)).astype(np.float32)
    weights = np.asarray(two_hot(jnp.asarray(x), jnp.asarray(bins, jnp.float32)))
    np.testing.assert_allclose(weights @ bins, x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert ((weights > 0).sum(axis=-1) <= 2).all()


def test_two_hot_clips_what_is_outside_of_the_bins():
    weights = two_hot(jnp.array([-9.0, 9.0]), jnp.array([0.0, 1.0, 2.0]))
    assert weights.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_bins_cover_the_range_of_the_data_the_rewards_evenly_in_symlog(binned):
    rewards, variables = np.asarray(binned.reward_bins[...]), np.asarray(binned.variable_bins[...])
    np.testing.assert_allclose(rewards[[0, -1]], [-5, 101], rtol=1e-4)
    steps = np.diff(np.asarray(symlog(jnp.asarray(rewards))))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    np.testing.assert_allclose(variables, [np.linspace(0, 100, 9), np.linspace(10, 50, 9)], rtol=1e-5)


def test_what_never_changes_has_bins_all_the_same(binned):
    measured = binned.statistics(np.zeros(3), np.full((3, 1), 7.0))
    assert all((np.diff(array) > 0).all() for array in measured.values())


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_predictions_never_leave_the_range_that_the_game_has(binned, inputs, scale):
    context, actions, latent = inputs
    outcome = binned(scale * context, actions, -scale * latent)
    for reward in (outcome.reward, outcome.last_reward):
        assert (reward >= -5 - 1e-3).all() and (reward <= 101 + 1e-3).all()
    assert (outcome.variables >= np.array([-1e-3, 10 - 1e-3])).all()
    assert (outcome.variables <= np.array([100 + 1e-3, 50 + 1e-3])).all()


def test_the_last_transition_teaches_the_readout_nothing_and_the_last_reward_alone(binned, inputs):
    truth = Truth(jnp.array([4.0, 4.0]), jnp.array([1.0, 0.0]), jnp.array([[50.0, 20.0]] * 2))
    losses = binned.losses(*inputs, truth, 0.0)
    read = ("reward", "variables", "foreseen")
    assert losses["last_reward"][1] == 0 and all(losses[name][0] == 0 for name in read)
    assert losses["last_reward"][0] > 0 and all(losses[name][1] > 0 for name in read)


def test_what_is_foreseen_is_foreseen_without_the_next_frame_and_is_what_training_asks_for(binned, inputs):
    context, actions, latent = inputs
    foreseen = binned(*inputs).foreseen
    assert (foreseen == binned(context, actions, -latent).foreseen).all()
    assert (binned(context, (actions + 1) % ACTIONS, latent).foreseen != foreseen).all()

    third = jnp.array([9 + 2, 2 * 9 + 2])  # of each variable's bins, after those of the last reward
    sure = replaced(binned, {"hazard.rest.bias": binned.hazard.rest.bias[...].at[third].set(50.0)})
    of_third = binned.variable_bins[...][:, 2]
    np.testing.assert_allclose(sure(*inputs).foreseen, jnp.tile(of_third, (2, 1)), rtol=1e-3)

    def loss(at, ends=0.0):
        return sure.losses(*inputs, Truth(jnp.zeros(2), jnp.full(2, ends), jnp.tile(at, (2, 1))), 0.0)["foreseen"]

    assert (loss(of_third) < 0.01).all() and (loss(of_third + jnp.array([30.0, 0.0])) > 10).all()
    assert (loss(of_third + 30, ends=1.0) == 0).all()  # what follows the last transition is shown to no one


def test_points_foresee_what_they_read(points, inputs):
    outcome = points(*inputs)
    assert (outcome.foreseen == outcome.variables).all()


def test_termination_looks_at_the_present_variables(binned, inputs):
    blind = replaced(binned, {"readout.out.kernel": jnp.zeros_like(binned.readout.out.kernel[...])})
    assert (blind(*inputs).termination_logit != binned(*inputs).termination_logit).all()
