"""The arrays of a module as a flat dictionary, dotted path -> array: one form for files, EMA and optimiser."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

M = TypeVar("M", bound=nnx.Module)
Flat = dict[str, jax.Array]


def all_arrays(module: nnx.Module) -> Flat:
    """Every array of the module, measured statistics included."""
    return _flat(nnx.state(module))


def parameters(module: nnx.Module) -> Flat:
    """The learned arrays of the module only."""
    return _flat(nnx.state(module, nnx.Param))


def replaced(module: M, arrays: Mapping[str, jax.Array]) -> M:
    """A copy of the module with the named arrays replaced.

    Raises:
        ValueError: a name that the module doesn't have, or an array of another shape.
    """
    graph, state = nnx.split(module)
    flat = {_dotted(path): variable for path, variable in nnx.to_flat_state(state)}
    if unknown := sorted(arrays.keys() - flat.keys()):
        raise ValueError(
            f"the model has no array {unknown[0]!r} ({len(unknown)} unknown names): wrong preset or stage?"
        )
    for name, array in arrays.items():
        if flat[name].shape != array.shape:
            raise ValueError(f"{name} has shape {array.shape}, the model's is {flat[name].shape}: wrong preset?")
    paths = [
        (path, variable.replace(arrays.get(_dotted(path), variable.get_value())))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(paths))


def fingerprint(arrays: Mapping[str, jax.Array]) -> str:
    """sha256 of names and values, 64 hexadecimal digits: which weights made something."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def _flat(state: nnx.State[Any, Any]) -> Flat:
    return {_dotted(path): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def _dotted(path: tuple[object, ...]) -> str:
    return ".".join(map(str, path))
