"""LPIPS v0.1 (Zhang et al. 2018, arXiv 1801.03924): how far apart two frames look to AlexNet, or to VGG16."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from neural_env.evaluation.backbones import BACKBONES, Convolutions, convolutions_of, load_arrays
from neural_env.evaluation.weights import Net
from neural_env.evaluation.weights import require_weights as require_weights  # for those that only ask for them

MIN_SIDE = BACKBONES["alexnet"].min_side
"""Pixels: AlexNet's stages leave nothing of a shorter side."""

_PAIRS_AT_ONCE = 16  # bounds the memory that a long batch takes


@dataclass(frozen=True)
class Lpips:
    """The distance with its weights on JAX's default device; `load_lpips` makes it.

    Attributes:
        convolutions: kernel `[h, w, in, out]` and bias `[out]` of the network's convolutions.
        linear: a weight, at least 0, for each channel of the five stages: w squared in equation 1.
        net: which network.
    """

    convolutions: Convolutions
    linear: tuple[Float[Array, " c"], ...]
    net: Net = "alexnet"

    def __call__(self, a: UInt8[np.ndarray, "*b H W 3"], b: UInt8[np.ndarray, "*b H W 3"]) -> Float[np.ndarray, "*b"]:
        """As `lpips`."""
        if a.shape != b.shape:
            raise ValueError(f"LPIPS compares frames of equal shape, got {a.shape} and {b.shape}: resize one of them")
        least = BACKBONES[self.net].min_side
        if min(a.shape[-3:-1]) < least:
            raise ValueError(f"LPIPS needs frames of at least {least} pixels a side, got {a.shape}: enlarge them")
        pairs = np.stack([a, b], axis=-4).reshape(-1, 2, *a.shape[-3:])
        return np.asarray(_distances(self.net, self.convolutions, self.linear, pairs)).reshape(a.shape[:-3])


def lpips(
    a: UInt8[np.ndarray, "*b H W 3"], b: UInt8[np.ndarray, "*b H W 3"], net: Net = "alexnet"
) -> Float[np.ndarray, "*b"]:
    """Perceptual distance of each pair of frames, at least 0; 0 is equal (Zhang et al. 2018, equation 1).

    Calls with frames of a new shape are compiled; the first call reads the weights.

    Raises:
        ImportError, FileNotFoundError, ValueError: as `load_lpips`.
        ValueError: the shapes differ, or a side is shorter than the network needs (`BACKBONES`).
    """
    return load_lpips(net)(a, b)


@cache
def load_lpips(net: Net = "alexnet") -> Lpips:
    """Reads the weights, once a process.

    Raises:
        ImportError: the package with the weights is missing.
        FileNotFoundError, ValueError: it is there, with other weights than those of version 0.1.0.
    """
    convolutions = convolutions_of(net)
    linear = [load_arrays(net)[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(5)]
    return Lpips(convolutions, tuple(jnp.asarray(w.reshape(-1)) for w in linear), net)


@partial(jax.jit, static_argnums=0)
def _distances(net: Net, convolutions: Any, linear: Any, pairs: UInt8[Array, "b 2 H W 3"]) -> Float[Array, " b"]:
    distance = partial(_distance, net, convolutions, linear)
    values: Float[Array, " b"] = jax.lax.map(distance, pairs, batch_size=_PAIRS_AT_ONCE if net == "alexnet" else 1)
    return values


def _distance(net: Net, convolutions: Any, linear: Any, pair: UInt8[Array, "2 H W 3"]) -> Float[Array, ""]:
    """Equation 1: a sum over stages of the weighted squared differences, averaged over places."""
    distance: Float[Array, ""] = jnp.float32(0)
    for weight, features in zip(linear, BACKBONES[net].stages(convolutions, pair), strict=True):
        y, y0 = features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + 1e-10)
        distance += (weight * (y - y0) ** 2).sum(-1).mean()
    return distance
