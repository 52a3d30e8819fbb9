"""Who plays while data are collected."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import numpy as np


class Policy(Protocol):
    """A player: sees the screen and the game variables, names an action."""

    @property
    def name(self) -> str:
        """What the dataset's manifest says of who played, with its settings."""
        ...

    @property
    def version(self) -> int:
        """Updates that it has learned from; 0 for a player that doesn't learn."""
        ...

    @property
    def skill(self) -> float | None:
        """Its mean return in the episodes that it learned from last; None if nobody knows."""
        ...

    @property
    def sees(self) -> tuple[Sense, ...]:
        """What it looks at, in the order in which `act` gets it; a game needn't show it anything else."""
        ...

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; all randomness of the episode comes from `rng`."""
        ...

    def act(self, frame: np.ndarray, variables: np.ndarray) -> int:
        """The next action, given what it sees and the variables, float32 `[v]`.

        `frame` is uint8 `[H, W, 3]`, or `[H, W, 6]` for screen and map. One that doesn't see either gets anything for it.
        """
        ...


Sense: TypeAlias = Literal["screen", "automap", "variables"]


class StickyRandom:
    """Keeps its last action with probability `repeat`, otherwise draws one uniformly.

    Independent draws make a player tremble on the spot; keeping actions lets it travel and see more of the game.
    """

    version = 0
    skill = None
    sees = ()

    def __init__(self, num_actions: int, repeat: float = 0.5) -> None:
        if num_actions < 1:
            raise ValueError(f"a player needs at least one action, got num_actions={num_actions}")
        if not 0.0 <= repeat < 1.0:
            raise ValueError(f"repeat is a probability below 1, got {repeat}")
        self.num_actions = num_actions
        self.repeat = repeat
        self._rng = np.random.default_rng(0)
        self._last: int | None = None

    @property
    def name(self) -> str:
        """For example `sticky_random(repeat=0.5)`."""
        return f"sticky_random(repeat={self.repeat})"

    def reset(self, rng: np.random.Generator) -> None:
        """Forget the last action and draw from `rng` from now on."""
        self._rng = rng
        self._last = None

    def act(self, frame: np.ndarray, variables: np.ndarray) -> int:
        """The last action or a uniform one; looks at nothing."""
        if self._last is None or self._rng.random() >= self.repeat:
            self._last = int(self._rng.integers(self.num_actions))
        return self._last
