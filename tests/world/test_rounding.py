import numpy as np
import pytest

from neural_env.world.rounding import in_eight_bits, widened


@pytest.fixture
def kernel():
    """Channels of sizes far apart, one of them silent."""
    kernel = np.random.default_rng(0).standard_normal((3, 3, 5, 4), np.float32)
    return kernel * np.array([1.0, 1e-3, 1e3, 0.0], np.float32)


def test_each_channel_is_off_by_half_a_step_of_its_own_at_most(kernel):
    kept = in_eight_bits("kernel", kernel)
    assert kept["kernel"].dtype == np.int8 and kept["kernel"].shape == kernel.shape
    found = widened(kept)["kernel"]
    assert found.dtype == np.float32
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    assert (np.abs(found - kernel) <= largest / 127 / 2 * 1.001).all()
    assert (found[..., 3] == 0).all()
    np.testing.assert_allclose(np.abs(found).max(axis=(0, 1, 2)), largest, rtol=1e-6)


def test_rounding_what_was_rounded_changes_nothing(kernel):
    once = in_eight_bits("kernel", kernel)
    twice = in_eight_bits("kernel", widened(once)["kernel"])
    assert (once["kernel"] == twice["kernel"]).all() and (once["kernel:scale"] == twice["kernel:scale"]).all()


def test_what_is_kept_in_floats_is_only_widened():
    floats = {"a.scale": np.ones(3, np.float32), "b": np.full((2, 2), 0.5, np.float16)}
    found = widened(floats)
    assert found.keys() == floats.keys() and all(array.dtype == np.float32 for array in found.values())
    assert (found["b"] == 0.5).all()


def test_scales_of_nothing_stay_what_they_are():
    """The module that they are put into refuses them."""
    strays = {"a:scale": np.ones(3), "b:scale": np.ones(2), "b": np.ones(2)}
    assert widened(strays).keys() == strays.keys()


def test_numbers_too_small_for_a_scale_are_nothing():
    kept = in_eight_bits("kernel", np.full((2, 2), 1e-43, np.float32))
    assert (widened(kept)["kernel"] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(kernel, bad):
    kernel[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="kernel holds numbers that aren't finite: its training diverged"):
        in_eight_bits("kernel", kernel)


def test_integers_without_their_scales_are_refused(kernel):
    kept = in_eight_bits("kernel", kernel)
    with pytest.raises(ValueError, match=r"kernel is kept in 8 bits and needs scales \(4,\), but has none"):
        widened({"kernel": kept["kernel"]})
    with pytest.raises(ValueError, match=r"needs scales \(4,\), but has \(3,\)"):
        widened(kept | {"kernel:scale": np.ones(3, np.float32)})
