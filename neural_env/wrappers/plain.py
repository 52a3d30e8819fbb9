"""Arguments as JSON keeps them, so that a specification is equal to itself after a round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def plain(value: Any) -> Any:
    """`value` with lists for all other sequences, down to the last."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def threshold(name: str, value: Any) -> float | None:
    """A wrapper's threshold: a number, or None for never; raises `ValueError` for what nothing compares with."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value == value):
        return value
    raise ValueError(f"{name} must be a number, or None for never, got {value!r}")
