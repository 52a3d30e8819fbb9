import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.world.diffusion import EDM, noise_levels
from neural_env.world.sampler import euler

MEAN, STD = 0.3, 0.6
SHAPE = (50, 8, 8, 8)
CONFIG = EDM()


def optimal(x, sigma):
    """The optimal denoiser of data N(MEAN, STD^2)."""
    s = sigma[:, None, None, None]
    return (STD**2 * x + s**2 * MEAN) / (STD**2 + s**2)


def deviation(num_steps):
    return float(euler(optimal, jax.random.key(0), SHAPE, noise_levels(num_steps, CONFIG)).std())


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_denoiser_is_evaluated_once_a_step_at_that_steps_level(num_steps):
    levels = []

    def spy(x, sigma):
        levels.append(float(sigma[0]))
        return x

    with jax.disable_jit():
        euler(spy, jax.random.key(0), (2, 1, 1, 1), noise_levels(num_steps, CONFIG))
    np.testing.assert_allclose(levels, noise_levels(num_steps, CONFIG)[:-1], rtol=1e-6)


def test_many_steps_draw_from_the_data():
    drawn = euler(optimal, jax.random.key(0), SHAPE, noise_levels(300, CONFIG))
    count = np.prod(SHAPE)
    assert abs(drawn.mean() - MEAN) < 5 * STD / np.sqrt(count)
    discretisation = 0.02  # of Euler's method with 300 steps; the next test shows that it vanishes
    assert abs(drawn.std() / STD - 1) < 5 / np.sqrt(2 * count) + discretisation


def test_the_error_of_the_sampler_halves_with_twice_the_steps():
    start = CONFIG.sigma_max * float(jax.random.normal(jax.random.key(0), SHAPE).std())
    exact = start * STD / np.hypot(STD, CONFIG.sigma_max)  # the flow of Gaussian data in closed form
    coarse, fine = (abs(deviation(n) - exact) for n in (100, 200))
    assert 1.7 < coarse / fine < 2.3


def test_one_step_gives_the_mean():
    drawn = euler(optimal, jax.random.key(0), SHAPE, noise_levels(1, CONFIG))
    start = CONFIG.sigma_max * jax.random.normal(jax.random.key(0), SHAPE)
    np.testing.assert_allclose(drawn, optimal(start, jnp.full(SHAPE[0], CONFIG.sigma_max)), rtol=1e-5)
    spread = STD**2 / CONFIG.sigma_max  # what little the start still shows through
    assert abs(drawn.mean() - MEAN) < 5 * spread / np.sqrt(np.prod(SHAPE)) + 1e-3 * MEAN
    assert drawn.std() < 1.1 * spread


def test_a_few_steps_draw_more_than_the_mean_and_less_than_the_data():
    assert deviation(1) < deviation(3) < deviation(10) < STD


def test_equal_keys_draw_equal_samples_and_others_differ():
    levels = noise_levels(3, CONFIG)
    first, again, other = (euler(optimal, jax.random.key(k), (1, 2, 2, 1), levels) for k in (0, 0, 1))
    assert (first == again).all() and (first != other).all()
