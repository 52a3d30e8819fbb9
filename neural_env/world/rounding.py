"""Weights in 8 bits: half of bfloat16's bytes on disk; in memory they are float32 again.

Each number of a kernel is a whole multiple, -127 to 127, of the scale of the channel it makes, the kernel's last axis
(symmetric quantisation, arXiv 1712.05877, equation 1 with a zero point of 0). Rounding what was rounded before changes
nothing. What a CPU computes in 8 bits, whatever its weights were kept in, is `runtime.quantise`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_SCALE = ":scale"  # what the name of a rounded array's scales ends in; no array of a module is called so
_MOST = 127

Arrays = dict[str, npt.NDArray[Any]]


def in_eight_bits(name: str, array: npt.NDArray[np.float32]) -> Arrays:
    """A kernel [..., out] as int8 of the same shape, beside `name`:scale, [out] float32.

    Raises:
        ValueError: it holds numbers that aren't finite.
    """
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that aren't finite: its training diverged")
    scale = np.abs(array).max(axis=tuple(range(array.ndim - 1))).astype(np.float32) / np.float32(_MOST)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))  # a channel of nothing is all zeros
    return {name: np.rint(array / scale).astype(np.int8), name + _SCALE: scale}


def widened(arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """All arrays in float32, those of 8 bits multiplied by their scales.

    Raises:
        ValueError: scales are missing or of another number than the channels.
    """
    whole = {name: array.astype(np.float32) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype == np.int8:
            scale = whole.pop(name + _SCALE, None)
            if scale is None or scale.shape != array.shape[-1:]:
                found = "has none" if scale is None else f"has {scale.shape}"
                raise ValueError(f"{name} is kept in 8 bits and needs scales {array.shape[-1:]}, but {found}")
            whole[name] *= scale
    return whole
