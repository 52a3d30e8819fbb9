"""`NoiseAugmentedContext` for many dreams: each has its own place in the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from neural_env.wrappers.noise_schedule import schedule_of
from neural_env.wrappers.streams import Stream, streams_of
from neural_env.wrappers.vector.episodes import EpisodeWrapper, Infos


class NoiseAugmentedContext(EpisodeWrapper):
    """Sets the level at which each dream's past is corrupted, and tells the model; arguments as for the single form.

    `infos["context_noise"]` is `[N]`, the levels of the step just taken, or of the first one to come where an episode
    has just begun.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers.vector import NoiseAugmentedContext
        >>> envs = NoiseAugmentedContext(gym.make_vec("NeuralDoom-v0", num_envs=2), level=0.2)
        >>> observations, infos = envs.reset(seed=0)
        >>> infos["context_noise"].tolist()
        [0.2, 0.2]
        >>> envs.close()
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        level: float | None = None,
        schedule: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(env)
        self._schedule = schedule_of(level, schedule)
        self._streams: list[Stream] | None = None
        self._steps = np.zeros(env.num_envs, np.int64)
        self._levels: npt.NDArray[np.float64] = np.zeros(env.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begins the schedules of these dreams anew."""
        result = super().reset(seed=seed, options=options)
        self._dreams.context_noise = self._levels
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """Steps each dream at the level that is due."""
        result = super().step(actions)
        self._dreams.context_noise = self._levels
        return result

    def _prepare(self, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
        dealt = dict(zip(rows, seeds, strict=True))
        each = [dealt.get(i) for i in range(self.num_envs)]
        self._streams = streams_of(self.env, each, self._streams, "NoiseAugmentedContext")

    def _begun(self, row: int, frame: Any) -> Infos:
        self._turn(row, 0)
        return {"context_noise": float(self._levels[row])}

    def _after(
        self, row: int, action: int, frame: Any, reward: float, terminated: bool, ended: bool
    ) -> tuple[Infos, bool]:
        level = float(self._levels[row])
        self._turn(row, int(self._steps[row]) + 1)
        return {"context_noise": level}, False

    def _turn(self, row: int, step: int) -> None:
        assert self._streams is not None
        self._steps[row] = step
        self._levels[row] = self._schedule.level(step, float(self._levels[row]), self._streams[row])
