import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.world.diffusion import precondition
from neural_env.world.velocity import VPrediction, alpha_bars, alpha_sigma, denoiser, velocity, visited

MEAN, STD = 0.3, 0.6  # of the Gaussian data whose optimal denoiser is known
SHAPE = (64, 8, 8, 4)
CONFIG = VPrediction()


def bars_of(c_noise):
    """The inverse of what the network is told."""
    return (1 / (1 + jnp.exp(8 * c_noise)))[:, None, None, None]


def optimal(x, c_noise, c_step=None):
    """F for data N(MEAN, STD^2): E[v | x] with the sign turned, from E[x0 | x]."""
    bars = bars_of(c_noise)
    alpha, sigma = jnp.sqrt(bars), jnp.sqrt(1 - bars)
    x0 = (alpha * STD**2 * x + sigma**2 * MEAN) / (bars * STD**2 + sigma**2)
    return -(alpha * x - x0) / sigma


def data():
    return MEAN + STD * jax.random.normal(jax.random.key(7), SHAPE)


def test_the_schedule_is_latent_diffusions():
    bars = np.asarray(alpha_bars(CONFIG), np.float64)
    assert len(bars) == 1000 and (np.diff(bars) < 0).all()
    betas = np.linspace(np.sqrt(0.00085), np.sqrt(0.012), 1000) ** 2
    np.testing.assert_allclose(bars, np.cumprod(1 - betas), rtol=1e-4)
    np.testing.assert_allclose(bars[[0, -1]], [0.99915, 0.00466], rtol=1e-3)


def test_the_denoiser_turns_the_optimal_velocity_into_the_posterior_mean():
    bars = jnp.full(SHAPE[0], 0.3)
    alpha, sigma = alpha_sigma(bars)
    x = alpha * data() + sigma * jax.random.normal(jax.random.key(1), SHAPE)
    expected = (alpha * STD**2 * x + sigma**2 * MEAN) / (alpha**2 * STD**2 + sigma**2)
    np.testing.assert_allclose(denoiser(optimal)(x, bars), expected, rtol=1e-3, atol=1e-4)


def test_it_is_edms_preconditioning_in_other_units():
    bars = jnp.linspace(0.01, 0.99, SHAPE[0])
    alpha, sigma = alpha_sigma(bars)
    x, level = data(), (sigma / alpha)[:, 0, 0, 0]
    network = lambda x, c_noise, c_step=None: jnp.sin(3 * x) + c_noise[:, None, None, None]  # noqa: E731
    np.testing.assert_allclose(
        denoiser(network)(x, bars), precondition(network)(x / alpha, level), rtol=1e-3, atol=1e-4
    )


def expected_loss():
    """Mean over the times of Var[v | x] = Var[x0 | x] / sigma^2."""
    bars = alpha_bars(CONFIG)
    return float((STD**2 / (bars * STD**2 + 1 - bars)).mean())


def loss(network, size=16):
    x0 = MEAN + STD * jax.random.normal(jax.random.key(7), (2048, size, size, 1))
    return np.asarray(CONFIG.loss(network, jax.random.key(0), x0, jnp.ones(1)))


def test_the_loss_of_the_optimal_network_is_the_posterior_variance_of_the_velocity():
    each = loss(optimal)
    assert abs(each.mean() - expected_loss()) < 5 * each.std() / np.sqrt(len(each))


@pytest.mark.parametrize("spoil", [lambda f: f + 0.05, lambda f: f - 0.05, lambda f: 0.9 * f, lambda f: 1.1 * f])
def test_no_perturbed_network_has_a_lower_loss_than_the_optimal_one(spoil):
    assert loss(lambda x, c_noise: spoil(optimal(x, c_noise)), 4).mean() > loss(optimal, 4).mean()


def test_the_loss_counts_each_channel_by_its_weight():
    exact, weight = [], jnp.array([0.1, 0.2, 3.0, 0.7])
    for channel in range(4):

        def wrong(x, c_noise, channel=channel):  # data that are all 0: v = alpha noise, x = sigma noise
            bars = bars_of(c_noise)
            return -(jnp.sqrt(bars / (1 - bars)) * x).at[..., channel].add(1.0)

        exact.append(CONFIG.loss(wrong, jax.random.key(0), jnp.zeros(SHAPE), weight))
    np.testing.assert_allclose(exact, weight[:, None].repeat(SHAPE[0], axis=1) / 4, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 7, 1000])
def test_any_number_of_steps_begins_at_the_noisiest_time(num_steps):
    times = np.asarray(visited(num_steps, CONFIG))
    assert times[0] == 999 and len(times) == num_steps and (np.diff(times) < 0).all() and times[-1] >= 0


def test_more_steps_than_noise_levels_are_refused():
    with pytest.raises(ValueError, match="there are 1000 noise levels: num_steps must be at most that, got 1001"):
        CONFIG.sample(optimal, jax.random.key(0), SHAPE, 1001)


def deviation(num_steps):
    return float(CONFIG.sample(optimal, jax.random.key(0), SHAPE, num_steps).std())


def test_ddim_draws_from_the_data_and_its_error_shrinks_with_the_steps():
    start, bar = float(jax.random.normal(jax.random.key(0), SHAPE).std()), alpha_bars(CONFIG)[-1]
    exact = start * STD / np.sqrt(bar * STD**2 + 1 - bar)  # the flow of Gaussian data in closed form
    errors = [abs(deviation(n) - exact) for n in (4, 16, 64, 500)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 * STD


def test_one_step_is_nearly_the_mean():
    drawn = CONFIG.sample(optimal, jax.random.key(0), SHAPE, 1)
    spread = STD**2 * np.sqrt(alpha_bars(CONFIG)[-1])  # what the noisiest time still shows of the data
    assert abs(drawn.mean() - MEAN) < 0.02 and drawn.std() < 1.2 * spread


def test_the_first_guess_at_pure_noise_is_what_the_network_begins_as():
    last = data()
    guess = denoiser(lambda x, c_noise, c_step=None: last)(
        jax.random.normal(jax.random.key(0), SHAPE), jnp.full(64, 1e-6)
    )
    np.testing.assert_allclose(guess, last, atol=0.01)
    assert (velocity(lambda x, c_noise, c_step=None: last)(last, jnp.full(64, 0.5)) == -last).all()
