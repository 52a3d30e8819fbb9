"""Distances between frames."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from neural_env.game import HUD_SHARE

PSNR_MAX = 60.0
"""dB given for equal frames (whose PSNR is infinite): the PSNR of a mean squared error of 0.065 grey levels."""


def psnr(a: UInt8[np.ndarray, "*b H W 3"], b: UInt8[np.ndarray, "*b H W 3"]) -> Float[np.ndarray, "*b"]:
    """Peak signal-to-noise ratio of each pair of frames, 10 log10(255^2 / MSE) in dB, at most `PSNR_MAX`.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"PSNR compares frames of equal shape, got {a.shape} and {b.shape}: resize one of them")
    error = np.square(a.astype(np.float32) - b.astype(np.float32)).mean(axis=(-3, -2, -1), dtype=np.float64)
    floor = 255.0**2 / 10 ** (PSNR_MAX / 10)
    decibels: Float[np.ndarray, "*b"] = 10 * np.log10(255.0**2 / np.maximum(error, floor))
    return decibels


def ssim(a: UInt8[np.ndarray, "*b H W 3"], b: UInt8[np.ndarray, "*b H W 3"]) -> Float[np.ndarray, "*b"]:
    """Structural similarity of each pair of frames, in [-1, 1]; 1 is equal (Wang et al. 2004, equations 13 to 17).

    As in the paper: 11x11 Gaussian windows of deviation 1.5 that lie inside the frame, K1 = 0.01, K2 = 0.03. Each of
    red, green and blue is compared by itself; the value is the mean over windows and colours.

    Raises:
        ValueError: the shapes differ, or the frames are smaller than a window.
    """
    if a.shape != b.shape:
        raise ValueError(f"SSIM compares frames of equal shape, got {a.shape} and {b.shape}: resize one of them")
    if min(a.shape[-3:-1]) < len(_WINDOW):
        raise ValueError(f"SSIM needs frames of at least {len(_WINDOW)} pixels a side, got {a.shape}: enlarge them")
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = map(_windowed, (x, y, x * x, y * y, x * y))  # eq. 14
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)  # eq. 6
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2  # eq. 15
    covariance = mean_xy - mean_x * mean_y  # eq. 16
    structure = (2 * covariance + _C2) / (variances + _C2)  # eqs. 9 and 10 with C3 = C2 / 2
    similarity: Float[np.ndarray, "*b"] = (luminance * structure).mean(axis=(-3, -2, -1))  # eqs. 13 and 17
    return similarity


_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
_WINDOW = _WINDOW / _WINDOW.sum()


def _windowed(maps: np.ndarray) -> np.ndarray:
    """Gaussian means over the windows, `[..., H - 10, W - 10, 3]`; the window is a product of its two sides."""
    for axis in (-3, -2):
        matrix = _means(maps.shape[axis])
        maps = np.moveaxis(np.tensordot(matrix, maps, axes=(1, axis)), 0, axis)
    return maps


@cache
def _means(size: int) -> np.ndarray:
    """Windowed means along a side as a matrix `[size - 10, size]`: a product with it is faster than a convolution."""
    rows = size - len(_WINDOW) + 1
    matrix = np.zeros((rows, size))
    for row in range(rows):
        matrix[row, row : row + len(_WINDOW)] = _WINDOW
    return matrix


def hud(frames: UInt8[np.ndarray, "*b H W 3"]) -> UInt8[np.ndarray, "*b h W 3"]:
    """Doom's status bar alone."""
    height = frames.shape[-3]
    return frames[..., height - round(height * HUD_SHARE) :, :, :]
