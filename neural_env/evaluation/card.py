"""`neural-env evaluate card`: what a world is made of and how good it is, as a page of the docs, from its report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from neural_env.data.corpus import material_of
from neural_env.data.shards import write_whole
from neural_env.evaluation.bars import needed
from neural_env.evaluation.film import as_webp
from neural_env.evaluation.run import FORMAT

_FILM = "rollout_0.mp4"  # of the report
_PICTURES = {
    "rollout": "The real game above, the dream below, with the same actions",
    "drift": "PSNR by step that the dream sees only itself",
    "long_dream": "One dream left to itself",
    "termination": "Termination, foretold against observed: a diagram of reliability",
    "stability": "Frame statistics of dreams left to themselves, by segment",
    "worst_frames": "Its worst next frames: where it fails",
    "worst_rollout": "The roll-out that drifts furthest",
}


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Write a world's card from its report."""

    report: Path = Path("report")  # folder made by `neural-env evaluate world`
    played: tuple[Path, ...] = ()  # who learned or plans in it: files of `neural-env evaluate agent | planning --json`
    recipe: Path | None = None  # the script that made it; its first comment says what that takes
    out: Path = Path("docs/worlds")  # folder of the cards; this one is called like its scenario


def card(config: CardConfig) -> Path:
    """Writes the card with its pictures; its path.

    Raises:
        ValueError: the folder holds no report of this version, or one without pictures and films; or the scores are of
            another game.
    """
    report = read_report(config.report)
    played = [_read_played(path, report["scenario"]) for path in config.played]
    made = None if config.recipe is None else _how_made(config.recipe, config.out)
    shown = [*(f"{picture}.png" for picture in _PICTURES), _FILM]
    if missing := [name for name in shown if not (config.report / name).is_file()]:
        cure = "make the report where Matplotlib and PyAV are installed"
        raise ValueError(f"the report in {config.report} lacks {', '.join(missing)}: {cure}")
    name = str(report["scenario"]).replace(":", "_").replace("@", "_")
    pictures = config.out / name
    pictures.mkdir(parents=True, exist_ok=True)
    for picture in _PICTURES:
        shutil.copyfile(config.report / f"{picture}.png", pictures / f"{picture}.png")
    as_webp(config.report / _FILM, pictures / "film.webp")
    path = config.out / f"{name}.md"
    write_whole(path, card_of(report, name, played, made).encode())
    Console().print(f"written: {path}", soft_wrap=True)
    return path


def read_report(folder: Path) -> dict[str, Any]:
    """The report in a folder; raises `ValueError` with what is wrong."""
    path = folder / "report.json"
    if not path.is_file():
        raise ValueError(f"there is no report in {folder}: make one with `neural-env evaluate world --out {folder}`")
    report: dict[str, Any] = json.loads(path.read_text())
    if report.get("format") != FORMAT:
        raise ValueError(f"{path} has the format {report.get('format')!r}, this version reads {FORMAT!r}: make it anew")
    return report


@dataclass(frozen=True)
class Played:
    """Players of the real game, by name, with the games they played and the command that lets them play again."""

    games: str
    players: dict[str, dict[str, Any]]
    command: str


def _read_played(path: Path, scenario: str) -> Played:
    """The scores of `evaluate agent` or `planning`; who isn't random is called like the file, with spaces for `_`."""
    try:
        scores: dict[str, Any] = json.loads(path.read_text())
        games = f"{scores['episodes']} games of {scores['split']} seeds {scores['seeds'][0]} to {scores['seeds'][1]}"
        rows = {
            path.stem.replace("_", " ") if name in ("agent", "planning") else name: row
            for name, row in scores["players"].items()
        }
        played = Played(f"{games}, {scores['max_episode_tics']} tics at most", rows, scores["command"])
        found = scores["scenario"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = "give a file that `neural-env evaluate agent` or `planning` wrote with --json"
        raise ValueError(f"{path} holds no scores of players in the real game ({error!r}): {cure}") from error
    if found != scenario:
        raise ValueError(f"{path} is of {found!r}, the report of {scenario!r}: give scores of the same game")
    return played


def _how_made(recipe: Path, cards: Path) -> str:
    """A link to the recipe, with the first sentence of its comments: what it makes, how long, on what machine."""
    try:
        lines = recipe.read_text().splitlines()
    except OSError as error:
        raise ValueError(f"{recipe} can't be read ({error}): give the script that made the world") from error
    said = next((line.removeprefix("# ") for line in lines if line.startswith("# ")), None)
    if said is None:
        raise ValueError(f"{recipe} has no comment: begin it with one that says what it makes, how long and where")
    link = os.path.relpath(recipe, cards).replace(os.sep, "/")
    return f"Every command, with its minutes: [{recipe.name}]({link}). {said}"


def card_of(report: Mapping[str, Any], pictures: str, played: Sequence[Played] = (), made: str | None = None) -> str:
    """The card, in Markdown; its pictures lie in the folder `pictures` beside it. `made`: how the world was made."""
    parts = [
        _head(report, pictures),
        _bars(report),
        *([_transfer(played)] if played else []),
        _data(report),
        _training(report, made),
        _scores(report),
        _shown(pictures),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: Mapping[str, Any], pictures: str) -> str:
    game = report["game"]
    height, width = game["resolution"]
    return f"""# {report["scenario"]}

A dream of `{report["scenario"]}` at {width}x{height} pixels; an action is held for {game["frame_skip"]} tics.

![Left the real game, right the dream, with the same actions]({pictures}/film.webp)

*Left the real game, right the dream: the same frames to start with, the same actions, and from there on the dream sees
only itself.*

| | |
|---|---|
| actions | {", ".join(game["action_names"])} |
| variables | {", ".join(game["variable_names"]) or "none"} |
| scored on | {report["episodes"]} episodes of {report["split"]} seeds, {report["steps"]} steps |
| players | {"; ".join(f"{name}: {count} episodes" for name, count in report["players"].items())} |
| cost of scoring | {sum(report["seconds"].values()) / 60:.0f} minutes on {report["machine"]} |

```
{report["command"]}
```"""


def _bars(report: Mapping[str, Any]) -> str:
    lines = [
        f"| {bar['name']} | {bar['asked']} | {bar['found']} | {_strong(bar['verdict'])} |" for bar in report["bars"]
    ]
    table = "## Bars\n\n| bar | asked | found | |\n|---|---|---|---|\n" + "\n".join(lines)
    missed = [f"* {bar['name']}: {needed(bar['name'])}." for bar in report["bars"] if bar["verdict"] == "missed"]
    return "\n\n".join([table, *(["What those that are missed would take:", "\n".join(missed)] if missed else [])])


def _strong(verdict: str) -> str:
    return f"**{verdict}**" if verdict != "met" else verdict


def _transfer(played: Sequence[Played]) -> str:
    """Raises `ValueError` if not all played the same games, or two are called alike."""
    games = {each.games for each in played}
    if len(games) > 1:
        raise ValueError(
            f"the players played different games, {'; '.join(sorted(games))}: give scores of the same ones"
        )
    players: dict[str, dict[str, Any]] = {}
    for each in played:
        if twice := sorted(name for name in players.keys() & each.players if not name.endswith("random")):
            raise ValueError(f"two files are called {twice[0]}: give each the name that its player is to have")
        players |= each.players
    best_first = sorted(players.items(), key=lambda player: -player[1]["mean_return"])
    return "\n".join(
        [
            f"## Transfer\n\nIn the real game, {games.pop()}:\n",
            "| | return | 95 % of the mean |\n|---|---|---|",
            *(_player(name, row) for name, row in best_first),
            "\n```",
            *(each.command for each in played),
            "```",
        ]
    )


def _player(name: str, row: Mapping[str, Any]) -> str:
    low, high = row["confidence_95"]
    return f"| {name} | {row['mean_return']:.1f} +- {row['deviation']:.1f} | {low:.1f} to {high:.1f} |"


def _data(report: Mapping[str, Any]) -> str:
    data = material_of(report["provenance"])
    frames = ", ".join(f"{count} {split}" for split, count in data.frames.items())
    lines = [f"| frames | {frames or 'unknown'} |", f"| players | {'; '.join(data.policies) or 'unknown'} |"]
    lines += [f"| manifest, sha256 | `{name}` |" for name in data.hashes]
    return "## Data\n\n| | |\n|---|---|\n" + "\n".join(lines)


def _training(report: Mapping[str, Any], made: str | None) -> str:
    provenance = report["provenance"]
    stages = provenance.get("stages", {})
    lines = [
        f"| {name} | {stage.get('init_from') or 'nothing'} | {stage['steps']} of {stage['of_steps']} "
        f"| {stage['samples']} | {stage['seed']} | {stage['code_version']} |"
        for name, stage in stages.items()
        if "samples" in stage  # the sampler isn't trained
    ]
    levels = ""
    if chosen := stages.get("sampler"):
        dials = f"sigma_last {chosen['sigma_last']:g} and eta {chosen['eta']:g}"
        levels = f" Made for {chosen['num_steps']} denoising steps, with {dials}, which validation windows chose."
    preset = f"Preset `{provenance.get('preset', 'unknown')}`."
    how = f"\n\n{made}" if made else ""
    head = "| stage | begun from | steps | samples | seed | neural-env |\n|---|---|---|---|---|---|"
    return f"## Training\n\n{preset}{levels}{how}\n\n{head}\n" + "\n".join(lines)


def _scores(report: Mapping[str, Any]) -> str:
    text = ["## Scores", "In brackets: 95 % bootstrap intervals over episodes."]
    for section in dict.fromkeys(row["section"] for row in report["rows"]):
        lines = [_line(row) for row in report["rows"] if row["section"] == section]
        text.append(f"### {section[0].upper()}{section[1:]}")
        text.append("| | dream | baselines | |\n|---|---|---|---|\n" + "\n".join(lines))
    return "\n\n".join(text)


def _line(row: Mapping[str, Any]) -> str:
    baselines = "; ".join(f"{_number(x, row['digits'])} {name}" for name, x in row["baselines"].items())
    return f"| {row['name']} | {_number(row, row['digits'])} {row['unit']} | {baselines} | {row['note']} |"


def _number(record: Mapping[str, Any], digits: int) -> str:
    if record["value"] is None:
        return "-"
    number = f"{record['value']:.{digits}f}"
    if record["low"] is None or record["low"] == record["high"]:
        return number
    return f"{number} [{record['low']:.{digits}f}, {record['high']:.{digits}f}]"


def _shown(pictures: str) -> str:
    return "## Pictures\n\n" + "\n\n".join(
        f"{caption}:\n\n![{caption}]({pictures}/{name}.png)" for name, caption in _PICTURES.items()
    )
