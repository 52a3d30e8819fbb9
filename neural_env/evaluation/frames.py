"""Distances between frames."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

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
