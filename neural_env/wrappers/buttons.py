"""Actions as sets of buttons, and which action of a world a set of buttons means."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym

from neural_env.data.vizdoom import NO_OP

Buttons = frozenset[str]
"""What is held down: ViZDoom's names in capitals."""

_AND = "+"  # between the buttons of an action that presses several


def buttons_of(action_name: str) -> Buttons:
    """The buttons of a named action: none for `noop`, `{"MOVE_LEFT", "ATTACK"}` for `move_left+attack`."""
    return frozenset() if action_name == NO_OP else frozenset(action_name.upper().split(_AND))


def delta_buttons_first(buttons: Sequence[str]) -> tuple[str, ...]:
    """The order of ViZDoom's Gymnasium environments: buttons with a strength (`..._DELTA`) before those held down."""
    return tuple(sorted(buttons, key=lambda name: not is_delta(name)))  # a stable sort


def is_delta(button: str) -> bool:
    """Whether a button takes a strength instead of being held down."""
    return button.endswith("_DELTA")


class ActionTable:
    """Looks up the action of a world that means a set of buttons.

    Args:
        names: the world's actions.
        unmapped: "error", or "nearest": the fewest buttons that differ, of several actions the first.
    """

    def __init__(self, names: Sequence[str], unmapped: str) -> None:
        if unmapped not in ("error", "nearest"):
            raise ValueError(f'unmapped must be "error" or "nearest", got {unmapped!r}')
        self.names = tuple(names)
        self._nearest = unmapped == "nearest"
        self._sets = [buttons_of(name) for name in self.names]
        self._known = {buttons: i for i, buttons in reversed(list(enumerate(self._sets)))}

    @property
    def buttons(self) -> Buttons:
        """Every button that some action presses."""
        return frozenset().union(*self._sets)

    def index(self, buttons: Buttons) -> int:
        """The world's action for these buttons; raises `gym.error.InvalidAction` where nothing is mapped."""
        if not self.has(buttons):
            raise gym.error.InvalidAction(
                f"the world has no action for {'+'.join(sorted(buttons)) or 'no button'}; it has "
                f"{', '.join(self.names)}: choose one of these, or map with unmapped='nearest'"
            )
        if buttons not in self._known:
            self._known[buttons] = min(range(len(self._sets)), key=lambda i: len(buttons ^ self._sets[i]))
        return self._known[buttons]

    def has(self, buttons: Buttons) -> bool:
        """Whether these buttons mean an action."""
        return self._nearest or buttons in self._known

    def named(self, name: str) -> Buttons:
        """The buttons of one of the world's actions; raises `ValueError` for another name."""
        if name not in self.names:
            raise ValueError(f"the world has no action {name!r}; choose of {', '.join(self.names)}")
        return buttons_of(name)
