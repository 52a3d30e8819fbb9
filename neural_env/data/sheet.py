"""A contact sheet: a dataset at a glance, a row for each kind of event."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neural_env.data.episode import Episode
from neural_env.data.events import EVENTS, events_of, has
from neural_env.data.shards import Dataset

COLUMNS = 8
SHARDS = 4  # that the frames are taken from, spread evenly over the dataset: unpacking all of it would take too long


def write_sheet(dataset: Dataset, path: Path) -> None:
    """Write the sheet as PNG. A row: the frames that such events led to, from the first to the last shard."""
    rows = sheet_rows(dataset)
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    height, width = dataset.resolution
    size = (1.6 * COLUMNS + 0.4, 1.6 * height / width * len(rows) + 0.3)
    figure, grid = plt.subplots(len(rows), 1, figsize=size, squeeze=False, layout="constrained")
    for axes, (name, frames) in zip(grid[:, 0], rows, strict=True):
        blank = np.full((COLUMNS - len(frames), *frames.shape[1:]), 255, np.uint8)
        framed = np.pad(np.concatenate([frames, blank]), ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=255)
        axes.imshow(np.concatenate(list(framed), axis=1), interpolation="nearest")
        axes.set_ylabel(name)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(f"{dataset.scenario}: frames that such a transition led to")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sheet_rows(dataset: Dataset) -> list[tuple[str, np.ndarray]]:
    """The rows: a name and frames, uint8 `[up to COLUMNS, H, W, 3]`; events that never happen have none."""
    shards = dataset.manifest.shards
    if not shards:
        raise ValueError(f"{dataset.folder} has no episodes yet: collect or record some")
    chosen = [shards[i] for i in sorted({round(i) for i in np.linspace(0, len(shards) - 1, SHARDS)})]
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("start", "any", *EVENTS)}
    for shard in chosen:
        for _, episode in dataset.numbered(shard):
            _pick(found, episode, dataset.manifest.signal_names)
    return [(name, _evenly(frames)) for name, frames in found.items() if frames]


def _pick(found: dict[str, list[np.ndarray]], episode: Episode, signal_names: tuple[str, ...]) -> None:
    """A frame an episode of each kind: the middle one of each kind of event."""
    found["start"].append(episode.frames[0].copy())
    found["any"].append(episode.frames[len(episode) // 2].copy())
    mask = events_of(episode, signal_names)
    for name in EVENTS:
        happened = np.flatnonzero(has(mask, name))
        if len(happened):
            found[name].append(episode.frames[happened[len(happened) // 2] + 1].copy())


def _evenly(frames: list[np.ndarray]) -> np.ndarray:
    count = min(COLUMNS, len(frames))
    return np.stack([frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)])
