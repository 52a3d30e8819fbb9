"""Export for the eye and the spreadsheet: an MP4 and a CSV an episode. The MP4 is lossy; Minari's export isn't."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from neural_env.data.episode import SPLITS, Episode
from neural_env.data.events import EVENTS, events_of, has
from neural_env.data.shards import TEMPORARY, Dataset, Manifest
from neural_env.game import TICS_PER_SECOND


def export_video(dataset: Dataset, out: Path) -> int:
    """Write `OUT/<split>/<seed>.mp4` and `.csv` of every episode; how many episodes that were.

    Row i of the CSV tells of frame i of the film and of the action taken at it, which the last frame has none of.
    """
    count = 0
    for split in SPLITS:
        folder = out / split
        for episode in dataset.episodes(split):
            folder.mkdir(parents=True, exist_ok=True)
            _film(episode, dataset.frame_skip, folder / f"{episode.seed:010d}.mp4")
            _table(episode, dataset.manifest, folder / f"{episode.seed:010d}.csv")
            count += 1
    return count


def _film(episode: Episode, frame_skip: int, path: Path) -> None:
    temporary = path.with_name(path.name + TEMPORARY)
    write_film(_even(episode.frames), temporary, Fraction(TICS_PER_SECOND, frame_skip), crf=18)
    os.replace(temporary, path)


def write_film(frames: Iterable[np.ndarray], path: Path, frames_per_second: Fraction, *, crf: int) -> None:
    """An MP4 (H.264, yuv420p: plays everywhere) of frames uint8 [H, W, 3], H and W even.

    `crf` says how much may be lost: 18 is close to nothing to the eye, 51 the most.
    """
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=frames_per_second, options={"crf": str(crf), **_FAST})
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            if not stream.codec_context.is_open:  # the first frame says how large the film is
                stream.height, stream.width = frame.shape[:2]
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


_FAST = {"preset": "veryfast"}


def _even(frames: np.ndarray) -> np.ndarray:
    """H.264 has no odd sizes: the last row or column twice."""
    height, width = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _table(episode: Episode, m: Manifest, path: Path) -> None:
    mask = events_of(episode, m.signal_names)
    events = [[name for name in EVENTS if happened[name]] for happened in _rows({n: has(mask, n) for n in EVENTS})]
    t = len(episode)
    temporary = path.with_name(path.name + TEMPORARY)
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        state = [*m.variable_names, *(f"signal_{name}" for name in m.signal_names)]
        writer.writerow(["frame", *state, "action", "action_name", "reward", "terminated", "truncated", "events"])
        for i in range(t + 1):
            here = [i, *episode.variables[i].tolist(), *episode.signals[i].tolist()]
            if i == t:
                writer.writerow([*here, *[""] * 6])
                continue
            action, last = int(episode.actions[i]), i == t - 1
            ends = [int(episode.terminated and last), int(episode.truncated and last)]
            name, reward = m.action_names[action], float(episode.rewards[i])
            writer.writerow([*here, action, name, reward, *ends, "+".join(events[i])])
    os.replace(temporary, path)


def _rows(columns: dict[str, np.ndarray]) -> list[dict[str, bool]]:
    return [dict(zip(columns, map(bool, row), strict=True)) for row in zip(*columns.values(), strict=True)]
