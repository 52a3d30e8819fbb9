"""Vector wrappers that may end episodes early, and say where they begin, in all three autoreset modes.

The dreams inside begin anew by themselves when one of theirs ends. What they don't know is told them by
`reset(options={"reset_mask": ...})`: that a wrapper has ended an episode, or where it wants the next one to begin.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from neural_env.wrappers.streams import seeds_of_each
from neural_env.wrappers.vector.dreams import dreams_of

Mask = npt.NDArray[np.bool_]
Infos = dict[str, Any]


class EpisodeWrapper(gym.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """Calls its subclass row by row, and keeps the three autoreset modes.

    A subclass overrides what it needs: `_prepare`, `_beginning` (with `begins = True`), `_begun`, `_ahead`, `_after`.
    """

    begins: ClassVar[bool] = False  # whether the subclass says where episodes begin

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self._dreams = dreams_of(env, type(self).__name__)
        self._mode = self._dreams.autoreset_mode
        self._over = np.zeros(env.num_envs, np.bool_)  # episodes that ended and were not begun anew
        self._cut = np.zeros(env.num_envs, np.bool_)  # those of them that only this wrapper ended
        self._placed = False  # whether all dreams were begun once

    def _prepare(self, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
        """Get ready to begin these rows' episodes; seeds as for `reset`, one for each row."""

    def _beginning(self, row: int) -> dict[str, Any]:
        """Options with which this row is to begin."""
        return {}

    def _begun(self, row: int, frame: Any) -> Infos:
        """What to tell of an episode that has just begun."""
        return {}

    def _ahead(self, actions: npt.NDArray[np.int64], live: Sequence[int]) -> None:
        """Before a step; `live` are the rows that will really step."""

    def _after(
        self, row: int, action: int, frame: Any, reward: float, terminated: bool, ended: bool
    ) -> tuple[Infos, bool]:
        """What to tell of a step, and whether to truncate the episode."""
        return {}, False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begins the episodes of all rows, or of those of `options["reset_mask"]`."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        if not self.begins or not (self._placed or np.all(mask)):
            frames, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # a list, as for Gymnasium's own
            self._prepare(np.flatnonzero(mask).tolist(), [s for s, m in zip(self._dealt(seed), mask, strict=True) if m])
        else:
            self._refuse(options)
            frames, infos = self._begin(mask, self._dealt(seed))
        self._placed = True
        self._over, self._cut = self._over & ~mask, self._cut & ~mask
        return frames, self._tell(infos, {i: self._begun(i, row_of(frames, i)) for i in np.flatnonzero(mask).tolist()})

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """Steps all rows; those that were over begin anew as the autoreset mode says."""
        if self._mode is AutoresetMode.DISABLED and self._over.any():
            raise gym.error.ResetNeeded(
                f"the episodes of {np.flatnonzero(self._over).tolist()} are over and nothing resets them in mode "
                'Disabled: call reset(options={"reset_mask": terminations | truncations})'
            )
        restarted = self._over.copy()
        live = np.flatnonzero(~restarted).tolist()
        if self._placed and self._are_actions(actions):
            self._ahead(np.asarray(actions), live)
        frames, rewards, terminated, truncated, infos = self.env.step(actions)
        ended = terminated | truncated
        final = infos.get("final_obs") if self._mode is AutoresetMode.SAME_STEP else None
        told, cut = {}, np.zeros(self.num_envs, np.bool_)
        for i in live:
            shown = final[i] if final is not None and ended[i] else row_of(frames, i)
            step = (int(actions[i]), shown, float(rewards[i]), bool(terminated[i]), bool(ended[i]))
            told[i], cut[i] = self._after(i, *step)
        cut &= ~ended
        results = (frames, rewards, terminated, truncated | cut, infos)
        return (self._same_step if self._mode is AutoresetMode.SAME_STEP else self._next_step)(
            results, told, cut, restarted
        )

    def _next_step(
        self, results: tuple[Any, ...], told: dict[int, Infos], cut: Mask, restarted: Mask
    ) -> tuple[Any, Any, Any, Any, Infos]:
        """Rows that were over have begun anew instead of stepping, or do now."""
        frames, rewards, terminated, truncated, infos = results
        again = restarted if self.begins else restarted & self._cut
        if again.any():
            rewards[again], terminated[again], truncated[again] = 0.0, False, False
            begun, about = self._begin(again)
            frames, infos = rows_from(begun, frames, again), _overlaid(infos, about, again)
        told |= {i: self._begun(i, row_of(frames, i)) for i in np.flatnonzero(restarted).tolist()}
        self._over, self._cut = terminated | truncated, cut & truncated
        return frames, rewards, terminated, truncated, self._tell(infos, told)

    def _same_step(
        self, results: tuple[Any, ...], told: dict[int, Infos], cut: Mask, restarted: Mask
    ) -> tuple[Any, Any, Any, Any, Infos]:
        """Rows that ended with this step begin anew within it; their last moments are kept in `final_...`."""
        frames, rewards, terminated, truncated, infos = results
        ended = terminated | truncated
        going_on = {i: about for i, about in told.items() if not ended[i]}
        if not ended.any():
            return frames, rewards, terminated, truncated, self._tell(infos, going_on)
        finals = infos.pop("final_obs", np.full(self.num_envs, None, object))
        for i in np.flatnonzero(cut).tolist():
            finals[i] = copy.deepcopy(row_of(frames, i))
        kept = {name: infos.pop(name) for name in list(infos) if name in ("final_info", "_final_info", "_final_obs")}
        last = _overlaid(kept.get("final_info", {}), infos, cut)
        last = self._tell(last, {i: about for i, about in told.items() if ended[i]})
        again = ended if self.begins else cut
        if again.any():
            begun, about = self._begin(again)
            frames, infos = rows_from(begun, frames, again), _overlaid(infos, about, again)
        infos = self._tell(
            infos, going_on | {i: self._begun(i, row_of(frames, i)) for i in np.flatnonzero(ended).tolist()}
        )
        infos |= {"final_obs": finals, "_final_obs": ended.copy(), "final_info": last, "_final_info": ended.copy()}
        return frames, rewards, terminated, truncated, infos

    def _begin(self, mask: Mask, seeds: Sequence[int | None] | None = None) -> tuple[Any, Infos]:
        """Begin these rows' episodes inside, each in its own way."""
        rows = np.flatnonzero(mask).tolist()
        if not self.begins:
            frames, infos = self.env.reset(options={"reset_mask": mask})
            return frames, infos
        dealt = seeds or [None] * self.num_envs
        if not self._placed:  # a first reset is of all, whatever happens to each then
            self.env.reset(seed=list(dealt))  # type: ignore[arg-type]  # a list, as for Gymnasium's own
        self._prepare(rows, [dealt[i] for i in rows])
        infos = {}
        for i in rows:
            one = np.arange(self.num_envs) == i
            seed = [dealt[j] if j == i else None for j in range(self.num_envs)]
            options = {"reset_mask": one, **self._beginning(i)}
            frames, about = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # a list, as for Gymnasium's own
            infos = _overlaid(infos, about, one)
        return frames, infos

    def _tell(self, infos: Infos, told: dict[int, Infos]) -> Infos:
        for i, about in told.items():
            infos = self._dreams._add_info(infos, about, i)
        return infos

    def _are_actions(self, actions: Any) -> bool:
        given, n = np.asarray(actions), len(self._dreams.action_names)
        return given.shape == (self.num_envs,) and given.dtype.kind in "iu" and bool(((given >= 0) & (given < n)).all())

    def _dealt(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        return seeds_of_each(seed, self.num_envs)

    def _refuse(self, options: dict[str, Any] | None) -> None:
        rest = sorted(set(options or {}) - {"reset_mask"})
        if rest:
            raise ValueError(
                f"{type(self).__name__} starts the dreams from real games: reset takes no options but reset_mask, "
                f"got {rest}"
            )


def row_of(observations: Any, row: int) -> Any:
    """One row of a batch of observations, an array or a dictionary of them."""
    if isinstance(observations, dict):
        return {name: part[row] for name, part in observations.items()}
    return observations[row]


def rows_from(others: Any, observations: Any, mask: Mask) -> Any:
    """The observations, with the rows of `mask` taken from others."""
    if isinstance(observations, dict):
        return {name: rows_from(others[name], part, mask) for name, part in observations.items()}
    return np.where(mask.reshape(-1, *[1] * (observations.ndim - 1)), others, observations)


def _overlaid(infos: Infos, others: Infos, mask: Mask) -> Infos:
    """`infos` with the rows of `mask` taken from `others`; what these rows don't say there is masked out."""
    result = dict(infos)
    for name, value in others.items():
        if isinstance(value, dict):
            result[name] = _overlaid(infos.get(name, {}), value, mask)
        else:
            result[name] = np.zeros_like(value) if name not in infos else infos[name].copy()
            result[name][mask] = value[mask]
    for name in set(infos) - set(others):
        if name.startswith("_"):
            result[name] = infos[name] & ~mask
    return result
