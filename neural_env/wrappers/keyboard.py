"""Which key means which button: Doom's own keys, by the names that browsers give to places on the keyboard.

`KeyboardEvent.code` names a place, not a letter, so that W, A, S, D lie together on every keyboard.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from neural_env.wrappers.buttons import ActionTable, Buttons
    from neural_env.wrappers.sources import Keys

KEYS: dict[str, tuple[str, ...]] = {
    "ArrowLeft": ("TURN_LEFT", "MOVE_LEFT"),
    "ArrowRight": ("TURN_RIGHT", "MOVE_RIGHT"),
    "ArrowUp": ("MOVE_FORWARD",),
    "ArrowDown": ("MOVE_BACKWARD",),
    "KeyW": ("MOVE_FORWARD",),
    "KeyS": ("MOVE_BACKWARD",),
    "KeyA": ("MOVE_LEFT", "TURN_LEFT"),
    "KeyD": ("MOVE_RIGHT", "TURN_RIGHT"),
    "ControlLeft": ("ATTACK",),
    "Space": ("USE", "ATTACK"),
    "ShiftLeft": ("SPEED",),
    **{f"Digit{slot}": (f"SELECT_WEAPON{slot}",) for slot in range(1, 8)},
}
"""Each key's buttons, best first: a key presses the first that the world has."""

_TOGETHER = 3  # keys that are looked up together: more are hardly ever down at once
_PYGAME = {
    "ArrowLeft": "K_LEFT", "ArrowRight": "K_RIGHT", "ArrowUp": "K_UP", "ArrowDown": "K_DOWN",
    "ControlLeft": "K_LCTRL", "Space": "K_SPACE", "ShiftLeft": "K_LSHIFT",
}  # fmt: skip


def button_of_key(key: str, available: Buttons) -> str | None:
    """The button that a key presses in a world with these buttons; None: it does nothing."""
    return next((button for button in KEYS[key] if button in available), None)


def key_combinations(keyboard: Keys, table: ActionTable) -> dict[tuple[int, ...], Any]:
    """The combinations of up to three keys that mean an action, by pygame's key codes, sorted as `play` sorts them.

    Raises:
        gymnasium.error.DependencyNotInstalled: there is no pygame.
    """
    found = {}
    for size in range(_TOGETHER + 1):
        for places in itertools.combinations(keyboard.useful, size):
            down = np.zeros(len(keyboard.keys), np.int8)
            down[list(places)] = 1
            if table.has(keyboard.buttons(down)):
                found[tuple(sorted(_pygame_code(keyboard.keys[i]) for i in places))] = down
    return found


def _pygame_code(key: str) -> int:
    try:
        import pygame
    except ImportError as error:
        raise gym.error.DependencyNotInstalled("playing by keyboard needs pygame: pip install pygame-ce") from error
    return int(getattr(pygame, _PYGAME.get(key) or f"K_{key[-1].lower()}"))
