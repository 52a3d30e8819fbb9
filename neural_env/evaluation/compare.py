"""`neural-env evaluate compare`: two worlds of one game on the same real episodes, and their paired differences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from neural_env import checkpoint as checkpoints
from neural_env.data.shards import write_whole
from neural_env.evaluation.page import document, number
from neural_env.evaluation.page import table as html_table
from neural_env.evaluation.rows import Row
from neural_env.evaluation.run import ScoringConfig, machine
from neural_env.evaluation.study import Study, study
from neural_env.game import GameConfig


@dataclass(frozen=True, kw_only=True)
class CompareConfig(ScoringConfig):
    """Score two worlds on the same real episodes, side by side."""

    a: Annotated[str, tyro.conf.Positional]  # bundled world, a checkpoint folder, or hf://owner/name
    b: Annotated[str, tyro.conf.Positional]  # the other
    out: Path = Path("comparison")  # folder for compare.html and compare.json


def compare(config: CompareConfig) -> None:
    """Measures both, prints and writes the differences.

    Raises:
        CheckpointError: there is no such world.
        ValueError: the worlds dream different games.
    """
    loaded = [checkpoints.load(name) for name in (config.a, config.b)]
    require_same_game(loaded[0].game, loaded[1].game)
    episodes = config.play(loaded[0].game)
    found = [study(checkpoint, config.dials(checkpoint.world), episodes, config.amounts()) for checkpoint in loaded]
    lines = differences(*found)
    title = f"{config.a} and {config.b}: {len(episodes)} episodes of {config.split} seeds"
    Console().print(table(lines, config.a, config.b, title=title))
    report = report_of(config, lines, found)
    config.out.mkdir(parents=True, exist_ok=True)
    write_whole(config.out / "compare.json", (json.dumps(report, indent=1) + "\n").encode())
    write_whole(config.out / "compare.html", _page(report, title).encode())
    Console().print(f"comparison: {config.out / 'compare.html'}", soft_wrap=True)


def require_same_game(a: GameConfig, b: GameConfig) -> None:
    """Raise `ValueError` unless the worlds can be given the same episodes."""
    if a != b:
        raise ValueError(f"only worlds of one game can be compared, got {a} and {b}: choose two of the same")


@dataclass(frozen=True, eq=False)
class Line:
    """A row of both worlds, and b less a."""

    a: Row
    b: Row

    @property
    def difference(self) -> Row | None:
        """Of values drawn from the same episodes; None where one world has none."""
        if self.a.value is None or self.b.value is None:
            return None
        return Row(self.a.section, self.a.name, self.b.value - self.a.value, self.a.unit, self.a.digits)

    @property
    def sure(self) -> bool:
        """Whether the difference's interval leaves out 0."""
        value = self.difference.value if self.difference else None
        return value is not None and (value.low > 0 or value.high < 0)


def differences(a: Study, b: Study) -> list[Line]:
    """The rows that both have, in order."""
    others = {row.key: row for row in b.rows}
    return [Line(row, others[row.key]) for row in a.rows if row.key in others]


def table(lines: list[Line], a: str, b: str, *, title: str) -> Table:
    """The lines as people read them; differences that are sure are bold."""
    grid = Table(title=title, title_justify="left")
    for heading in ("", a, b, "difference"):
        grid.add_column(heading)
    section = ""
    for line in lines:
        if line.a.section != section:
            grid.add_section()
            grid.add_row(f"[bold]{line.a.section}[/]", "", "", "")
            section = line.a.section
        difference = line.difference.show() if line.difference else "-"
        shown = f"[bold]{difference}[/]" if line.sure else difference
        grid.add_row(line.a.name, line.a.show(), line.b.show(), shown)
    return grid


def report_of(config: CompareConfig, lines: list[Line], found: list[Study]) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "format": "neural_env.comparison/1",
        "a": config.a,
        "b": config.b,
        "split": config.split,
        "machine": machine(),
        "rows": [
            {
                "section": line.a.section,
                "name": line.a.name,
                "a": line.a.record(),
                "b": line.b.record(),
                "difference": line.difference.record() if line.difference else None,
                "sure": line.sure,
            }
            for line in lines
        ],
        "bars": {name: [bar.record() for bar in of.bars] for name, of in zip((config.a, config.b), found, strict=True)},
    }


def _page(report: dict[str, Any], title: str) -> str:
    body = [
        f"<h1>{title}</h1>",
        "<p>In brackets: 95 % bootstrap intervals over episodes; the difference is paired.</p>",
    ]
    rows = [
        (f"{row['section']}: {row['name']}", *(number(row[side], row["a"]["digits"]) for side in ("a", "b")), _gap(row))
        for row in report["rows"]
    ]
    return document(title, [*body, html_table(("", report["a"], report["b"], "b less a"), rows)])


def _gap(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return "-"
    text = number(row["difference"], row["a"]["digits"])
    return f"<span class=met>{text}</span>" if row["sure"] else text
