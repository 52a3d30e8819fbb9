"""Mixed precision: convolutions and dense layers in bfloat16, all else (weights, norms, losses, optimiser) in float32.

Only the products are worth it: they are most of the time and lose nothing that a float32 sum doesn't keep. On a CPU XLA
computes them in bfloat16 more slowly than in float32.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

M = TypeVar("M", bound=nnx.Module)
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]


def computing_in(module: M, precision: Precision) -> M:
    """A copy whose layers cast weights and inputs to `precision`; "auto" is what the default backend gains from.

    The weights stay float32, and so do their gradients.
    """
    if _resolved(precision) == "float32":
        return module
    graph, state = nnx.split(module)
    copy: M = nnx.merge(graph, state)
    for _, layer in nnx.iter_modules(copy):
        if isinstance(layer, (nnx.Conv, nnx.Linear)):
            _set_dtype(layer)
    return copy


def _set_dtype(layer: Any) -> None:
    layer.dtype = jnp.bfloat16


def _resolved(precision: Precision) -> Precision:
    if precision != "auto":
        return precision
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
