"""Shadow mode for many: N real games beside N dreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from neural_env.wrappers.comparison import Comparison, Side, checked_metrics
from neural_env.wrappers.json_lines import JsonLines
from neural_env.wrappers.plain import threshold
from neural_env.wrappers.real_past import RealPast, require_frames
from neural_env.wrappers.shadow_mode import period_of
from neural_env.wrappers.vector.dreams import require_own_actions, set_contexts
from neural_env.wrappers.vector.episodes import EpisodeWrapper, Infos
from neural_env.wrappers.vector.threads import in_threads


class ShadowMode(EpisodeWrapper):
    """Steps a `RealDoom` beside each dream and compares them at every step; arguments as for the single form.

    `infos["shadow"]` and `infos["episode_shadow"]` hold arrays `[N]` (`real_obs` is `[N, H, W, 3]`) with Gymnasium's
    masks beside them. Every episode begins from its real game's frames, in all autoreset modes; where the real game
    ends first, or the dream is further off than `truncate_below`, the dream's episode is truncated and begins anew as
    the mode says. In mode "SameStep" the last step's values are in `infos["final_info"]`. Lines of the log have `env`
    too, the number of the dream.

    Example:
        >>> import gymnasium as gym, numpy as np, neural_env
        >>> from neural_env.wrappers.vector import ShadowMode
        >>> envs = ShadowMode(gym.make_vec("NeuralDoom-v0", num_envs=2))
        >>> observations, infos = envs.reset(seed=0)
        >>> observations, rewards, terminations, truncations, infos = envs.step(np.array([0, 1]))
        >>> infos["shadow"]["psnr"].shape, infos["shadow"]["real_obs"].shape
        ((2,), (2, 120, 160, 3))
        >>> envs.close()
    """

    begins: ClassVar[bool] = True

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        sync: str | int = "never",
        metrics: Sequence[str] = ("psnr", "ssim"),
        horizon_below: float = 20.0,
        truncate_below: float | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(env)
        require_own_actions(env, "ShadowMode")
        names, rows = checked_metrics(metrics), range(env.num_envs)
        self._period = period_of(sync)
        self._pasts = [RealPast(self._dreams.game) for _ in rows]
        require_frames(env.single_observation_space, self._pasts[0], "ShadowMode")
        self._comparisons = [Comparison(names, horizon_below) for _ in rows]
        self._truncate_below = threshold("truncate_below", truncate_below)
        self._log = None if log is None else JsonLines(log)
        self._since_sync = [0 for _ in rows]
        self._episodes = [-1 for _ in rows]
        self._real: dict[int, Side] = {}

    def close(self, **kwargs: Any) -> None:
        """Closes the dreams, the engines and the log."""
        for past in self._pasts:
            past.close()
        if self._log is not None:
            self._log.close()
        super().close(**kwargs)

    def _prepare(self, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
        dealt, length = dict(zip(rows, seeds, strict=True)), self._dreams.world.context_length
        in_threads(lambda i: self._pasts[i].warm_up(dealt[i], length), rows)

    def _beginning(self, row: int) -> dict[str, Any]:
        return self._pasts[row].context()

    def _begun(self, row: int, frame: Any) -> Infos:
        self._comparisons[row].begin()
        self._since_sync[row] = 0
        self._episodes[row] += 1
        return {"shadow": self._told(row, self._comparisons[row].start(frame, self._pasts[row].frame))}

    def _ahead(self, actions: npt.NDArray[np.int64], live: Sequence[int]) -> None:
        """Syncs that are due, and the real games' steps."""
        due = [i for i in live if self._period is not None and self._since_sync[i] >= self._period]
        set_contexts(self._dreams, {i: self._pasts[i].context() for i in due})
        for i in due:
            self._since_sync[i] = 0
        steps = in_threads(lambda i: self._pasts[i].step(int(actions[i])), live)
        self._real = {i: Side(*step[:4]) for i, step in zip(live, steps, strict=True)}

    def _after(
        self, row: int, action: int, frame: Any, reward: float, terminated: bool, ended: bool
    ) -> tuple[Infos, bool]:
        real, comparison = self._real[row], self._comparisons[row]
        self._since_sync[row] += 1
        compared = comparison.step(Side(frame, reward, terminated), real)
        cut = real.terminated or real.truncated or comparison.is_under(self._truncate_below)
        told: Infos = {"shadow": self._told(row, compared)}
        numbers = {**compared, "steps_since_sync": self._since_sync[row]}
        self._write("step", row, step=comparison.steps, action=action, **numbers)
        if ended or cut:
            told["episode_shadow"] = comparison.summary()
            self._write("episode", row, **told["episode_shadow"])
        return told, cut

    def _told(self, row: int, compared: dict[str, Any]) -> dict[str, Any]:
        return {**compared, "real_obs": self._pasts[row].frame.copy(), "steps_since_sync": self._since_sync[row]}

    def _write(self, kind: str, row: int, **record: Any) -> None:
        if self._log is not None:
            self._log.write(kind=kind, env=row, episode=self._episodes[row], **record)
