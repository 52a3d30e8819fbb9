"""AlexNet and VGG16 as trained on ImageNet: what five stages of their convolutions find in frames.

The networks that LPIPS compares frames with, without their classifiers (Zhang et al. 2018, arXiv 1801.03924).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from neural_env.evaluation.weights import Net, read_weights

Convolutions: TypeAlias = tuple[tuple[Float[Array, "h w i o"], Float[Array, " o"]], ...]
"""Kernel and bias of each convolution, in order."""

_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)  # mean and deviation of ImageNet's colours in [-1, 1],
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)  # as LPIPS rounds them
_VGG16 = ((0, 1), (2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12))  # the convolutions between two poolings


@dataclass(frozen=True)
class Backbone:
    """One of the two networks, without weights."""

    module: str  # its name in the file of weights
    depth: int  # convolutions
    min_side: int  # pixels: the stages leave nothing of a shorter side
    stages: Callable[[Any, Any], list[Any]]


def _alexnet(convolutions: Convolutions, frames: UInt8[Array, "n H W 3"]) -> list[Float[Array, "n h w c"]]:
    """After each of the five convolutions' ReLUs."""
    x = _normalised(frames)
    found = []
    for i, (kernel, bias) in enumerate(convolutions):
        if i in (1, 2):
            x = _pooled(x, 3)
        stride, padding = (4, 2) if i == 0 else (1, kernel.shape[0] // 2)
        x = jax.nn.relu(_convolved(x, kernel, stride, padding) + bias)
        found.append(x)
    return found


def _vgg16(convolutions: Convolutions, frames: UInt8[Array, "n H W 3"]) -> list[Float[Array, "n h w c"]]:
    """After the last ReLU of each stage: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""
    x = _normalised(frames)
    found: list[Float[Array, "n h w c"]] = []
    for stage in _VGG16:
        x = _pooled(x, 2) if found else x
        for i in stage:
            kernel, bias = convolutions[i]
            x = jax.nn.relu(_convolved(x, kernel, 1, 1) + bias)
        found.append(x)
    return found


BACKBONES: dict[Net, Backbone] = {
    "alexnet": Backbone("AlexNet_0", 5, 31, _alexnet),
    "vgg16": Backbone("VGG16_0", 13, 16, _vgg16),
}


@cache
def load_arrays(net: Net) -> Mapping[str, Any]:
    """The file of weights, read once a process; raises as `weights.read_weights`."""
    return read_weights(net)


def convolutions_of(net: Net) -> Convolutions:
    """The trained convolutions, on JAX's default device; raises as `weights.read_weights`."""
    backbone = BACKBONES[net]
    layers = load_arrays(net)[backbone.module]
    named = [layers[f"Conv_{i}"] for i in range(backbone.depth)]
    return tuple((jnp.asarray(layer["kernel"]), jnp.asarray(layer["bias"])) for layer in named)


def _normalised(frames: Array) -> Array:
    return (frames.astype(jnp.float32) / 127.5 - 1 - _SHIFT) / _SCALE


def _pooled(x: Array, size: int) -> Array:
    pooled: Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, 2, 2, 1), "VALID")
    return pooled


def _convolved(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    convolved: Array = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,  # accelerators would round to fewer bits
    )
    return convolved
