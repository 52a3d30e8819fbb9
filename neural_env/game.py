"""What a world must know of its game; shared by the real game and the dream, and free of both engines."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

TICS_PER_SECOND = 35  # Doom's clock
HUD_SHARE = 32 / 200  # of the screen's height, at its bottom: Doom's status bar


@dataclass(frozen=True)
class GameConfig:
    """Enough to build the spaces, and to refuse another game's data."""

    scenario: str
    action_names: tuple[str, ...]  # 0 is the no-op
    variable_names: tuple[str, ...]
    frame_skip: int  # tics an action is held
    resolution: tuple[int, int]  # height, width in pixels


def first_difference(a: GameConfig, b: GameConfig) -> tuple[str, Any, Any] | None:
    """The first setting in which two games differ, in words, and its value in either; None if they are one game."""
    for field in fields(GameConfig):
        mine, its = getattr(a, field.name), getattr(b, field.name)
        if mine != its:
            return field.name.replace("_", " "), mine, its
    return None
