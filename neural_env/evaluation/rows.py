"""A row of the report: one number, how sure it is, and what it is to be compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neural_env.evaluation.bootstrap import Estimate


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table; `value` is None where the episodes don't suffice, and `note` says for what."""

    section: str
    name: str
    value: Estimate | None
    unit: str = ""  # "dB", "%", "" for plain numbers
    digits: int = 2
    baselines: dict[str, Estimate] = field(default_factory=dict)  # by what they are, in the same unit
    note: str = ""

    @property
    def key(self) -> str:
        """The same in every report."""
        return f"{self.section}: {self.name}"

    def show(self, estimate: Estimate | None = None) -> str:
        """The number with its interval, as people read it; the row's own by default."""
        shown = self.value if estimate is None else estimate
        if shown is None or not np.isfinite(shown.value):
            return "-"
        number = f"{shown.value:.{self.digits}f}"
        if not np.isfinite([shown.low, shown.high]).all() or shown.low == shown.high:
            return number
        return f"{number} [{shown.low:.{self.digits}f}, {shown.high:.{self.digits}f}]"

    def record(self) -> dict[str, Any]:
        """The row as JSON has it."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "digits": self.digits,
            **(self.value.record() if self.value is not None else {"value": None, "low": None, "high": None}),
            "baselines": {name: estimate.record() for name, estimate in self.baselines.items()},
            "note": self.note,
        }


def percent(estimate: Estimate) -> Estimate:
    """A share as a percentage."""
    return estimate.mapped(lambda x: 100 * x)
