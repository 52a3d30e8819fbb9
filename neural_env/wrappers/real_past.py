"""The real game with its latest frames at hand: what a dream can be started from, or brought back to."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.envs.doom import Frame
from neural_env.envs.real_doom import RealDoom
from neural_env.game import GameConfig

RealStep = tuple[Frame, float, bool, bool, dict[str, Any]]


class RealPast:
    """A `RealDoom` that remembers its last frames and the actions between them; the engine is kept from game to game.

    Args:
        game: what is played, and how.
    """

    def __init__(self, game: GameConfig) -> None:
        self.real = RealDoom(game.scenario, game.resolution, game.frame_skip)
        self._frames: deque[Frame] = deque()
        self._actions: deque[int] = deque()

    @property
    def frame(self) -> Frame:
        """The latest."""
        return self._frames[-1]

    def begin(self, seed: int | None, length: int) -> Frame:
        """Start a game of which the last `length` frames are remembered."""
        self._frames, self._actions = deque(maxlen=length), deque(maxlen=length - 1)
        frame: Frame = self.real.reset(seed=seed)[0]
        self._frames.append(frame)
        return frame

    def step(self, action: int) -> RealStep:
        """A step of the real game."""
        step = self.real.step(np.int64(action))
        self._frames.append(step[0])
        self._actions.append(int(action))
        return step

    def warm_up(self, seed: int | None, length: int) -> None:
        """Start a game and do nothing in it until it has `length` frames.

        Raises:
            RuntimeError: it ends before.
        """
        self.begin(seed, length)
        for _ in range(length - 1):
            _, _, terminated, truncated, _ = self.step(0)
            if terminated or truncated:
                raise RuntimeError(
                    f"the real game ended within its first {length} no-ops: there is no context to dream from"
                )

    def context(self) -> dict[str, Any]:
        """The past, as a dream's `reset` and `set_context` take it."""
        return {"context": np.stack(self._frames), "actions": np.array(self._actions, np.int32)}

    def close(self) -> None:
        """End the engine."""
        self.real.close()


def require_frames(space: gym.Space[Any], past: RealPast, wrapper: str) -> None:
    """Raises `ValueError` if the observations aren't the real game's frames."""
    if space != past.real.observation_space:
        raise ValueError(f"{wrapper} compares frames: put observation wrappers outside of it")
