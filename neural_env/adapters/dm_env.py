"""One dream for the libraries that speak `dm_env`: time steps with a discount instead of two flags."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

try:
    import dm_env
    from dm_env import specs
except ImportError as error:
    raise ImportError('neural_env.adapters.dm_env needs dm_env: pip install "neural-env[dm-env]"') from error


class DreamEnvironment(dm_env.Environment):  # type: ignore[misc]  # dm_env has no types
    """A Gymnasium environment as a `dm_env.Environment`.

    The last step of an episode has discount 0 if it was terminated and 1 if it was only truncated: the game would
    have gone on. The step after it, and the first one of all, begins an episode and ignores its action.

    Args:
        env: a single environment, wrapped as you like: `gym.make("NeuralDoom-v0")`.
        seed: of the first episode; the later ones go on with the stream.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.adapters.dm_env import DreamEnvironment
        >>> environment = DreamEnvironment(gym.make("NeuralDoom-v0"), seed=0)
        >>> environment.reset().observation.shape
        (120, 160, 3)
        >>> environment.step(1).discount
        1.0
        >>> environment.close()
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int | None = None) -> None:
        self.env = env
        self._seed = seed
        self._over = True  # whether the next step begins an episode
        self._info: dict[str, Any] = {}
        self._observation_spec = spec_of(env.observation_space, "observation")
        self._action_spec = spec_of(env.action_space, "action")

    @property
    def info(self) -> dict[str, Any]:
        """Gymnasium's `info` of the latest step: a `TimeStep` has no place for it."""
        return self._info

    def reset(self) -> dm_env.TimeStep:
        """Begin an episode."""
        seed, self._seed = self._seed, None
        observation, self._info = self.env.reset(seed=seed)
        self._over = False
        return dm_env.restart(observation)

    def step(self, action: Any) -> dm_env.TimeStep:
        """Take an action, or begin an episode if none is running."""
        if self._over:
            return self.reset()
        observation, reward, terminated, truncated, self._info = self.env.step(action)
        self._over = terminated or truncated
        if terminated:
            return dm_env.termination(reward, observation)
        return dm_env.truncation(reward, observation) if truncated else dm_env.transition(reward, observation)

    def observation_spec(self) -> Any:
        """What `spec_of` makes of the observation space."""
        return self._observation_spec

    def action_spec(self) -> Any:
        """What `spec_of` makes of the action space."""
        return self._action_spec

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def spec_of(space: spaces.Space[Any], name: str) -> Any:
    """A Gymnasium space in `dm_env`'s terms; a `Dict` becomes a dict.

    Raises:
        TypeError: a kind of space that `dm_env` has no words for.
    """
    if isinstance(space, spaces.Box):
        return specs.BoundedArray(space.shape, space.dtype, space.low, space.high, name)
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return specs.DiscreteArray(int(space.n), np.int64, name)
    if isinstance(space, spaces.MultiBinary):
        return specs.BoundedArray(space.shape, space.dtype, 0, 1, name)
    if isinstance(space, spaces.MultiDiscrete):
        return specs.BoundedArray(space.shape, space.dtype, space.start, space.start + space.nvec - 1, name)
    if isinstance(space, spaces.Dict):
        return {key: spec_of(part, key) for key, part in space.items()}
    raise TypeError(f"dm_env has no spec for {space}: use a Box, Discrete from 0, MultiBinary, MultiDiscrete or Dict")
