"""GameNGen's shaped reward in place of the scenario's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from neural_env.agents.rewards import Area, GameNGenWeights, Signals, area_of, shaped

Frame = npt.NDArray[np.uint8]


class GameNGenReward(gym.Wrapper[Frame, np.int64, Frame, np.int64], gym.utils.RecordConstructorArgs):
    """Pays for what the engine's signals tell: hits, kills, pick-ups, secrets, new areas, health, armor and ammo.

    The reward is the sum of the terms of `neural_env.agents.rewards.shaped`. `info["scenario_reward"]` holds the
    scenario's own reward and `info["reward_terms"]` each term by name. Counts are differences between two steps, so an
    action that leads to several hits is paid for each.

    A new area is a square of `area_units` map units that the player enters for the first time in the episode. The grid
    is centred on where the episode started; the start itself pays nothing. It pays
    `new_area * (1 + new_area_distance * d)`, where `d` is the L1 distance from the start in squares.

    Args:
        env: a `RealDoom` with `signals=True`, possibly wrapped.
        weights: the paper's by default; a dictionary of fields of `GameNGenWeights` is taken too.

    Raises:
        ValueError: from `reset`, the environment gives no `info["signals"]`.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers.gamengen_reward import GameNGenReward
        >>> env = GameNGenReward(gym.make("RealDoom-v0", scenario="basic", signals=True))
        >>> observation, info = env.reset(seed=2)
        >>> for _ in range(2):  # shoots, hits nothing
        ...     _, reward, _, _, info = env.step(3)
        >>> reward, info["reward_terms"]["ammo"], info["scenario_reward"]
        (-1.0, -1.0, -9.0)
        >>> env.close()
    """

    def __init__(
        self, env: gym.Env[Frame, np.int64], weights: GameNGenWeights | dict[str, float] | None = None
    ) -> None:
        self._weights = weights if isinstance(weights, GameNGenWeights) else GameNGenWeights(**(weights or {}))
        gym.utils.RecordConstructorArgs.__init__(self, weights=asdict(self._weights))
        super().__init__(env)
        self._start: Signals = {}
        self._last: Signals = {}
        self._visited: set[Area] = set()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Starts an episode, with no area visited but the one it starts in."""
        observation, info = self.env.reset(seed=seed, options=options)
        if "signals" not in info:
            raise ValueError("GameNGenReward reads info['signals']: make the environment with signals=True")
        self._start = self._last = info["signals"]
        self._visited = {area_of(self._start, self._start, self._weights)}
        return observation, info

    def step(self, action: np.int64) -> tuple[Frame, SupportsFloat, bool, bool, dict[str, Any]]:
        """Steps the game and pays for what changed."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        signals: Signals = info["signals"]
        terms = shaped(self._last, signals, self._found(signals), self._weights)
        self._last = signals
        info = {**info, "scenario_reward": float(reward), "reward_terms": terms}
        return observation, sum(terms.values()), terminated, truncated, info

    def _found(self, signals: Signals) -> Area | None:
        area = area_of(signals, self._start, self._weights)
        if area in self._visited:
            return None
        self._visited.add(area)
        return area
