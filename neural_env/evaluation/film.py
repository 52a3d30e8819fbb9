"""Films and strips of frames: what people would rather see than read."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from neural_env.data import video

SCALE = 3  # screen pixels a game pixel


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two frames [H, W, 3] with a black bar between them, each pixel enlarged."""
    gap = np.zeros((left.shape[0], 4, 3), np.uint8)
    return np.concatenate([left, gap, right], axis=1).repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def write_film(frames: Iterable[np.ndarray], path: Path, frames_per_second: float) -> None:
    """An MP4 (H.264, yuv420p: plays everywhere) of frames [H, W, 3], H and W even."""
    video.write_film(frames, path, Fraction(frames_per_second).limit_denominator(1000), crf=20)


def as_webp(film: Path, path: Path) -> None:
    """A film of `side_by_side`, at the game's own size, as a moving picture for pages that show no films (Markdown)."""
    import av
    from PIL import Image

    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate or 10  # a film of one frame has none
    middle = slice(SCALE // 2, None, SCALE)  # of each enlarged pixel, where its neighbours' colours don't reach
    first, *others = (Image.fromarray(frame[middle, middle]) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=round(1000 / rate), loop=0, quality=80, method=6)


def write_strip(rows: list[tuple[str, np.ndarray]], columns: list[str], path: Path) -> None:
    """A labelled grid of frames: each row is a name and frames [len(columns), H, W, 3]."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    height, width = rows[0][1].shape[1:3]
    size = (2.2 * len(columns), 2.2 * height / width * len(rows) + 0.4)
    figure, grid = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for axes_row, (name, frames) in zip(grid, rows, strict=True):
        axes_row[0].set_ylabel(name)
        for axes, frame in zip(axes_row, frames, strict=True):
            axes.imshow(frame, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(column)
    figure.savefig(path, dpi=110)
    plt.close(figure)
