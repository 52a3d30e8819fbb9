import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.world.shortcut import Shortcut, landing, ramp

MEAN, STD = 0.3, 0.6  # of the Gaussian data whose flow is known
SHAPE = (64, 8, 8, 4)
CONFIG = Shortcut(halvings=3)


def spread(tau):
    """Deviation of x_tau."""
    return jnp.sqrt((tau * STD) ** 2 + (1 - tau) ** 2)


def exact(x, tau, d):
    """Towards where a step of length d must go to stay on the flow of the data N(MEAN, STD^2), in closed form."""
    tau, d = tau[:, None, None, None], d[:, None, None, None]
    there = (tau + d) * MEAN + spread(tau + d) / spread(tau) * (x - tau * MEAN)
    return x + (there - x) * (1 - tau) / d


def optimal(x, tau, d=None):
    """E[x1 | x_tau], the shortest step's: the mean of two estimates, each weighed by its precision."""
    tau = tau[:, None, None, None]
    return MEAN + tau * STD**2 / spread(tau) ** 2 * (x - tau * MEAN)


def network(shortcuts):
    """The network that these shortcuts are made of."""
    return lambda x, tau, c_step: shortcuts(x, tau, 2.0 ** (-CONFIG.halvings * c_step))


def data(shape=SHAPE):
    return MEAN + STD * jax.random.normal(jax.random.key(7), shape)


def test_the_network_is_told_time_and_step_within_0_and_1():
    told = []
    predict = CONFIG.shortcuts(lambda x, tau, c_step: told.append((tau, c_step)) or x)
    predict(data(), jnp.full(64, 0.25), jnp.full(64, 1 / 8))
    predict(data(), jnp.full(64, 0.25), jnp.ones(64))
    assert [(float(tau[0]), float(step[0])) for tau, step in told] == [(0.25, 1.0), (0.25, 0.0)]


@pytest.mark.parametrize("num_steps", [1, 2, 4, 8])
def test_exact_shortcuts_draw_from_the_data_in_any_number_of_steps(num_steps):
    drawn = CONFIG.sample(network(exact), jax.random.key(0), SHAPE, num_steps)
    noise = jax.random.normal(jax.random.key(0), SHAPE)
    np.testing.assert_allclose(drawn, MEAN + STD * noise, rtol=1e-3, atol=1e-4)


def test_without_shortcuts_one_step_is_the_mean_and_many_are_the_data():
    finer = Shortcut(halvings=8)
    flow = lambda x, tau, c_step: optimal(x, tau)  # noqa: E731
    one, many = (finer.sample(flow, jax.random.key(0), SHAPE, n) for n in (1, 256))
    np.testing.assert_allclose(one, MEAN, atol=1e-5)
    assert abs(many.std() / STD - 1) < 0.02


def test_a_double_step_must_land_where_two_exact_halves_do():
    d = jnp.array([1.0, 0.5, 0.5, 0.25]).repeat(16)
    tau = jnp.array([0.0, 0.0, 0.5, 0.25]).repeat(16)
    x = jax.random.normal(jax.random.key(0), SHAPE)
    np.testing.assert_allclose(landing(exact, x, tau, d), exact(x, tau, d), rtol=1e-3, atol=1e-4)


def test_the_losses_are_the_closed_forms_of_exact_shortcuts():
    """Of a double step nothing is left; of the flow, the posterior variance, weighed by the ramp."""

    def shortest(x, tau, d):
        return jnp.where(d[:, None, None, None] < 1 / 8 + 1e-6, optimal(x, tau), 0.0)

    each = CONFIG.loss(network(shortest), jax.random.key(0), data((4096, 4, 4, 1)), jnp.ones(1))
    tau = jnp.arange(8) / 8
    expected = (ramp(tau) * (1 - tau) ** 2 * STD**2 / spread(tau) ** 2).mean()
    flow = np.asarray(each[1024:])
    assert abs(flow.mean() - expected) < 5 * flow.std() / np.sqrt(len(flow))
    skips = CONFIG.loss(network(exact), jax.random.key(0), data(), jnp.ones(4))[:16]
    assert skips.max() < 1e-6


@pytest.mark.parametrize("spoil", [lambda f: f + 0.05, lambda f: 0.9 * f])
def test_no_perturbed_double_step_has_a_lower_loss(spoil):
    def spoiled(x, tau, d):
        long = d[:, None, None, None] > 0.9
        return jnp.where(long, spoil(exact(x, tau, d)), exact(x, tau, d))

    skips = CONFIG.loss(network(spoiled), jax.random.key(0), data(), jnp.ones(4))[:16]
    assert skips.max() > 1e-5


def test_no_gradient_reaches_the_halves():
    def loss(gain, halves_gain):
        def shortcuts(x, tau, d):
            doubled = d[:, None, None, None] > 1 / 8 + 1e-6
            return jnp.where(doubled, gain, halves_gain) * exact(x, tau, d)

        config = Shortcut(halvings=1, skipping=0.5)  # steps of 1 learn from steps of 1/2
        told = lambda x, tau, c: shortcuts(x, tau, jnp.where(c > 0.5, 1 / 8, 1.0))  # noqa: E731
        return config.loss(told, jax.random.key(0), data(), jnp.ones(4))[:32].mean()

    through_double, through_halves = jax.grad(loss, argnums=(0, 1))(0.9, 1.1)
    assert through_double != 0 and through_halves == 0


def test_a_quarter_of_the_batch_learns_to_skip_and_never_beyond_the_end():
    seen = []

    def spy(x, tau, c_step):
        seen.append((np.asarray(tau), np.asarray(2.0 ** (-3 * c_step))))
        return x

    CONFIG.loss(spy, jax.random.key(0), data(), jnp.ones(4))
    first, second, (tau, d) = seen
    assert len(first[0]) == len(second[0]) == 16 and len(tau) == 64
    np.testing.assert_allclose(d[16:], 1 / 8)
    assert set(np.round(1 / d[:16]).astype(int)) <= {1, 2, 4} and len(set(d[:16])) > 1
    assert (tau + d <= 1 + 1e-6).all() and np.allclose(tau / d, np.round(tau / d))
    np.testing.assert_allclose(second[0], tau[:16] + d[:16] / 2)


def test_shorter_steps_than_were_trained_are_refused():
    with pytest.raises(
        ValueError, match="the shortest step that was trained is 1/8: num_steps must be at most 8, got 16"
    ):
        CONFIG.sample(network(exact), jax.random.key(0), SHAPE, 16)
