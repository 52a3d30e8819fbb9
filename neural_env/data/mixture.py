"""What a world model is shown how often: a dial between random play, clumsy play, good play and rare events.

A mixture is a probability for every window, computed exactly: each component spreads its share evenly over the windows
that it means, and a window that several mean gets what each of them gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neural_env.data.events import EVENTS, has
from neural_env.data.index import Index


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How much of each kind of window to draw; only the ratios count.

    A third of the learning policies' episodes is early, a third is late: by skill, or by policy version where a skill
    isn't known. Raises `ValueError` for a share below 0, shares that are all 0, or an unknown event.
    """

    uniform: float = 0.0  # every window
    random: float = 0.0  # episodes of policies that never learned
    early: float = 0.0  # the third of the learning policies' episodes that was played worst
    late: float = 0.0  # the third that was played best
    events: float = 0.0  # windows that end around an event, as much of each kind as of any other
    kinds: tuple[str, ...] = tuple(name for name in EVENTS if name != "ammo")  # which events are meant
    reach: int = 4  # an event counts if it is among the last so many transitions of the window
    lead: int = 0  # or among the next so many: what brings the event about, as a missile in flight

    COMPONENTS: ClassVar[tuple[str, ...]] = ("uniform", "random", "early", "late", "events")

    def __post_init__(self) -> None:
        for name in self.COMPONENTS:
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"the share {name} must be a number of at least 0, got {getattr(self, name)}")
        if not any(getattr(self, name) for name in self.COMPONENTS):
            raise ValueError(f"the shares are all 0: give one of {', '.join(self.COMPONENTS)} a positive number")
        if self.reach < 1:
            raise ValueError(f"reach must be at least 1 transition, got {self.reach}")
        if self.lead < 0:
            raise ValueError(f"lead must be at least 0 transitions, got {self.lead}")
        if unknown := set(self.kinds) - set(EVENTS):
            raise ValueError(f"unknown events {sorted(unknown)}; choose from {', '.join(EVENTS)}")

    def probabilities(self, index: Index, starts: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """The probability of each window, float64 `[w]`, sum 1.

        Arguments:
            index: of the episodes that the windows are cut from.
            starts: int64 `[e + 1]`, the row at which each episode's frames begin, and the number of rows.
            windows: int64 `[w]`, rows of the present frames; the window's last transition leads from that row on.

        Raises `ValueError` for rows that aren't the index's, or a share of something that isn't there.
        """
        if not np.array_equal(np.diff(starts), index.lengths + 1):
            raise ValueError("the index is of other episodes than the windows: open it from the same dataset and split")
        episode = np.searchsorted(starts, windows, side="right") - 1
        shares = {name: getattr(self, name) for name in self.COMPONENTS if getattr(self, name)}
        weights = [share * self._component(name, index, windows, episode) for name, share in shares.items()]
        total: np.ndarray = np.sum(weights, axis=0) / sum(shares.values())
        return total

    def _component(self, name: str, index: Index, windows: np.ndarray, episode: np.ndarray) -> np.ndarray:
        if name == "uniform":
            return _evenly(np.ones(len(windows), np.bool_), name)
        if name == "events":
            return self._eventful(index, windows, episode)
        return _evenly(_episodes(index)[name][episode], name)

    def _eventful(self, index: Index, windows: np.ndarray, episode: np.ndarray) -> np.ndarray:
        """An even share of each kind of event that any window has."""
        transition = windows - episode  # each episode before has one row more than transitions
        edges = np.concatenate([[0], np.cumsum(index.lengths)])
        since = np.maximum(transition + 1 - self.reach, edges[episode])
        until = np.minimum(transition + 1 + self.lead, edges[episode + 1])
        hits = []
        for kind in self.kinds:
            before = np.concatenate([[0], np.cumsum(has(index.events, kind))])
            hit = before[until] > before[since]
            if hit.any():
                hits.append(_evenly(hit, kind))
        if not hits:
            raise ValueError(f"no window ends near any of {', '.join(self.kinds)}: set the share events to 0")
        mean: np.ndarray = np.mean(hits, axis=0)
        return mean


EVENLY = Mixture(uniform=1.0)  # every window as often as any other


def _episodes(index: Index) -> dict[str, np.ndarray]:
    """Which episodes are random, early and late, bool [e] each."""
    last = np.zeros(len(index.policy_names), np.int64)
    np.maximum.at(last, index.policies, index.policy_versions)
    learning = last[index.policies] > 0
    order = index.policy_versions.astype(np.float64) if np.isnan(index.skills[learning]).any() else index.skills
    rank = np.full(len(order), np.nan)
    rank[learning] = np.argsort(np.argsort(order[learning], kind="stable"), kind="stable") / max(learning.sum(), 1)
    return {"random": ~learning, "early": rank < 1 / 3, "late": rank >= 2 / 3}


def _evenly(chosen: np.ndarray, name: str) -> np.ndarray:
    if not chosen.any():
        raise ValueError(f"no window is of the kind {name}: record such episodes, or set its share to 0")
    probabilities: np.ndarray = chosen / chosen.sum()
    return probabilities
