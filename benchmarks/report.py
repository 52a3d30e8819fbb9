"""One table of a run of the benchmarks: `python benchmarks/report.py bench.json` prints Markdown.

    python -m pytest benchmarks --benchmark-enable --benchmark-json bench.json

pytest-benchmark's own table has times only; this one has what they mean as well: rates, shares of the peak, ratios.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from neural_env.bench.table import Table


def report(document: dict[str, Any]) -> str:
    """A line on the machine, and a row a benchmark."""
    machine = document["machine_info"]
    head = f"{machine['cpu'].get('count', '?')} cores of {machine['cpu'].get('brand_raw', machine['machine'])}"
    rows = tuple(_cells(benchmark) for benchmark in document["benchmarks"])
    return (
        f"{head}, Python {machine['python_version']}\n\n" + Table("", ("what", "median, ms", "also"), rows).markdown()
    )


def _cells(benchmark: dict[str, Any]) -> tuple[str, ...]:
    name = benchmark["fullname"].removeprefix("benchmarks/").replace(".py::test_", ": ")
    also = ", ".join(f"{name} {_number(value)}" for name, value in benchmark["extra_info"].items())
    return name, f"{1e3 * benchmark['stats']['median']:.2f}", also


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(report(json.loads(Path(sys.argv[1]).read_text())))
