"""`Disagreement` for many dreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from neural_env.wrappers.plain import threshold
from neural_env.wrappers.spread import Spread
from neural_env.wrappers.streams import Stream, streams_of
from neural_env.wrappers.vector.dreams import require_own_actions, set_dials, single_of
from neural_env.wrappers.vector.episodes import EpisodeWrapper, Infos


class Disagreement(EpisodeWrapper):
    """Tells how much versions of each dream's next frame differ; arguments as for the single form.

    `infos[info_key]` is `[N]`, grey levels. The versions of one dream are drawn in one call, the dreams in turn, by a
    second copy of the world. A dream that is truncated begins anew as the autoreset mode says.

    Example:
        >>> import gymnasium as gym, numpy as np, neural_env
        >>> from neural_env.wrappers.vector import Disagreement
        >>> envs = Disagreement(gym.make_vec("NeuralDoom-v0", num_envs=2), samples=2)
        >>> observations, infos = envs.reset(seed=0)
        >>> infos["disagreement"].tolist()
        [0.0, 0.0]
        >>> envs.close()
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        samples: int = 4,
        kind: str = "samples",
        truncate_above: float | None = None,
        info_key: str = "disagreement",
    ) -> None:
        super().__init__(env)
        require_own_actions(env, "Disagreement")
        self._spread = Spread(samples, kind)
        self._truncate_above = threshold("truncate_above", truncate_above)
        self._key = info_key
        self._single = single_of(self._dreams)
        self._streams: list[Stream] | None = None
        self._values = np.zeros(env.num_envs)

    def close(self, **kwargs: Any) -> None:
        """Closes the dreams and the second copy of their world."""
        self._single.close()
        super().close(**kwargs)

    def _prepare(self, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
        dealt = dict(zip(rows, seeds, strict=True))
        each = [dealt.get(i) for i in range(self.num_envs)]
        self._streams = streams_of(self.env, each, self._streams, f"Disagreement {self._key}")

    def _begun(self, row: int, frame: Any) -> Infos:
        return {self._key: 0.0}

    def _ahead(self, actions: npt.NDArray[np.int64], live: Sequence[int]) -> None:
        assert self._streams is not None
        states = self._dreams.get_state()
        for i in live:
            set_dials(self._single, self._dreams, i)
            self._values[i] = self._spread.ahead(self._single, states[i], int(actions[i]), self._streams[i])

    def _after(
        self, row: int, action: int, frame: Any, reward: float, terminated: bool, ended: bool
    ) -> tuple[Infos, bool]:
        value = float(self._values[row])
        return {self._key: value}, self._truncate_above is not None and value > self._truncate_above
