"""Corrupts what the dream remembers, at a level that it is told: GameNGen's cure for drift as a dial.

The model was trained on corrupted pasts (arXiv 2408.14837, section 3.2.1): at a higher level it trusts its memory less
and repairs it more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.envs.doom import Frame
from neural_env.wrappers.dreams import dream_of
from neural_env.wrappers.noise_schedule import schedule_of
from neural_env.wrappers.plain import plain
from neural_env.wrappers.streams import Stream, stream_of


class NoiseAugmentedContext(gym.Wrapper[Frame, np.int64, Frame, np.int64], gym.utils.RecordConstructorArgs):
    """Sets the level at which the past's latents are corrupted before the model sees them, and tells the model.

    `info["context_noise"]` is the level of the step just taken, in [0, 0.7]; after `reset`, that of the first step to
    come. The wrapper has a random stream of its own, from the environment's seed: whatever it draws, the starts and the
    luck of the episodes stay the same.

    Args:
        env: a `NeuralDoom`, possibly wrapped; its `context_noise` is what this sets.
        level: the level of every step, in [0, 0.7]; 0.1 if neither this nor a schedule is given.
        schedule: instead of a level, one of

            * `[[step, level], ...]`: breakpoints, linear between them and constant outside, in steps of the episode;
            * `["uniform", low, high]`: drawn once an episode, or with a fourth entry `"step"` at every step.

    Raises:
        TypeError: the environment is no `NeuralDoom`.
        ValueError: a level out of [0, 0.7], another schedule, or both.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers import NoiseAugmentedContext
        >>> env = NoiseAugmentedContext(gym.make("NeuralDoom-v0"), schedule=[[0, 0.0], [4, 0.2]])
        >>> observation, info = env.reset(seed=0)
        >>> [round(env.step(0)[-1]["context_noise"], 3) for _ in range(6)]
        [0.0, 0.05, 0.1, 0.15, 0.2, 0.2]
        >>> env.close()
    """

    def __init__(
        self, env: gym.Env[Frame, np.int64], level: float | None = None, schedule: Sequence[Any] | None = None
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, level=level, schedule=plain(schedule))
        super().__init__(env)
        self._dream = dream_of(env, "NoiseAugmentedContext")
        self._schedule = schedule_of(level, schedule)
        self._stream: Stream | None = None
        self._steps = 0
        self._level = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begins the schedule anew, or, if it is drawn, draws."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._stream = stream_of(self.env, seed, self._stream, "NoiseAugmentedContext")
        self._steps = 0
        self._turn()
        return observation, {**info, "context_noise": self._level}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Steps at the level that is due."""
        level = self._level
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        self._turn()
        return observation, float(reward), terminated, truncated, {**info, "context_noise": level}

    def _turn(self) -> None:
        """Turn the dial to the next step's level: ahead of the step, so that branches see it too."""
        assert self._stream is not None
        self._level = self._schedule.level(self._steps, self._level, self._stream)
        self._dream.context_noise = self._level
