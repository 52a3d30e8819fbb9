"""From any way of saying what to do to the world's own actions: agents and players keep their action space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.envs.doom import Frame
from neural_env.wrappers.buttons import ActionTable
from neural_env.wrappers.keyboard import key_combinations
from neural_env.wrappers.plain import plain
from neural_env.wrappers.sources import Keys, source_of


class ActionMapping(gym.ActionWrapper[Frame, Any, np.int64], gym.utils.RecordConstructorArgs):
    """Takes actions of another space and hands the world its own.

    What is asked for is a set of buttons. The world does it if one of its actions holds exactly these; what happens to
    other sets says `unmapped`. One of the following says where the actions come from:

    Args:
        env: a `NeuralDoom`, a `RealDoom` or another environment with a Discrete space and `action_names`.
        actions: names of the world's actions: `Discrete`, in this order.
        buttons: names of buttons: `MultiBinary`.
        groups: lists of action names: `MultiDiscrete`, one choice of each group, all their buttons together.
        scenario: a scenario's name: its `Discrete`, by the names of its actions.
        vizdoom: a scenario's name, or `{"scenario", "max_buttons_pressed", "use_multi_binary_action_space"}` with
            ViZDoom's own defaults (1 and True): what ViZDoom's Gymnasium environment takes.
        keys: names of keys (`neural_env.wrappers.keyboard.KEYS`), or "all": `MultiBinary`, which keys are down.
        unmapped: "error", or "nearest": the action with the fewest buttons of difference, of several the first.

    `env.action_names` names the actions of a Discrete space; with `keys`, `gymnasium.utils.play.play` finds its keys by
    itself (its `noop` is then `np.zeros(len(env.keys), np.int8)`).

    Raises:
        TypeError: the environment names no actions, or not exactly one source is given.
        ValueError: an unknown name, or another `unmapped`.
        gymnasium.error.InvalidAction: at a step, for what the world has no action for, or what the space doesn't hold.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers import ActionMapping
        >>> env = ActionMapping(gym.make("NeuralDoom-v0"), buttons=["MOVE_LEFT", "MOVE_RIGHT"], unmapped="nearest")
        >>> env.action_space
        MultiBinary(2)
        >>> [int(env.action(pressed)) for pressed in ([0, 0], [1, 0], [0, 1], [1, 1])]
        [0, 1, 2, 1]
        >>> env.close()
    """

    def __init__(
        self,
        env: gym.Env[Frame, np.int64],
        *,
        actions: Sequence[str] | None = None,
        buttons: Sequence[str] | None = None,
        groups: Sequence[Sequence[str]] | None = None,
        scenario: str | None = None,
        vizdoom: str | dict[str, Any] | None = None,
        keys: str | Sequence[str] | None = None,
        unmapped: str = "error",
    ) -> None:
        given = {
            "actions": actions, "buttons": buttons, "groups": groups,
            "scenario": scenario, "vizdoom": vizdoom, "keys": keys,
        }  # fmt: skip
        gym.utils.RecordConstructorArgs.__init__(
            self, unmapped=unmapped, **{name: plain(value) for name, value in given.items()}
        )
        super().__init__(env)
        self._table = ActionTable(names_of(env, env.action_space), unmapped)
        self._source = source_of(given, self._table)
        self.action_space = self._source.space

    @property
    def action_names(self) -> tuple[str, ...]:
        """The actions of a Discrete space by name, so that mappings can be stacked; raises `AttributeError` else."""
        return self._source.action_names

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a keyboard; raises `AttributeError` for another source."""
        return self._keyboard.keys

    def action(self, action: Any) -> np.int64:
        """The world's action for one of this space."""
        return np.int64(self._table.index(self._source.buttons(action)))

    def get_keys_to_action(self) -> dict[tuple[int, ...], Any]:
        """For `gymnasium.utils.play.play`: pygame's key codes of up to three keys, and the action that they are."""
        return key_combinations(self._keyboard, self._table)

    @property
    def _keyboard(self) -> Keys:
        if not isinstance(self._source, Keys):
            raise AttributeError('only an ActionMapping with keys has a keyboard: make one with keys="all"')
        return self._source


def names_of(env: Any, space: gym.Space[Any]) -> tuple[str, ...]:
    """The names of an environment's discrete actions.

    Raises:
        TypeError: it has none, or not as many as actions.
    """
    for holder in (env, env.unwrapped):
        names = getattr(holder, "action_names", None)
        if isinstance(space, gym.spaces.Discrete) and names is not None and len(names) == space.n:
            return tuple(names)
    raise TypeError(
        f"ActionMapping needs a Discrete action space whose actions have names (action_names), got {space}: "
        "wrap a NeuralDoom or a RealDoom"
    )
