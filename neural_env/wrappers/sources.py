"""Where mapped actions come from: each source has a space and says which buttons an action of it presses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from neural_env.data.vizdoom import scenario_named
from neural_env.wrappers.buttons import ActionTable, Buttons, buttons_of, delta_buttons_first, is_delta
from neural_env.wrappers.keyboard import KEYS, button_of_key


class Source(Protocol):
    """A way of saying what to do."""

    space: gym.Space[Any]

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the actions, if the space is Discrete; raises `AttributeError` else."""
        ...

    def buttons(self, action: Any) -> Buttons:
        """What an action of the space presses; raises `gym.error.InvalidAction` for others."""
        ...


class _Unnamed:
    """Sources whose actions have no names."""

    space: gym.Space[Any]

    @property
    def action_names(self) -> tuple[str, ...]:
        """There are none."""
        raise AttributeError(f"the actions of {self.space} have no names")


class Named:
    """Discrete over named actions: a subset of the world's, or another scenario's."""

    def __init__(self, names: Sequence[str]) -> None:
        self.action_names = tuple(names)
        self.space: gym.Space[Any] = gym.spaces.Discrete(len(self.action_names))
        self._sets = [buttons_of(name) for name in self.action_names]

    def buttons(self, action: Any) -> Buttons:
        """Those of the name."""
        return self._sets[int(checked(self.space, action, ", ".join(self.action_names)))]


class Pressed(_Unnamed):
    """MultiBinary, or MultiDiscrete of twos, over named buttons."""

    def __init__(self, names: Sequence[str], multi_binary: bool = True) -> None:
        self.names = tuple(names)
        size = len(self.names)
        self.space = gym.spaces.MultiBinary(size) if multi_binary else gym.spaces.MultiDiscrete([2] * size)

    def buttons(self, action: Any) -> Buttons:
        """Those whose entry is 1."""
        pressed = checked(self.space, _integers(action), ", ".join(self.names))
        return frozenset(itertools.compress(self.names, pressed))


class Groups(_Unnamed):
    """MultiDiscrete: a choice of each group, all their buttons together."""

    def __init__(self, groups: Sequence[Sequence[str]], table: ActionTable) -> None:
        self._groups = [[table.named(name) for name in group] for group in groups]
        self.space = gym.spaces.MultiDiscrete([len(group) for group in groups])
        self._about = " x ".join(f"({', '.join(group)})" for group in groups)

    def buttons(self, action: Any) -> Buttons:
        """The union of the choices'."""
        choices = checked(self.space, _integers(action), self._about)
        return frozenset().union(*(group[i] for group, i in zip(self._groups, choices, strict=True)))


class Combinations(_Unnamed):
    """ViZDoom's Discrete: all combinations of at most so many buttons, counted like binary numbers.

    The first button is the highest bit, as `itertools.product` has it.
    """

    def __init__(self, names: Sequence[str], at_most: int) -> None:
        rows = [row for row in itertools.product((0, 1), repeat=len(names)) if sum(row) <= at_most]
        self._sets = [frozenset(itertools.compress(names, row)) for row in rows]
        self.space = gym.spaces.Discrete(len(rows))
        self._about = f"combinations of at most {at_most} of {', '.join(names)}"

    def buttons(self, action: Any) -> Buttons:
        """Those of the combination."""
        return self._sets[int(checked(self.space, action, self._about))]


class WithDeltas(_Unnamed):
    """ViZDoom's Dict of held buttons and of buttons with a strength; any strength but 0 presses."""

    def __init__(self, binary: Source, deltas: Sequence[str]) -> None:
        self._binary = binary
        self._deltas = tuple(deltas)
        limit = float(np.finfo(np.float32).max)
        strengths = gym.spaces.Box(-limit, limit, (len(deltas),), np.float32)
        self.space = gym.spaces.Dict({"binary": binary.space, "continuous": strengths})

    def buttons(self, action: Any) -> Buttons:
        """Those held, and those with a strength."""
        parts = checked(self.space, action, f"strengths of {', '.join(self._deltas)}")
        moved = itertools.compress(self._deltas, np.asarray(parts["continuous"]) != 0)
        return self._binary.buttons(parts["binary"]) | frozenset(moved)


class Keys(_Unnamed):
    """A keyboard: MultiBinary, which keys are down. A key that the world has no button for does nothing."""

    def __init__(self, keys: Sequence[str], table: ActionTable) -> None:
        for key in keys:
            if key not in KEYS:
                raise ValueError(f"unknown key {key!r}; choose of {', '.join(KEYS)}")
        self.keys = tuple(keys)
        self._presses = [button_of_key(key, table.buttons) for key in keys]
        self.space = gym.spaces.MultiBinary(len(self.keys))

    @property
    def useful(self) -> list[int]:
        """Which of the keys press something."""
        return [i for i, button in enumerate(self._presses) if button is not None]

    def buttons(self, action: Any) -> Buttons:
        """Those of the keys that are down."""
        down = checked(self.space, _integers(action), ", ".join(self.keys))
        return frozenset(button for button in itertools.compress(self._presses, down) if button is not None)


def source_of(given: dict[str, Any], table: ActionTable) -> Source:
    """The source that a wrapper's arguments mean.

    Raises:
        TypeError: not exactly one of them is given.
        ValueError: an unknown name.
    """
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise TypeError(f"ActionMapping takes exactly one of {', '.join(given)}; got {', '.join(chosen) or 'none'}")
    value = given[chosen[0]]
    match chosen[0]:
        case "actions":
            for name in _filled(value, "actions"):
                table.named(name)
            return Named(value)
        case "buttons":
            return Pressed(_buttons(value))
        case "groups":
            return Groups([_filled(group, "a group") for group in _filled(value, "groups")], table)
        case "scenario":
            return Named(scenario_named(value).action_names)
        case "vizdoom":
            return _vizdoom(**({"scenario": value} if isinstance(value, str) else value))
        case _:
            return Keys(tuple(KEYS) if value == "all" else _filled(value, "keys"), table)


def checked(space: gym.Space[Any], action: Any, about: str) -> Any:
    """The action, if the space holds it; raises `gym.error.InvalidAction` with what there is."""
    if not space.contains(action):
        raise gym.error.InvalidAction(f"action {action!r} is not in {space}: {about}")
    return action


def _vizdoom(
    scenario: str, max_buttons_pressed: int = 1, use_multi_binary_action_space: bool = True, **unknown: Any
) -> Source:
    """What `vizdoom.gymnasium_wrapper` makes of these arguments, in its order."""
    if unknown:
        raise ValueError(
            f"vizdoom takes scenario, max_buttons_pressed and use_multi_binary_action_space, got {sorted(unknown)}"
        )
    if isinstance(max_buttons_pressed, bool) or not isinstance(max_buttons_pressed, int) or max_buttons_pressed < 0:
        raise ValueError(f"max_buttons_pressed must be an integer of at least 0, got {max_buttons_pressed!r}")
    names = delta_buttons_first(scenario_named(scenario).buttons)
    deltas, held = [n for n in names if is_delta(n)], [n for n in names if not is_delta(n)]
    at_most = min(max_buttons_pressed, len(held))
    binary = Combinations(held, at_most) if at_most else Pressed(held, use_multi_binary_action_space)
    return WithDeltas(binary, deltas) if deltas else binary


def _filled(value: Any, what: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"{what} must be a list with at least one entry, got {value!r}")
    return value


def _buttons(value: Any) -> tuple[str, ...]:
    names = tuple(str(name).upper() for name in _filled(value, "buttons"))
    if len(set(names)) != len(names):
        raise ValueError(f"buttons must differ from each other, got {list(names)}")
    return names


def _integers(action: Any) -> npt.NDArray[Any]:
    """A list of numbers will do where NumPy is expected."""
    return action if isinstance(action, np.ndarray) else np.asarray(action)
