"""What a world must know of its game; shared by the real game and the dream, and free of both engines."""

from __future__ import annotations

from dataclasses import dataclass

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
