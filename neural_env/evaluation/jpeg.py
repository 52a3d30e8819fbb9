"""The quality at which JPEG loses as much as a world does: a yardstick that people have a feeling for."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from jaxtyping import Float, UInt8

from neural_env.evaluation.bootstrap import Estimate, mean
from neural_env.evaluation.frames import psnr

QUALITIES = (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95)


def jpeg(frames: UInt8[np.ndarray, "b H W 3"], quality: int) -> UInt8[np.ndarray, "b H W 3"]:
    """The frames after JPEG at that quality, 1 to 95, with its usual halved colours (4:2:0)."""
    return np.stack([_round_trip(frame, quality) for frame in frames])


def _round_trip(frame: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def quality_of_equal_psnr(
    frames: UInt8[np.ndarray, "b H W 3"], reached: Float[np.ndarray, " b"], groups: np.ndarray
) -> Estimate:
    """The quality at which JPEG's mean PSNR on these frames is the mean of `reached` in dB.

    Interpolated between `QUALITIES`; what is beyond them counts as the last of them.
    """
    curve = [mean(psnr(jpeg(frames, quality), frames), groups) for quality in QUALITIES]
    target = mean(reached, groups)
    values = np.array([estimate.value for estimate in curve])
    replicates = np.array([estimate.replicates for estimate in curve]).T  # [r, q]
    drawn = [np.interp(x, _rising(row), QUALITIES) for x, row in zip(target.replicates, replicates, strict=True)]
    return Estimate(float(np.interp(target.value, _rising(values), QUALITIES)), np.array(drawn), target.groups)


def _rising(values: np.ndarray) -> np.ndarray:
    """What `np.interp` needs; on odd pictures a better quality can be worse by a hair."""
    rising: np.ndarray = np.maximum.accumulate(values)
    return rising
