"""Shadow mode: the real game beside the dream, with the same actions, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from neural_env.envs.doom import Frame
from neural_env.wrappers.comparison import Comparison, Side, checked_metrics
from neural_env.wrappers.dreams import dream_of, require_own_actions
from neural_env.wrappers.json_lines import JsonLines
from neural_env.wrappers.plain import threshold
from neural_env.wrappers.real_past import RealPast, require_frames
from neural_env.wrappers.real_starts import refuse_options


class ShadowMode(gym.Wrapper[Frame, np.int64, Frame, np.int64], gym.utils.RecordConstructorArgs):
    """Steps `RealDoom` beside a dream of the same scenario and compares the two at every step.

    `reset` plays no-ops in the real game until it has as many frames as the dream's context, and starts the dream from
    them. Observation, reward and `terminated` stay the dream's. `info["shadow"]` holds

    * `psnr`: dB between the dream's frame and the real one, at most `evaluation.frames.PSNR_MAX` (60), and every other
      metric that was asked for by its name;
    * `real_obs`: the real frame, uint8 `[H, W, 3]`;
    * `reward_error`: the dream's reward less the real one;
    * `terminated_real`: whether the real game ended with this step; `termination_agrees`: whether both did the same;
    * `steps_since_sync`: steps since the dream's past was last made of real frames; at most that old is its error.

    When the real game ends and the dream goes on, the step is truncated: there is no truth to compare with any more.
    The last step of an episode brings `info["episode_shadow"]`:

    * `mean_psnr`, `min_psnr` and the like for other metrics (of LPIPS, a distance, `max_lpips`), over the steps whose
      frame the real game shows: it has none after its end, and the keys are missing if that was the first step;
    * `horizon`: the first step under `horizon_below` dB, or the episode's number of steps if there is none, and
      `diverged`: whether there is one;
    * `reward_error`: mean of the absolute errors, `reward_agreement`: share of the steps with less than 0.5;
    * `termination_agreement`: share of the steps at which both ended or neither did;
    * `steps`.

    Args:
        env: a `NeuralDoom`, possibly wrapped.
        sync: when the dream's context is replaced by the latest real frames: "never", "every_step" (teacher-forced:
            each frame is one prediction from the truth) or every k steps.
        metrics: of "psnr", "ssim" and "lpips"; PSNR is always among them. LPIPS needs `pip install
            "neural-env[metrics]"` and frames of at least 31 pixels a side; the first reset reads its weights.
        horizon_below: dB under which the dream counts as diverged; 20 dB is a root mean squared error of a tenth of
            the range of brightness.
        truncate_below: dB under which the step is truncated; None: never.
        log: a file to append JSON lines to: one a step, `{"kind": "step", "episode", "step", "action", ...}` with the
            numbers of `info["shadow"]`, and one at the end of an episode, `{"kind": "episode", "episode", ...}` with
            those of `info["episode_shadow"]`. `episode` counts the resets of this wrapper from 0; an episode that is
            reset before its end has no last line. The file is closed with the environment.

    Raises:
        TypeError: the environment is no `NeuralDoom`.
        ValueError: another `sync`, an unknown metric, an observation of another shape than the real game's, or an
            action wrapper inside.
        ImportError: LPIPS is asked for, and the package with its weights is missing.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers import ShadowMode
        >>> env = ShadowMode(gym.make("NeuralDoom-v0"), sync=8)
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(0)
        >>> sorted(info["shadow"])
        ['psnr', 'real_obs', 'reward_error', 'ssim', 'steps_since_sync', 'terminated_real', 'termination_agrees']
        >>> env.close()
    """

    def __init__(
        self,
        env: gym.Env[Frame, np.int64],
        sync: str | int = "never",
        metrics: Sequence[str] = ("psnr", "ssim"),
        horizon_below: float = 20.0,
        truncate_below: float | None = None,
        log: str | None = None,
    ) -> None:
        names = checked_metrics(metrics)
        gym.utils.RecordConstructorArgs.__init__(
            self,
            sync=sync,
            metrics=list(names),
            horizon_below=horizon_below,
            truncate_below=truncate_below,
            log=None if log is None else str(log),
        )
        super().__init__(env)
        self._dream = dream_of(env, "ShadowMode")
        require_own_actions(env, "ShadowMode")
        self._period = period_of(sync)
        self._past = RealPast(self._dream.game)
        require_frames(env.observation_space, self._past, "ShadowMode")
        self._comparison = Comparison(names, horizon_below)
        self._truncate_below = threshold("truncate_below", truncate_below)
        self._log = None if log is None else JsonLines(log)
        self._since_sync = 0
        self._episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Starts both worlds from the same frames.

        Raises:
            ValueError: `options` were given: the context is the real game's own.
        """
        refuse_options("ShadowMode", options)
        self._past.warm_up(seed, self._dream.context_length)
        observation, info = self.env.reset(seed=seed, options=self._past.context())
        self._comparison.begin()
        self._since_sync = 0
        self._episode += 1
        return observation, {**info, "shadow": self._told(self._comparison.start(observation, self._past.frame))}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Steps both worlds."""
        if self._period is not None and self._since_sync >= self._period:
            self._dream.set_context(**self._past.context())
            self._since_sync = 0
        observation, reward, terminated, truncated, info = self.env.step(action)
        real = Side(*self._past.step(int(action))[:4])
        self._since_sync += 1
        compared = self._comparison.step(Side(observation, float(reward), terminated), real)
        truncated = truncated or real.terminated or real.truncated or self._comparison.is_under(self._truncate_below)
        truncated = truncated and not terminated
        info = {**info, "shadow": self._told(compared)}
        numbers = {**compared, "steps_since_sync": self._since_sync}
        self._write("step", step=self._comparison.steps, action=int(action), **numbers)
        if terminated or truncated:
            info["episode_shadow"] = self._comparison.summary()
            self._write("episode", **info["episode_shadow"])
        return observation, float(reward), terminated, truncated, info

    def close(self) -> None:
        """Closes both worlds, and the log."""
        self._past.close()
        if self._log is not None:
            self._log.close()
        super().close()

    def _told(self, compared: dict[str, Any]) -> dict[str, Any]:
        return {**compared, "real_obs": self._past.frame.copy(), "steps_since_sync": self._since_sync}

    def _write(self, kind: str, **record: Any) -> None:
        if self._log is not None:
            self._log.write(kind=kind, episode=self._episode, **record)


def period_of(sync: str | int) -> int | None:
    """Steps between two times that the dream is brought back to the truth; None: never.

    Raises:
        ValueError: another `sync` than "never", "every_step" or a number of at least 1.
    """
    if sync == "never":
        return None
    if sync == "every_step":
        return 1
    if isinstance(sync, int) and not isinstance(sync, bool) and sync >= 1:
        return sync
    raise ValueError(f'sync must be "never", "every_step" or a number of steps of at least 1, got {sync!r}')
