"""A warning when the dream isn't sure: how far its own versions of the next frame are apart."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.envs.doom import Frame
from neural_env.wrappers.dreams import dream_of, require_own_actions
from neural_env.wrappers.plain import threshold
from neural_env.wrappers.spread import Spread
from neural_env.wrappers.streams import Stream, stream_of


class Disagreement(gym.Wrapper[Frame, np.int64, Frame, np.int64], gym.utils.RecordConstructorArgs):
    """Draws the next frame several times over and tells how much the versions differ.

    `info["disagreement"]` is the standard deviation over the versions, averaged over pixels and colours, in grey levels
    (0 to 127.5); after `reset` it is 0, for the dream starts from what is known. It needs no real game. How well it
    foretells the true error of the bundled world is measured in docs/wrappers.md: look there before you rely on it.

    The dream's own course isn't touched: with equal seeds, frames, rewards and endings are those without the wrapper.
    Each step costs `samples` more.

    Args:
        env: a `NeuralDoom`, possibly wrapped.
        samples: how many versions, at least 2.
        kind: "samples": the versions differ by luck; "levels": by the level in [0, 0.7] at which the past is
            corrupted, which asks how much hangs on the details of a memory.
        truncate_above: grey levels above which the step is truncated; None: never.
        info_key: where in `info` it is told, for stacks of several.

    Raises:
        TypeError: the environment is no `NeuralDoom`.
        ValueError: fewer than 2 samples, another kind, or an action wrapper inside.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers import Disagreement
        >>> env = Disagreement(gym.make("NeuralDoom-v0"), samples=2, kind="levels")
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(0)
        >>> 0 < info["disagreement"] < 127.5
        True
        >>> env.close()
    """

    def __init__(
        self,
        env: gym.Env[Frame, np.int64],
        samples: int = 4,
        kind: str = "samples",
        truncate_above: float | None = None,
        info_key: str = "disagreement",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, samples=samples, kind=kind, truncate_above=truncate_above, info_key=info_key
        )
        super().__init__(env)
        self._dream = dream_of(env, "Disagreement")
        require_own_actions(env, "Disagreement")
        self._spread = Spread(samples, kind)
        self._truncate_above = threshold("truncate_above", truncate_above)
        self._key = info_key
        self._stream: Stream | None = None
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begins an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._stream = stream_of(self.env, seed, self._stream, f"Disagreement {self._key}")
        self._running = True
        return observation, {**info, self._key: 0.0}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Looks ahead, then steps."""
        told = self._ahead(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._truncate_above is not None and told > self._truncate_above:
            truncated = not terminated
        self._running = not (terminated or truncated)
        return observation, float(reward), terminated, truncated, {**info, self._key: told}

    def _ahead(self, action: np.int64) -> float:
        """The disagreement about the step to come; 0 where the step itself will be refused."""
        if not self._running or not self._dream.action_space.contains(action):
            return 0.0
        assert self._stream is not None
        return self._spread.ahead(self._dream, self._dream.get_state(), int(action), self._stream)
