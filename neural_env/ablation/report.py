"""A study's scores as a table for people, one for Markdown, a JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from neural_env.data.shards import write_whole

Result = dict[str, Any]
HORIZONS = (1, 8, 16, 32, 64)  # steps of autoregression that the tables show


def columns(result: Result) -> list[str]:
    """The headings, the arm's name first."""
    steps = [f"step {step}" for step in HORIZONS if step <= result["horizon"]]
    forced = ["PSNR", "of the HUD", "other action", *steps, "sharpness"]
    of_players = (_of(player, result, name) for player in result["players"] for name in forced)
    return ["", *of_players, "ms a frame", *(["training frames"] if any(result["frames"].values()) else [])]


def _of(player: str, result: Result, name: str) -> str:
    return name if len(result["players"]) == 1 else f"{name}, {player}'s play"


def rows(result: Result) -> list[list[str]]:
    """A row an arm: mean over the seeds, and half their spread where there are several."""
    return [_row(name, scores, result) for name, scores in result["arms"].items() if scores]


def _row(name: str, scores: dict[str, Any], result: Result) -> list[str]:
    cells = [name]
    for player in result["players"]:
        of_seeds = [seed[player] for seed in scores.values()]
        figures = [[s[key] for s in of_seeds] for key in ("psnr", "psnr_hud", "psnr_shuffled")]
        figures += [[s["drift"][step - 1] for s in of_seeds] for step in HORIZONS if step <= result["horizon"]]
        cells += [_figure(values) for values in figures]
        cells.append(_figure([100 * s["sharpness"] for s in of_seeds], "{:.0f}", " %"))
    cells.append(
        _figure([seed[player]["frame_ms"] for seed in scores.values() for player in result["players"]], "{:.1f}")
    )
    if any(result["frames"].values()):
        cells.append(f"{result['frames'][name]:,d}" if result["frames"][name] else "-")  # taken as it was given
    return cells


def _unfinished(result: Result) -> list[str]:
    """The arms of which a training is left; one that isn't trained is the same with every seed, and scored once."""
    asked = {name: len(result["seeds"]) if frames else 1 for name, frames in result["frames"].items()}
    return [name for name, scores in result["arms"].items() if len(scores) < asked[name]]


def _figure(values: list[float], form: str = "{:.2f}", unit: str = "") -> str:
    mean = form.format(float(np.mean(values))) + unit
    spread = (max(values) - min(values)) / 2
    return mean if len(values) == 1 else f"{mean} ± {form.format(spread)}"


def baselines(result: Result) -> list[str]:
    """What needs no model, a sentence a player."""
    sentences = []
    for player in result["players"]:
        seeds = next(scores for scores in result["arms"].values() if scores)
        one = next(iter(seeds.values()))[player]
        held = ", ".join(f"{one['drift_hold'][s - 1]:.2f} at step {s}" for s in HORIZONS if s <= result["horizon"])
        sentences.append(
            f"On the {player}'s play ({one['windows']} frames, {one['rollouts']} dreams), copying the last frame gives "
            f"{one['psnr_copy']:.2f} dB; holding the first one {held}."
        )
    return sentences


def table(result: Result) -> Table:
    """For the terminal: a column an arm, for there are fewer of them than of figures."""
    grid = Table(title=f"{result['study']}: {result['question']}", title_justify="left")
    names, *figures = zip(columns(result), *rows(result), strict=True)
    for name in names:
        grid.add_column(name, justify="right" if name else "left")
    for figure in figures:
        grid.add_row(*figure)
    return grid


def markdown(result: Result) -> str:
    """For docs: the question, a table, what it was measured on, and the command."""
    heading = columns(result)
    lines = [f"## {result['study']}: {result['question']}", "", _line(heading), _line(["---"] * len(heading))]
    lines += [_line(row) for row in rows(result)]
    note = [f"{result['note']}.", ""] if result["note"] else []
    paper = [f"GameNGen: {result['paper']}.", ""] if result["paper"] else []
    missing = _unfinished(result)
    unfinished = [f"Not finished: {', '.join(missing)}. Run the command again to go on.", ""] if missing else []
    return "\n".join(
        [
            *lines,
            "",
            "PSNR in dB on held-out play: teacher-forced, and by step of dreams that see their own frames. Other "
            "action: teacher-forced, with the action taken in another moment. Sharpness: of the last dreamed frames, "
            "as a share of the real ones'.",
            *baselines(result),
            "",
            *note,
            *paper,
            *unfinished,
            f"`{result['command']}`, {result['split']} seeds, training seeds {', '.join(map(str, result['seeds']))}, "
            f"on {result['device']}.",
            "",
        ]
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(result: Result, folder: Path) -> None:
    """`result.json`, `table.md` and `plot.png` in the folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    write_whole(folder / "table.md", markdown(result).encode())
    plot(result, folder / "plot.png")


def plot(result: Result, path: Path) -> None:
    """Teacher-forced PSNR by arm, and PSNR by step of autoregression, a column a player."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    arms = {name: scores for name, scores in result["arms"].items() if scores}
    figure, grid = plt.subplots(
        len(result["players"]), 2, figsize=(11, 4.2 * len(result["players"])), squeeze=False, layout="constrained"
    )
    for (left, right), player in zip(grid, result["players"], strict=True):
        for place, (name, scores) in enumerate(arms.items()):
            forced = [seed[player]["psnr"] for seed in scores.values()]
            left.plot([place] * len(forced), forced, "o", color=f"C{place}")
            drift = np.mean([seed[player]["drift"] for seed in scores.values()], axis=0)
            right.plot(np.arange(1, len(drift) + 1), drift, label=name, color=f"C{place}")
        one = next(iter(next(iter(arms.values())).values()))[player]
        left.axhline(one["psnr_copy"], color="gray", linestyle=":", label="copy the last frame")
        right.plot(
            np.arange(1, len(one["drift_hold"]) + 1), one["drift_hold"], ":", color="gray", label="hold the first"
        )
        left.set_xticks(range(len(arms)), arms, rotation=20)
        left.set(ylabel="teacher-forced PSNR, dB", title=f"{result['study']}, {player}'s play")
        right.set(xlabel="autoregressive steps", ylabel="PSNR, dB", xlim=(1, max(2, result["horizon"])))
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=120)
    plt.close(figure)
    temporary.replace(path)
