import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.world.diffusion import EDM, denoising_loss, loss_weight, noise_levels, precondition, sample_sigma

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
    config = EDM(first=0.0)
    sigma = np.asarray(sample_sigma(jax.random.key(0), 40_000, config))
    assert sigma.min() >= config.sigma_min and sigma.max() <= config.sigma_max
    inside = np.log(sigma)
    standard_error = config.log_std / np.sqrt(len(sigma))
    assert abs(np.median(inside) - config.log_mean) < 5 * 1.26 * standard_error  # of a median: 1.26 of a mean's
    below = (inside < config.log_mean - config.log_std).mean()
    assert abs(below - 0.1587) < 5 * np.sqrt(0.16 * 0.84 / len(sigma))  # a normal's share below one deviation


@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
def test_a_share_of_training_is_where_the_sampler_begins(first):
    config = EDM(log_mean=-1.0, first=first)  # so low that the distribution itself hardly comes there
    sigma = np.asarray(sample_sigma(jax.random.key(0), 10_000, config))
    assert abs((sigma == config.sigma_max).mean() - first) < 0.02


def test_where_the_sampler_begins_training_shows_noise_alone():
    def shown(config):
        """Size of what the network is given, which preconditioning has scaled to 1, when latents are a thousand."""
        sizes = []

        def network(x, c_noise):
            sizes.append(float(jnp.sqrt(jnp.square(x).mean())))
            return x

        config.loss(network, jax.random.key(0), jnp.full((8, 8, 8, 8), 1000.0), jnp.ones(8))
        return sizes[0]

    assert abs(shown(EDM(first=1.0)) - 1) < 0.05
    assert shown(EDM(first=0.0, log_mean=0.0, log_std=0.1)) > 500


@pytest.mark.parametrize("first", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(first):
    with pytest.raises(ValueError, match=r"first is a share of training in \[0, 1\]"):
        EDM(first=first)


def test_the_weight_undoes_c_out_and_is_capped_where_the_noise_is_too_small_to_see():
    sigma = jnp.array([0.6, 1.0, 4.0, 20.0])
    zeros, ones = jnp.zeros((4, 1, 1, 1)), jnp.ones((4, 1, 1, 1))
    c_out = precondition(lambda x, c_noise: ones)(zeros, sigma)[:, 0, 0, 0]
    np.testing.assert_allclose(loss_weight(sigma), 1 / c_out**2, rtol=1e-5)
    assert loss_weight(jnp.array([0.02]))[0] == 5.0


@pytest.mark.parametrize("sigma", [0.3, 1.0, 10.0])
def test_the_loss_of_the_optimal_denoiser_is_the_posterior_variance(sigma):
    loss = denoising_loss(optimal, jax.random.key(0), data(), full(sigma), jnp.ones(4), 20.0).mean()
    expected = loss_weight(full(sigma))[0] * STD**2 * sigma**2 / (STD**2 + sigma**2)
    assert abs(loss / expected - 1) < 5 * np.sqrt(2 / np.prod(SHAPE))  # five standard errors of a mean square


@pytest.mark.parametrize("spoil", [lambda d: d + 0.05, lambda d: d - 0.05, lambda d: 0.9 * d, lambda d: 1.1 * d])
def test_no_perturbed_denoiser_has_a_lower_loss_than_the_optimal_one(spoil):
    sigma = jnp.geomspace(0.1, 20.0, SHAPE[0])
    args = jax.random.key(0), data(), sigma, jnp.ones(4), 21.0
    best = denoising_loss(optimal, *args).mean()
    assert denoising_loss(lambda x, s: spoil(optimal(x, s)), *args).mean() > best


def test_the_loss_counts_each_channel_by_its_weight():
    x0 = jnp.zeros(SHAPE)

    def wrong_in_channel_2(x, sigma):
        return x0.at[..., 2].set(1.0)

    weight = jnp.array([0.1, 0.2, 3.0, 0.7])
    loss = denoising_loss(wrong_in_channel_2, jax.random.key(0), x0, full(1.0), weight, 20.0)
    np.testing.assert_allclose(loss, loss_weight(full(1.0)) * 3.0 / 4, rtol=1e-6)
    assert loss.shape == (SHAPE[0],)


# Which levels few steps visit.


@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 50])
def test_noise_levels_fall_from_the_highest_to_zero(num_steps):
    config = EDM()
    levels = np.asarray(noise_levels(num_steps, config))
    assert len(levels) == num_steps + 1
    np.testing.assert_allclose(levels[0], config.sigma_max, rtol=1e-5)
    assert levels[-1] == 0 and (np.diff(levels) < 0).all()
    if num_steps > 1:
        np.testing.assert_allclose(levels[-2], config.sigma_min, rtol=1e-3)


def test_the_last_level_is_a_dial_of_the_sampler_and_not_of_training():
    plain, early = EDM(), EDM(sigma_last=0.5)
    np.testing.assert_allclose(noise_levels(4, early)[-2], 0.5, rtol=1e-5)
    np.testing.assert_allclose(noise_levels(1, early), noise_levels(1, plain))
    assert (sample_sigma(jax.random.key(0), 1000, early) == sample_sigma(jax.random.key(0), 1000, plain)).all()


def drawn(config, num_steps, std):
    """Deviation of what is drawn of data N(0, std^2): a world that knows all of its next frame but this much."""

    def network(x, c_noise):  # F whose D is the optimal denoiser
        s = jnp.exp(4 * c_noise)[:, None, None, None]
        c_skip, c_out, c_in = 1 / (s**2 + 1), s / jnp.sqrt(s**2 + 1), 1 / jnp.sqrt(s**2 + 1)
        return (std**2 / (std**2 + s**2) - c_skip) * x / (c_in * c_out)

    return float(config.sample(network, jax.random.key(0), SHAPE, num_steps).std())


def test_two_steps_draw_what_one_step_averages_only_if_the_last_level_is_as_large_as_what_is_open():
    std = 0.3
    assert drawn(EDM(), 1, std) < 0.02 * std
    assert drawn(EDM(), 2, std) < 0.1 * std  # the step at 0.02 finds nothing left to decide
    assert drawn(EDM(sigma_last=0.4), 2, std) > 0.3 * std


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_ancestral_sampler_draws_from_the_data_too(eta):
    std = 0.6
    spread = drawn(EDM(eta=eta), 200, std)
    assert abs(spread / std - 1) < 5 / np.sqrt(2 * np.prod(SHAPE)) + 0.05  # of 200 steps
    assert spread != drawn(EDM(), 200, std)
    assert drawn(EDM(eta=eta).as_flow(), 5, std) == drawn(EDM(), 5, std)


def test_renewing_noise_is_part_of_the_temperature():
    network = lambda x, c_noise: x  # noqa: E731
    cold = EDM(eta=1.0).sample(network, jax.random.key(0), (2, 3, 3, 1), 4, temperature=0.0)
    assert (cold == 0).all()


@pytest.mark.parametrize("wrong", [{"sigma_last": 0.01}, {"sigma_last": 30.0}, {"sigma_min": 0.0}])
def test_levels_out_of_order_are_refused(wrong):
    with pytest.raises(ValueError, match="noise levels must be positive and in this order, got sigma_min"):
        EDM(**wrong)


def test_an_eta_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\], got 1.5"):
        EDM(eta=1.5)
