import numpy as np
import pytest

from neural_env.evaluation.frames import PSNR_MAX, psnr

GREY = np.full((6, 8, 3), 100, np.uint8)


@pytest.mark.parametrize("offset", [1, 3, 10, 100, 155])
def test_the_psnr_of_a_constant_offset_is_known(offset):
    assert psnr(GREY, GREY + np.uint8(offset)) == pytest.approx(20 * np.log10(255 / offset))
    assert psnr(GREY + np.uint8(offset), GREY) == pytest.approx(20 * np.log10(255 / offset))


def test_a_difference_does_not_wrap_around():
    assert psnr(np.full((6, 8, 3), 255, np.uint8), np.zeros((6, 8, 3), np.uint8)) == 0


def test_one_wrong_number_among_many_counts_by_its_share():
    wrong = GREY.copy()
    wrong[2, 3, 1] += 40
    assert psnr(GREY, wrong) == pytest.approx(10 * np.log10(255**2 * GREY.size / 40**2))


def test_equal_frames_have_the_highest_value_not_infinity():
    assert psnr(GREY, GREY.copy()) == PSNR_MAX == 60.0


def test_every_pair_of_a_batch_has_its_own_value():
    batch = np.stack([GREY, GREY + np.uint8(10), GREY + np.uint8(20)])
    values = psnr(np.broadcast_to(GREY, batch.shape), batch)
    assert values.shape == (3,) and values.dtype == np.float64
    np.testing.assert_allclose(values, [60, 20 * np.log10(25.5), 20 * np.log10(12.75)])
    assert psnr(batch[None], batch[None]).shape == (1, 3)


def test_frames_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(6, 8, 3\) and \(3, 8, 3\)"):
        psnr(GREY, GREY[::2])
    with pytest.raises(ValueError, match="equal shape"):
        psnr(np.stack([GREY, GREY]), GREY)
