"""The report as one HTML file that needs no other: tables, plots, films and worst cases, all inline."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

_ABOUT = {
    "next frame, teacher-forced": "Each frame is predicted from the true past and the true action. The auto-encoder "
    "alone is the ceiling; copying the last frame is what a world that does nothing would get.",
    "denoising steps": "The same windows with fewer and more evaluations of the denoiser a frame.",
    "autoregressive": "The dream sees its own frames; only the real actions link it to the truth.",
    "left to itself": "Dreams of many steps have no truth to be compared with step by step: their frames are compared "
    "with real ones as sets. A dream holds if brightness, contrast and sharpness stay within a factor of 2, and "
    "motion within 4, of what they were in its first segment.",
    "outcome": "Foretold from the true past, over all windows. Average precision: 1 if every event outranks all "
    "else, the share of events for a model that says nothing.",
    "controllability": "What it costs to be given the action of another moment; and how often a network that learned "
    "from real frames of other episodes reads the action off real and off dreamed frames.",
    "told from the real game": "How often a network tells held-out dreamed clips from the real ones of the same "
    "moments. It stands in for the paper's raters (58 % and 60 %), and is harder to fool than they are.",
    "speed": "One dream with its screen, on the machine of this report.",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .6rem; }
th { font-weight: 600; border-bottom: 2px solid #999; } td { border-bottom: 1px solid #ddd; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.met { color: #176d2c; font-weight: 600; } .missed { color: #b3261e; font-weight: 600; } .dim { color: #666; }
img { max-width: 100%; } video { image-rendering: pixelated; max-width: 100%; } figure { margin: 1rem 0; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; white-space: pre-wrap; }
"""


def page(report: Mapping[str, Any], pictures: Mapping[str, Path], films: Mapping[str, Path]) -> str:
    """The file's text; pictures and films are by what stands under them."""
    title = f"World report: {report['checkpoint']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _head(report),
        "<h2>Bars</h2>",
        _bars(report["bars"]),
        *_sections(report["rows"]),
        "<h2>Plots</h2>",
        *(_figure(_picture(path), caption) for caption, path in pictures.items()),
        "<h2>Films: the real game left, the dream right</h2>",
        *(_figure(_film(path), caption) for caption, path in films.items()),
        "<h2>How it was made</h2>",
        f"<pre>{escape(report['command'])}</pre>",
        f"<p class=dim>{escape(_seconds(report))}</p>",
    ]
    return document(title, body)


def document(title: str, body: Iterable[str]) -> str:
    """A whole HTML file."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells that are HTML already; all but the first column hold numbers."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = ("".join(f"<td{' class=number' if i else ''}>{c}</td>" for i, c in enumerate(row)) for row in rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def number(record: Mapping[str, Any], digits: int, unit: str = "") -> str:
    """A value with its interval, of a row's JSON."""
    if record["value"] is None:
        return "-"
    text = f"<b>{record['value']:.{digits}f}</b> {escape(unit)}".strip()
    if record["low"] is None or record["low"] == record["high"]:
        return text
    return f"{text} <span class=dim>[{record['low']:.{digits}f}, {record['high']:.{digits}f}]</span>"


def _head(report: Mapping[str, Any]) -> str:
    dials = report["scores"]["dials"]
    players = ", ".join(f"{count} of {name}" for name, count in report["players"].items())
    return (
        f"<p>{escape(report['scenario'])}: {report['episodes']} real episodes of {escape(report['split'])} seeds "
        f"{report['seeds'][0]} to {report['seeds'][1]} ({escape(players)}), {report['steps']} steps; "
        f"{dials['num_steps']} denoising step(s) a frame, context noise {dials['context_noise']}. In brackets: 95 % "
        "bootstrap intervals over episodes.</p>"
    )


def _bars(bars: list[Mapping[str, Any]]) -> str:
    return table(
        ("bar", "asked", "found", ""),
        ((escape(bar["name"]), escape(bar["asked"]), escape(bar["found"]), _verdict(bar["verdict"])) for bar in bars),
    )


def _verdict(verdict: str) -> str:
    return f"<span class={verdict.split()[0]}>{verdict}</span>"


def _sections(rows: list[Mapping[str, Any]]) -> Iterable[str]:
    for section in dict.fromkeys(row["section"] for row in rows):
        yield f"<h2>{escape(section[0].upper() + section[1:])}</h2>"
        yield f"<p>{escape(_ABOUT.get(section, ''))}</p>"
        mine = [row for row in rows if row["section"] == section]
        yield table(("", "dream", "baselines", ""), (_cells(row) for row in mine))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    baselines = "<br>".join(
        f"{number(record, row['digits'])} <span class=dim>{escape(name)}</span>"
        for name, record in row["baselines"].items()
    )
    return escape(row["name"]), number(row, row["digits"], row["unit"]), baselines, f"<i>{escape(row['note'])}</i>"


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption class=dim>{escape(caption)}</figcaption></figure>"


def _picture(path: Path) -> str:
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{_base64(path)}">'


def _film(path: Path) -> str:
    return f'<video controls loop muted src="data:video/mp4;base64,{_base64(path)}"></video>'


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _seconds(report: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    return f"{sum(report['seconds'].values()) / 60:.1f} minutes on {report['machine']}: {parts}"
