"""`RealStarts` for many dreams: as many real games, played in threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym

from neural_env.data.episode import Split
from neural_env.wrappers.real_starts import RealGames
from neural_env.wrappers.streams import Stream, streams_of
from neural_env.wrappers.vector.episodes import EpisodeWrapper, Infos
from neural_env.wrappers.vector.threads import in_threads


class RealStarts(EpisodeWrapper):
    """Begins each dream's episodes from the frames of a running real game of its own; arguments as for the single form.

    Autoresets included. `infos["real_start"]` holds `seed` and `steps`, `[N]`, where an episode has just begun. Dream i
    begins where the single form begins with the seed that is i's.

    Example:
        >>> import gymnasium as gym, neural_env
        >>> from neural_env.wrappers.vector import RealStarts
        >>> envs = RealStarts(gym.make_vec("NeuralDoom-v0", num_envs=2), warmup=(0, 5))
        >>> observations, infos = envs.reset(seed=0)
        >>> infos["real_start"]["steps"].shape
        (2,)
        >>> envs.close()
    """

    begins: ClassVar[bool] = True

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        scenario: str | None = None,
        warmup: tuple[int, int] = (0, 100),
        policy: str = "sticky_random",
        split: Split = "train",
    ) -> None:
        super().__init__(env)
        self._games = [RealGames(self._dreams.game, scenario, warmup, policy, split) for _ in range(env.num_envs)]
        self._streams: list[Stream] | None = None
        self._about: list[dict[str, int]] = [{} for _ in range(env.num_envs)]

    def close(self, **kwargs: Any) -> None:
        """Closes the dreams and the engines."""
        for games in self._games:
            games.past.close()
        super().close(**kwargs)

    def _prepare(self, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
        dealt = dict(zip(rows, seeds, strict=True))
        each = [dealt.get(i) for i in range(self.num_envs)]
        streams = self._streams = streams_of(self.env, each, self._streams, "RealStarts")
        length = self._dreams.world.context_length
        played = in_threads(lambda i: self._games[i].play(streams[i], length), rows)
        for i, about in zip(rows, played, strict=True):
            self._about[i] = about

    def _beginning(self, row: int) -> dict[str, Any]:
        return self._games[row].past.context()

    def _begun(self, row: int, frame: Any) -> Infos:
        return {"real_start": self._about[row]}
