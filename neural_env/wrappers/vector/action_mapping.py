"""`ActionMapping` for a vector environment: each row is mapped for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space, iterate

from neural_env.wrappers.action_mapping import names_of
from neural_env.wrappers.buttons import ActionTable
from neural_env.wrappers.sources import source_of


class ActionMapping(gym.vector.VectorActionWrapper[Any, Any, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Takes actions of another space and hands the worlds their own; arguments as for the single form.

    Example:
        >>> import gymnasium as gym, numpy as np, neural_env
        >>> from neural_env.wrappers.vector import ActionMapping
        >>> envs = ActionMapping(gym.make_vec("NeuralDoom-v0", num_envs=3), vizdoom="take_cover")
        >>> envs.single_action_space
        Discrete(3)
        >>> envs.actions(np.array([0, 1, 2])).tolist()
        [0, 2, 1]
        >>> envs.close()
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        *,
        actions: Sequence[str] | None = None,
        buttons: Sequence[str] | None = None,
        groups: Sequence[Sequence[str]] | None = None,
        scenario: str | None = None,
        vizdoom: str | dict[str, Any] | None = None,
        keys: str | Sequence[str] | None = None,
        unmapped: str = "error",
    ) -> None:
        super().__init__(env)
        self._table = ActionTable(names_of(env, env.single_action_space), unmapped)
        given = {
            "actions": actions, "buttons": buttons, "groups": groups,
            "scenario": scenario, "vizdoom": vizdoom, "keys": keys,
        }  # fmt: skip
        self._source = source_of(given, self._table)
        self.single_action_space = self._source.space
        self.action_space = batch_space(self._source.space, env.num_envs)

    @property
    def action_names(self) -> tuple[str, ...]:
        """The actions of a Discrete space by name; raises `AttributeError` for another."""
        return self._source.action_names

    def actions(self, actions: Any) -> npt.NDArray[np.int64]:
        """The worlds' actions, int64 `[N]`, for a batch of this space."""
        try:
            rows = list(iterate(self.action_space, actions))
        except (TypeError, ValueError, KeyError) as error:
            raise gym.error.InvalidAction(f"actions must be a batch of {self.action_space}, got {actions!r}") from error
        if len(rows) != self.num_envs:
            raise gym.error.InvalidAction(f"actions must be a batch of {self.action_space}, got {actions!r}")
        return np.array([self._table.index(self._source.buttons(row)) for row in rows], np.int64)
