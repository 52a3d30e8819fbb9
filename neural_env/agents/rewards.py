"""GameNGen's reward (arXiv 2408.14837, appendix A.5) from what the engine tells of the game."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GameNGenWeights:
    """The paper's table, and how large an area is."""

    hit: float = -100.0  # each time the player is hit
    death: float = -5000.0  # the player's
    enemy_hit: float = 300.0  # each shot of the player's that hits
    enemy_kill: float = 1000.0
    pick_up: float = 100.0  # each item or weapon
    secret: float = 500.0  # each one found
    new_area: float = 20.0  # each area visited first, times (1 + new_area_distance * distance)
    new_area_distance: float = 0.5  # the paper's factor of the L1 distance from the start, in areas
    health: float = 10.0  # each point gained or lost
    armor: float = 10.0  # each point gained or lost
    ammo_gained: float = 10.0  # each round
    ammo_spent: float = 1.0  # each round fired costs so much
    area_units: float = 256.0  # side of an area in map units; the paper gives no size

    def __post_init__(self) -> None:
        if self.area_units <= 0:
            raise ValueError(f"area_units must be above 0 map units, got {self.area_units}")


Signals = Mapping[str, float]
"""`info["signals"]` of `RealDoom(signals=True)`."""

Area = tuple[int, int]


def area_of(signals: Signals, start: Signals, weights: GameNGenWeights) -> Area:
    """The square of a grid that the player stands in; the start is the middle of area (0, 0)."""
    side = weights.area_units
    x, y = (signals[name] - start[name] for name in ("position_x", "position_y"))
    return round(x / side), round(y / side)


def shaped(before: Signals, after: Signals, found: Area | None, weights: GameNGenWeights) -> dict[str, float]:
    """Each term of a step's reward, by the weight's name.

    Args:
        before: the signals before the step.
        after: those after it.
        found: the area, if the player is in it for the first time in this episode.
        weights: see there.
    """
    change = {name: after[name] - before[name] for name in _READ}
    ammo = change["ammo"]
    return {
        "hit": weights.hit * max(0.0, change["hits_taken"]),
        "death": weights.death * max(0.0, change["dead"]),
        "enemy_hit": weights.enemy_hit * max(0.0, change["hitcount"]),
        "enemy_kill": weights.enemy_kill * max(0.0, change["killcount"]),
        "pick_up": weights.pick_up * (max(0.0, change["itemcount"]) + max(0.0, change["weapons"])),
        "secret": weights.secret * max(0.0, change["secretcount"]),
        "new_area": 0.0 if found is None else _explored(found, weights),
        "health": weights.health * change["health"],
        "armor": weights.armor * change["armor"],
        "ammo": weights.ammo_gained * max(0.0, ammo) + weights.ammo_spent * min(0.0, ammo),
    }


_READ = (
    "hits_taken", "dead", "hitcount", "killcount", "itemcount", "weapons", "secretcount", "health", "armor", "ammo",
)  # fmt: skip


def _explored(area: Area, weights: GameNGenWeights) -> float:
    return weights.new_area * (1.0 + weights.new_area_distance * (abs(area[0]) + abs(area[1])))
