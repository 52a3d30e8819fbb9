"""Weights in 8 bits: half of bfloat16's bytes on disk; in memory they are float32 again.

Each number of a kernel is a whole multiple, -127 to 127, of the scale of the channel it makes (symmetric quantisation,
arXiv 1712.05877, equation 1 with a zero point of 0). Rounding what was rounded before changes nothing.
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
    """A kernel [..., out] as int8 of the same shape, beside `name`:scale, [out] float32."""
    largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
    scale = np.where(largest > 0, largest / _MOST, 1.0).astype(np.float32)
    return {name: np.rint(array / scale).astype(np.int8), name + _SCALE: scale}


def widened(arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """All arrays in float32, those of 8 bits multiplied by their scales.

    Raises:
        ValueError: scales are missing or of another number than the channels.
    """
    whole = {name: array.astype(np.float32) for name, array in arrays.items() if not name.endswith(_SCALE)}
    for name, array in arrays.items():
        if array.dtype == np.int8:
            scale = arrays.get(name + _SCALE)
            if scale is None or scale.shape != array.shape[-1:]:
                found = "has none" if scale is None else f"has {scale.shape}"
                raise ValueError(f"{name} is kept in 8 bits and needs scales {array.shape[-1:]}, but {found}")
            whole[name] *= scale
    return whole
