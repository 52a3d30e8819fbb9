"""FD-VGG16: how far apart two sets of frames are, whatever their order and number.

As FID (Heusel et al. 2017, arXiv 1706.08500) with another network: a frame is the mean over places of VGG16's relu5_3,
512 numbers, and two sets are compared as the Gaussians that fit them. The estimate is biased upwards, the more so the
fewer the frames (Chong and Forsyth 2020, arXiv 1911.07023): compare sets of equal size only, and look at what real
frames get against other real frames.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from neural_env.evaluation.backbones import BACKBONES, convolutions_of

_CHUNK = 4  # frames at a time: VGG16's first stage is large


def vgg_features(frames: UInt8[np.ndarray, "b H W 3"]) -> Float[np.ndarray, "b 512"]:
    """What VGG16 finds in each frame.

    Raises:
        ImportError, FileNotFoundError, ValueError: the weights are missing or others, as `lpips.load_lpips`.
        ValueError: a side is shorter than VGG16 needs (16 pixels).
    """
    least = BACKBONES["vgg16"].min_side
    if min(frames.shape[-3:-1]) < least:
        raise ValueError(f"VGG16 needs frames of at least {least} pixels a side, got {frames.shape}: enlarge them")
    return np.asarray(_features(_convolutions(), frames))


@cache
def _convolutions() -> Any:
    return convolutions_of("vgg16")


@jax.jit
def _features(convolutions: Any, frames: UInt8[Array, "b H W 3"]) -> Float[Array, "b 512"]:
    def one(frame: UInt8[Array, "H W 3"]) -> Float[Array, " 512"]:
        pooled: Float[Array, " 512"] = BACKBONES["vgg16"].stages(convolutions, frame[None])[-1][0].mean(axis=(0, 1))
        return pooled

    found: Float[Array, "b 512"] = jax.lax.map(one, frames, batch_size=_CHUNK)
    return found


def frechet_distance(x: Float[np.ndarray, "n f"], y: Float[np.ndarray, "m f"]) -> float:
    """|mean x - mean y|^2 + tr(X + Y - 2 (X Y)^1/2) of the covariances X and Y (Dowson and Landau 1982), at least 0.

    The trace of the root is the sum of the singular values of A B^T, where X = A^T A and Y = B^T B: no root of a
    matrix is drawn, and few rows are as good as many.

    Raises:
        ValueError: less than two rows, or features of different number.
    """
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"a distance of sets needs two rows or more of equal width, got {x.shape} and {y.shape}")
    a, b = _root(x), _root(y)
    offset = x.mean(axis=0, dtype=np.float64) - y.mean(axis=0, dtype=np.float64)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(offset @ offset + np.square(a).sum() + np.square(b).sum() - 2 * shared))


def _root(x: np.ndarray) -> np.ndarray:
    """A with A^T A the covariance, at most as many rows as columns."""
    centred = (x - x.mean(axis=0, dtype=np.float64)) / np.sqrt(len(x) - 1)
    if len(centred) <= centred.shape[1]:
        return np.asarray(centred)
    return np.asarray(np.linalg.qr(centred, mode="r"))
