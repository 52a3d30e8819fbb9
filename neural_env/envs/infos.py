"""Gymnasium's vector infos, one dream at a time: what `VectorEnv._add_info` put together, taken apart again."""

from __future__ import annotations

from typing import Any

import numpy as np


def info_of(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """The `info` that environment `row` would have given alone.

    Args:
        infos: of a vector environment's `reset` or `step`; where there is an `infos["_key"]`, it says which rows have
            the key.
        row: index of the environment.
    """
    info: dict[str, Any] = {}
    for name, values in infos.items():
        is_mask = name.startswith("_") and name[1:] in infos
        if not is_mask and (f"_{name}" not in infos or infos[f"_{name}"][row]):
            info[name] = info_of(values, row) if isinstance(values, dict) else _plain(values[row])
    return info


def _plain(value: Any) -> Any:
    """Python's own number, or a copy that nobody else writes to."""
    if isinstance(value, np.generic):
        return value.item()
    return value.copy() if isinstance(value, np.ndarray) else value
