import numpy as np
import pytest

from neural_env.evaluation.frames import PSNR_MAX, psnr, ssim

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


# SSIM.

NOISE = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)


def dense_ssim(a, b):
    """Wang et al. 2004, equations 13 to 17, window by window."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            for colour in range(3):
                x, y = (f[top : top + 11, left : left + 11, colour].astype(float) for f in (a, b))
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                cov = (weights * (x - mx) * (y - my)).sum()
                values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


def test_the_ssim_of_equal_frames_is_one():
    assert ssim(NOISE, NOISE.copy()) == pytest.approx([1.0, 1.0], abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(100, 100), (100, 50), (0, 255), (1, 0)])
def test_the_ssim_of_flat_frames_is_that_of_their_luminance(a, b):
    """Equation 6: there is no contrast and no structure to compare."""
    c1 = 2.55**2
    flat = [np.full((12, 16, 3), value, np.uint8) for value in (a, b)]
    assert ssim(*flat) == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), abs=1e-9)


def test_the_ssim_of_a_negative_is_negative():
    """Equal means and variances, covariance turned round: (C2 - 2 v) / (C2 + 2 v) in every window."""
    board = np.where(np.indices((30, 30)).sum(axis=0) % 2, 178, 77).astype(np.uint8)[..., None].repeat(3, axis=2)
    c2, variance = 7.65**2, 50.5**2
    assert ssim(board, 255 - board) == pytest.approx((c2 - 2 * variance) / (c2 + 2 * variance), abs=1e-3)


def test_ssim_is_the_papers_equation_window_by_window():
    smooth = (NOISE // 4 + 60).astype(np.uint8)
    for a, b in ((NOISE[0], NOISE[1]), (NOISE[0], smooth[0]), (smooth[0], smooth[1])):
        assert ssim(a, b) == pytest.approx(dense_ssim(a, b), abs=1e-10)
        assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)


def test_every_pair_of_a_batch_has_its_own_ssim():
    values = ssim(np.stack([NOISE[0], NOISE[0]]), NOISE)
    assert values.shape == (2,) and values[0] == pytest.approx(1) and values[1] < 0.2


def test_ssim_refuses_frames_of_other_shapes_and_smaller_than_a_window():
    with pytest.raises(ValueError, match="equal shape"):
        ssim(NOISE, NOISE[0])
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(GREY, GREY)
