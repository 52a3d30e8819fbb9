import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.world.diffusion import NoiseConfig, denoising_loss, loss_weight, precondition, sample_sigma

MEAN, STD = 0.3, 0.6  # of the Gaussian data whose optimal denoiser is known
SHAPE = (64, 8, 8, 4)


def optimal(x, sigma):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2): the mean of the two estimates, each weighed by its precision."""
    s = sigma[:, None, None, None]
    return (STD**2 * x + s**2 * MEAN) / (STD**2 + s**2)


def full(sigma):
    return jnp.full(SHAPE[0], sigma)


def data(std=STD, mean=MEAN):
    return mean + std * jax.random.normal(jax.random.key(7), SHAPE)


def test_the_denoiser_returns_its_input_as_the_noise_vanishes():
    x = data()
    denoise = precondition(lambda x, c_noise: 3 * jnp.sign(x))
    assert jnp.abs(denoise(x, full(1e-4)) - x).max() < 1e-3
    assert jnp.abs(denoise(x, full(1.0)) - x).max() > 1


@pytest.mark.parametrize("sigma", [0.02, 0.5, 1.0, 20.0])
def test_what_the_network_sees_and_must_produce_has_unit_variance(sigma):
    seen = []

    def spy(x, c_noise):
        seen.append(x)
        return jnp.zeros_like(x)

    x0 = data(std=1.0, mean=0.0)
    x = x0 + sigma * jax.random.normal(jax.random.key(1), SHAPE)
    skipped = precondition(spy)(x, full(sigma))
    c_out = precondition(lambda x, c_noise: jnp.ones_like(x))(x, full(sigma)) - skipped
    target = (x0 - skipped) / c_out  # of F, so that D is x0
    tolerance = 5 / np.sqrt(2 * x0.size)  # five standard errors of a deviation
    assert abs(seen[0].std() - 1) < tolerance
    assert abs(target.std() - 1) < tolerance


def test_the_network_is_told_a_quarter_of_the_logarithm_of_the_noise():
    told = []
    precondition(lambda x, c_noise: told.append(c_noise) or x)(data(), full(np.e**2))
    np.testing.assert_allclose(told[0], 0.5, rtol=1e-6)


def test_training_noise_is_log_normal_within_the_samplers_range():
    config = NoiseConfig()
    sigma = np.asarray(sample_sigma(jax.random.key(0), 40_000, config))
    assert sigma.min() >= config.sigma_min and sigma.max() <= config.sigma_max
    inside = np.log(sigma)
    standard_error = config.log_std / np.sqrt(len(sigma))
    assert abs(np.median(inside) - config.log_mean) < 5 * 1.26 * standard_error  # of a median: 1.26 of a mean's
    below = (inside < config.log_mean - config.log_std).mean()
    assert abs(below - 0.1587) < 5 * np.sqrt(0.16 * 0.84 / len(sigma))  # a normal's share below one deviation


def test_the_weight_undoes_c_out_and_is_capped_where_the_noise_is_too_small_to_see():
    sigma = jnp.array([0.6, 1.0, 4.0, 20.0])
    zeros, ones = jnp.zeros((4, 1, 1, 1)), jnp.ones((4, 1, 1, 1))
    c_out = precondition(lambda x, c_noise: ones)(zeros, sigma)[:, 0, 0, 0]
    np.testing.assert_allclose(loss_weight(sigma), 1 / c_out**2, rtol=1e-5)
    assert loss_weight(jnp.array([0.02]))[0] == 5.0


@pytest.mark.parametrize("sigma", [0.3, 1.0, 10.0])
def test_the_loss_of_the_optimal_denoiser_is_the_posterior_variance(sigma):
    loss = denoising_loss(optimal, jax.random.key(0), data(), full(sigma), jnp.ones(4)).mean()
    expected = loss_weight(full(sigma))[0] * STD**2 * sigma**2 / (STD**2 + sigma**2)
    assert abs(loss / expected - 1) < 5 * np.sqrt(2 / np.prod(SHAPE))  # five standard errors of a mean square


@pytest.mark.parametrize("spoil", [lambda d: d + 0.05, lambda d: d - 0.05, lambda d: 0.9 * d, lambda d: 1.1 * d])
def test_no_perturbed_denoiser_has_a_lower_loss_than_the_optimal_one(spoil):
    sigma = jnp.geomspace(0.1, 20.0, SHAPE[0])
    args = jax.random.key(0), data(), sigma, jnp.ones(4)
    best = denoising_loss(optimal, *args).mean()
    assert denoising_loss(lambda x, s: spoil(optimal(x, s)), *args).mean() > best


def test_the_loss_counts_each_channel_by_its_weight():
    x0 = jnp.zeros(SHAPE)

    def wrong_in_channel_2(x, sigma):
        return x0.at[..., 2].set(1.0)

    weight = jnp.array([0.1, 0.2, 3.0, 0.7])
    loss = denoising_loss(wrong_in_channel_2, jax.random.key(0), x0, full(1.0), weight)
    np.testing.assert_allclose(loss, loss_weight(full(1.0)) * 3.0 / 4, rtol=1e-6)
    assert loss.shape == (SHAPE[0],)
