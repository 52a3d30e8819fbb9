"""Rare events: which transitions of an episode hold a kill, a hit, a death, and the like.

They are read off the signals, as far as there are any, and off reward and termination, which every game has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from neural_env.data.episode import Episode

EVENTS: tuple[str, ...] = ("kill", "hit", "damage", "death", "pickup", "ammo", "secret", "reward")
"""Event i is bit i of an event mask; new ones go to the end.

kill: a monster died. hit: the player hit one. damage: the player was hurt. death: the player died; where no signal
tells of it, the game terminated. pickup: health, armor, a weapon or an item was taken. ammo: the player has more of it
than before; apart from `pickup` because scenarios hand it out unasked. secret: one was found. reward: it is far from
the episode's usual one.
"""

_RISES: dict[str, tuple[str, ...]] = {
    "kill": ("killcount",),
    "hit": ("hitcount",),
    "damage": ("damage_taken",),
    "death": ("dead",),
    "pickup": ("health", "armor", "weapons", "itemcount"),
    "ammo": ("ammo",),
    "secret": ("secretcount",),
}
_RARE = 3.0  # times the mean deviation that a reward must be from the median to be an event

EventMask: TypeAlias = np.ndarray
"""uint16 [transitions], a bit for each of `EVENTS`."""


def events_of(episode: Episode, signal_names: Sequence[str]) -> EventMask:
    """The events of each transition; `signal_names` are the columns of the episode's signals."""
    columns = dict(zip(signal_names, np.diff(episode.signals, axis=0).T > 0, strict=True))
    mask = np.zeros(len(episode), np.uint16)
    for name, sources in _RISES.items():
        for source in sources:
            if source in columns:
                mask |= _bits(columns[source], name)
    if "dead" not in columns:
        mask[-1] |= np.uint16(episode.terminated << EVENTS.index("death"))
    mask |= _bits(_unusual(episode.rewards), "reward")
    return mask


def _bits(happened: np.ndarray, event: str) -> EventMask:
    return happened.astype(np.uint16) << np.uint16(EVENTS.index(event))


def _unusual(rewards: np.ndarray) -> np.ndarray:
    """Whether each reward stands out; where many differ from the median, few are far from it."""
    deviation = np.abs(rewards - np.median(rewards))
    rounding = 1e-5 * np.abs(rewards).max()
    unusual: np.ndarray = deviation > _RARE * deviation.mean() + rounding
    return unusual


def has(mask: EventMask, event: str) -> np.ndarray:
    """Whether each transition holds `event`, bool [transitions]; raises `ValueError` for an unknown one."""
    if event not in EVENTS:
        raise ValueError(f"unknown event {event!r}; choose one of {', '.join(EVENTS)}")
    happened: np.ndarray = mask & np.uint16(1 << EVENTS.index(event)) != 0
    return happened
