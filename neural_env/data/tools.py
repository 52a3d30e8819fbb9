"""`neural-env data`: what is in a dataset, whether it is whole, and its way to other formats and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from neural_env.data.card import write_card
from neural_env.data.minari import export_minari, import_minari
from neural_env.data.shards import Dataset
from neural_env.data.sheet import write_sheet
from neural_env.data.summary import Spread, Summary, summary_of
from neural_env.data.verify import verify
from neural_env.data.video import export_video


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Counts, actions, events, returns, players; reads no frame unless a sheet is asked for."""

    data: Path  # dataset folder
    sheet: Path | None = None  # contact sheet to draw, PNG


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check every hash, record and count; status 1 and the file's name if anything is wrong."""

    data: Path  # dataset folder
    partial: bool = False  # accept a collection that isn't finished


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a dataset in another format."""

    data: Path  # dataset folder
    out: Path  # minari: the folder of Minari datasets; mp4: the folder of the films
    format: Literal["minari", "mp4"] = "minari"  # minari is lossless; mp4 is an MP4 and a CSV for each episode
    id: str | None = None  # of the Minari dataset; otherwise doom/<scenario>-v0


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Read a dataset back that was exported to Minari."""

    source: Path  # folder of one Minari dataset, with `data` in it
    out: Path  # dataset folder to write


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Write CARD.md anew."""

    data: Path  # dataset folder


def info(config: InfoConfig) -> None:
    """Print the summary, and draw the sheet."""
    dataset = Dataset.open(config.data, verify=False, partial=True)
    console = Console()
    for table in tables(dataset, summary_of(dataset)):
        console.print(table)
    if config.sheet is not None:
        write_sheet(dataset, config.sheet)
        console.print(f"sheet in {config.sheet}", soft_wrap=True)


def verify_(config: VerifyConfig) -> None:
    """Verify, and say that all is well."""
    dataset = verify(config.data, partial=config.partial)
    m = dataset.manifest
    Console().print(
        f"{config.data}: {m.num_episodes} episodes in {len(m.shards)} shards, all as the manifest says", soft_wrap=True
    )


def export(config: ExportConfig) -> None:
    """Export in the format asked for."""
    dataset = Dataset.open(config.data)
    if config.format == "mp4":
        count = export_video(dataset, config.out)
    else:
        name = dataset.scenario.replace(":", "_").replace("@", "_").replace(".", "_")
        count = export_minari(dataset, config.out, config.id or f"doom/{name}-v0")
    Console().print(f"{count} episodes in {config.out}", soft_wrap=True)


def import_(config: ImportConfig) -> None:
    """Import, and write the card."""
    dataset = import_minari(config.source, config.out)
    write_card(config.out)
    Console().print(f"{dataset.manifest.num_episodes} episodes in {config.out}", soft_wrap=True)


def card(config: CardConfig) -> None:
    """Write the card."""
    Console().print(f"written: {write_card(config.data)}", soft_wrap=True)


def tables(dataset: Dataset, summary: Summary) -> list[Table]:
    """The summary, to be printed."""
    return [_sizes(dataset, summary), _players(summary), _shares(summary)]


def _sizes(dataset: Dataset, summary: Summary) -> Table:
    done = "" if dataset.manifest.complete else f", {dataset.manifest.episodes} episodes asked for"
    table = Table("split", "episodes", "frames", "transitions", "MB", title=f"{dataset.scenario}{done}")
    for name, size in (*summary.sizes.items(), ("all", summary.total)):
        table.add_row(name, str(size.episodes), str(size.frames), str(size.transitions), f"{size.bytes / 1e6:.1f}")
    table.caption = f"{summary.bytes_per_frame:.0f} bytes a frame"
    return table


def _players(summary: Summary) -> Table:
    table = Table("policy", "episodes", "versions", "skill", "return", title="players")
    for share in summary.policies:
        skills = "unknown" if share.skills is None else f"{share.skills[0]:.1f} to {share.skills[1]:.1f}"
        versions = f"{share.versions[0]} to {share.versions[1]}"
        table.add_row(share.policy, str(share.episodes), versions, skills, _spread(share.returns))
    table.caption = f"steps of an episode {_spread(summary.lengths)}; {summary.terminated:.1%} ended by the game"
    return table


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.1f} ± {spread.std:.1f} ({spread.min:.1f} to {spread.max:.1f})"


def _shares(summary: Summary) -> Table:
    table = Table("action or event", "of the transitions", title="actions and events")
    for name, share in summary.actions.items():
        table.add_row(name, f"{share:.1%}")
    table.add_section()
    for name, count in summary.events.items():
        table.add_row(name, f"{count} ({1000 * count / summary.total.transitions:.2f} per 1000)")
    return table
