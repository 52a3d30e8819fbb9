"""The bars that a world is held to, each met or missed: GameNGen's own figures, stability, speed, and control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

from neural_env.evaluation import controllability, fidelity, speed, stability
from neural_env.evaluation.bootstrap import Estimate
from neural_env.evaluation.rows import Row


@dataclass(frozen=True)
class Bar:
    """What is asked, what was found."""

    name: str
    asked: str
    found: str
    met: bool | None  # None: not measured

    @property
    def verdict(self) -> str:
        """As people read it."""
        return {True: "met", False: "missed", None: "not measured"}[self.met]

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "verdict": self.verdict}


PSNR = 29.43  # dB, teacher-forced, 2048 held-out trajectories (arXiv 2408.14837, section 5.1)
LPIPS = 0.249  # likewise; the paper doesn't say by which network: AlexNet is LPIPS' default
ONE_STEP = 1.5  # dB that one step may lose on many (the paper's distilled model: 31.10 against 32.58)


@dataclass(frozen=True)
class _Rule:
    """Which row a bar looks at."""

    name: str
    section: str
    row: str
    asked: str
    holds: Callable[[Row, Estimate], bool | None]


_RULES = (
    _Rule("next frame, PSNR", fidelity.SECTION, "PSNR", f">= {PSNR} dB", lambda _, x: x.value >= PSNR),
    _Rule("next frame, LPIPS", fidelity.SECTION, "LPIPS (AlexNet)", f"<= {LPIPS}", lambda _, x: x.value <= LPIPS),
    _Rule(
        "one step against many", speed.STEPS, speed.LOST, f"loses <= {ONE_STEP} dB", lambda _, x: x.value <= ONE_STEP
    ),
    _Rule("no collapse", stability.SECTION, stability.HELD, "every dream holds", lambda _, x: x.value == 100),
    _Rule(
        "real time",
        speed.SECTION,
        speed.RATE,
        "the game's own pace",
        lambda row, x: x.value >= row.baselines["real time"].value,
    ),
    _Rule(
        "actions matter",
        controllability.SECTION,
        controllability.GAP,
        "interval above 0 dB",
        lambda _, x: None if isnan(x.low) else x.low > 0,
    ),
)


def bars_of(rows: Sequence[Row]) -> list[Bar]:
    """Every bar, judged by the report's rows."""
    found = {(row.section, row.name): row for row in rows}
    return [_judged(rule, found.get((rule.section, rule.row))) for rule in _RULES]


def _judged(rule: _Rule, row: Row | None) -> Bar:
    if row is None or row.value is None:
        return Bar(rule.name, rule.asked, "-", None)
    return Bar(rule.name, rule.asked, f"{row.show()} {row.unit}".strip(), rule.holds(row, row.value))
