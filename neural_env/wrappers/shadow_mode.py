"""Shadow mode: the real game beside the dream, with the same actions, and how far they are apart."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.frames import psnr

Frame = npt.NDArray[np.uint8]


class ShadowMode(gym.Wrapper[Frame, np.int64, Frame, np.int64], gym.utils.RecordConstructorArgs):
    """Steps `RealDoom` beside a dream of the same scenario and compares the two at every step.

    `reset` plays no-ops in the real game until it has as many frames as the dream's context, and starts the dream from
    them. Observation, reward and `terminated` stay the dream's. `info["shadow"]` holds

    * `psnr`: dB between the dream's frame and the real one, at most `evaluation.frames.PSNR_MAX` (60);
    * `real_obs`: the real frame, uint8 `[H, W, 3]`;
    * `reward_error`: the dream's reward less the real one;
    * `terminated_real`: whether the real game ended with this step;
    * `steps_since_sync`: steps since the dream's past was last made of real frames; at most that old is its error.

    When the real game ends and the dream goes on, the step is truncated: there is no truth to compare with any more.

    Args:
        env: a `NeuralDoom`, possibly wrapped.
        sync: when the dream's context is replaced by the latest real frames: "never", "every_step" (teacher-forced:
            each frame is one prediction from the truth) or every k steps.

    Raises:
        TypeError: the environment is no `NeuralDoom`.
        ValueError: another `sync`, or an observation of another shape than the real game's.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers import ShadowMode
        >>> env = ShadowMode(gym.make("NeuralDoom-v0"), sync=8)
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(0)
        >>> sorted(info["shadow"])
        ['psnr', 'real_obs', 'reward_error', 'steps_since_sync', 'terminated_real']
        >>> env.close()
    """

    def __init__(self, env: gym.Env[Frame, np.int64], sync: str | int = "never") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, sync=sync)
        super().__init__(env)
        if not isinstance(env.unwrapped, NeuralDoom):
            raise TypeError(f"ShadowMode wraps a NeuralDoom, got {type(env.unwrapped).__name__}: wrap the dream itself")
        self._dream: NeuralDoom = env.unwrapped
        self._period = _period(sync)
        game = self._dream.game
        self._real = RealDoom(game.scenario, game.resolution, game.frame_skip)
        if env.observation_space != self._real.observation_space:
            raise ValueError("ShadowMode compares frames: put observation wrappers outside of it")
        self._frames: deque[Frame] = deque()
        self._actions: deque[int] = deque()
        self._since_sync = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Starts both worlds from the same frames.

        Raises:
            ValueError: `options` were given: the context is the real game's own.
        """
        if options:
            raise ValueError(
                f"ShadowMode starts the dream from the real game: reset takes no options, got {sorted(options)}"
            )
        self._warm_up(seed)
        observation, info = self.env.reset(seed=seed, options=self._context())
        self._since_sync = 0
        return observation, {**info, "shadow": self._compared(observation, 0.0, False)}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Steps both worlds."""
        if self._period is not None and self._since_sync >= self._period:
            self._dream.set_context(**self._context())
            self._since_sync = 0
        observation, reward, terminated, truncated, info = self.env.step(action)
        real_frame, real_reward, real_terminated, real_truncated, _ = self._real.step(action)
        self._remember(real_frame, int(action))
        self._since_sync += 1
        info["shadow"] = self._compared(observation, float(reward) - real_reward, real_terminated)
        real_ended = real_terminated or real_truncated
        return observation, float(reward), terminated, not terminated and (truncated or real_ended), info

    def close(self) -> None:
        """Closes both worlds."""
        self._real.close()
        super().close()

    def _warm_up(self, seed: int | None) -> None:
        n = self._dream.context_length
        self._frames, self._actions = deque(maxlen=n), deque(maxlen=n - 1)
        frame, _ = self._real.reset(seed=seed)
        self._frames.append(frame)
        while len(self._frames) < n:
            frame, _, terminated, truncated, _ = self._real.step(0)
            if terminated or truncated:
                raise RuntimeError(
                    f"the real game ended within its first {n} no-ops: there is no context to dream from"
                )
            self._remember(frame, 0)

    def _remember(self, frame: Frame, action: int) -> None:
        self._frames.append(frame)
        self._actions.append(action)

    def _context(self) -> dict[str, Any]:
        return {"context": np.stack(self._frames), "actions": np.array(self._actions, np.int32)}

    def _compared(self, observation: Frame, reward_error: float, terminated: bool) -> dict[str, Any]:
        real = self._frames[-1]
        return {
            "psnr": float(psnr(observation, real)),
            "real_obs": real.copy(),
            "reward_error": reward_error,
            "terminated_real": terminated,
            "steps_since_sync": self._since_sync,
        }


def _period(sync: str | int) -> int | None:
    if sync == "never":
        return None
    if sync == "every_step":
        return 1
    if isinstance(sync, int) and not isinstance(sync, bool) and sync >= 1:
        return sync
    raise ValueError(f'sync must be "never", "every_step" or a number of steps of at least 1, got {sync!r}')
