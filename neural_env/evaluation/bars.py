"""The bars that a world is held to, each met or missed: GameNGen's figures, drift, outcomes, speed, control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

from neural_env.evaluation import controllability, drift, fidelity, outcome, speed, stability
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
FARTHER = 1.0  # dB that dreams of 32 steps are to be above holding their first frame
PRECISION = 0.5  # average precision of the termination
VARIABLE = 5.0  # % of its range that a variable may be off, on average
ONE_STEP = 1.5  # dB that one step may lose on many (the paper's distilled model: 31.10 against 32.58)


@dataclass(frozen=True)
class _Rule:
    """Which row a bar looks at."""

    name: str
    section: str
    row: str
    asked: str
    holds: Callable[[Row, Estimate], bool | None]
    takes: str  # what a world needs that misses it
    beside: str = ""  # the baseline that it is held against


_LONGER = "a denoiser trained for longer: GameNGen's has seen 90 million windows, 700,000 updates of 128"
_OWN_FRAMES = "a denoiser trained for longer, and on its own frames (`train rollout`)"
_OUTCOMES = "an outcome model trained for longer, on more such events"

_RULES = (
    _Rule("next frame, PSNR", fidelity.SECTION, "PSNR", f">= {PSNR} dB", lambda _, x: x.value >= PSNR, takes=_LONGER),
    _Rule(
        "next frame, LPIPS",
        fidelity.SECTION,
        "LPIPS (AlexNet)",
        f"<= {LPIPS}",
        lambda _, x: x.value <= LPIPS,
        takes=_LONGER,
    ),
    _Rule(
        "32 steps on its own frames",
        drift.SECTION,
        "PSNR at step 32",
        f">= {FARTHER:g} dB above {drift.HELD}",
        lambda row, x: x.value >= row.baselines[drift.HELD].value + FARTHER,
        takes=_OWN_FRAMES,
        beside=drift.HELD,
    ),
    _Rule(
        "termination, average precision",
        outcome.SECTION,
        outcome.TERMINATION,
        f">= {PRECISION}",
        lambda _, x: x.value >= PRECISION,
        takes="pasts that show what is about to kill, and more deaths to learn from: half needs 80 % of all hits "
        "foreseen (docs/evaluation.md)",
    ),
    _Rule(
        "one step against many",
        speed.STEPS,
        speed.LOST,
        f"loses <= {ONE_STEP} dB",
        lambda _, x: x.value <= ONE_STEP,
        takes="distillation (`train distill`)",
    ),
    _Rule(
        "no collapse",
        stability.SECTION,
        stability.HELD,
        "every dream holds",
        lambda _, x: x.value == 100,
        takes=_OWN_FRAMES,
    ),
    _Rule(
        "real time",
        speed.SECTION,
        speed.RATE,
        "the game's own pace",
        lambda row, x: x.value >= row.baselines["real time"].value,
        takes="fewer denoising steps, once distilled (`train distill`), or a smaller model",
    ),
    _Rule(
        "actions matter",
        controllability.SECTION,
        controllability.GAP,
        "interval above 0 dB",
        lambda _, x: None if isnan(x.low) else x.low > 0,
        takes="play in which actions vary more (`collect --repeat`), and a denoiser trained for longer",
    ),
)


def bars_of(rows: Sequence[Row]) -> list[Bar]:
    """Every bar, judged by the report's rows."""
    found = {(row.section, row.name): row for row in rows}
    rules = [*_RULES, *(_rule_of(row) for row in rows if row.name.endswith(outcome.OF_RANGE))]
    return [_judged(rule, found.get((rule.section, rule.row))) for rule in rules]


def needed(name: str) -> str:
    """What a world that misses the bar of this name would need; a variable's bar is any other name."""
    return next((rule.takes for rule in _RULES if rule.name == name), _OUTCOMES)


def _rule_of(variable: Row) -> _Rule:
    name = variable.name.removesuffix(outcome.OF_RANGE)
    return _Rule(
        f"{name}, error",
        variable.section,
        variable.name,
        f"<= {VARIABLE:g} % of its range",
        lambda _, x: x.value <= VARIABLE,
        takes=_OUTCOMES,
    )


def _judged(rule: _Rule, row: Row | None) -> Bar:
    if row is None or row.value is None:
        return Bar(rule.name, rule.asked, "-", None)
    against = f"; {row.show(row.baselines[rule.beside])} by {rule.beside}" if rule.beside else ""
    return Bar(rule.name, rule.asked, f"{row.show()} {row.unit}".strip() + against, rule.holds(row, row.value))
