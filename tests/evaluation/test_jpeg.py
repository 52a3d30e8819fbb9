import numpy as np
import pytest

from neural_env.evaluation.frames import hud, psnr
from neural_env.evaluation.jpeg import QUALITIES, jpeg, quality_of_equal_psnr


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (6, 5, 6, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(smooth + rng.normal(0, 15, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [10, 30, 70])
def test_a_world_that_loses_what_jpeg_loses_has_its_quality(frames, quality):
    reached = psnr(jpeg(frames, quality), frames)
    assert quality_of_equal_psnr(frames, reached, np.arange(6)).value == pytest.approx(quality)


def test_between_two_qualities_it_is_between_them_and_beyond_all_the_last(frames):
    low, high = (psnr(jpeg(frames, quality), frames) for quality in (30, 40))
    between = quality_of_equal_psnr(frames, (low + high) / 2, np.arange(6))
    assert between.value == pytest.approx(35) and between.low <= 35 <= between.high
    assert quality_of_equal_psnr(frames, np.full(6, 60.0), np.arange(6)).value == QUALITIES[-1]
    assert quality_of_equal_psnr(frames, np.full(6, 3.0), np.arange(6)).value == QUALITIES[0]


def test_the_hud_is_the_lowest_sixth():
    frame = np.zeros((2, 120, 160, 3), np.uint8)
    frame[:, 101:] = 7
    assert hud(frame).shape == (2, 19, 160, 3) and (hud(frame) == 7).all()
