import csv

import av
import numpy as np

from neural_env.data.shards import Dataset
from neural_env.data.video import export_video


def test_every_episode_becomes_a_film_and_a_table(toy_folder, tmp_path):
    dataset = Dataset.open(toy_folder)
    assert export_video(dataset, tmp_path / "films") == 24
    episode = next(iter(dataset.episodes("test")))
    stem = tmp_path / "films" / "test" / f"{episode.seed:010d}"
    with av.open(str(stem.with_suffix(".mp4"))) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 35 / 4
    assert len(frames) == len(episode.frames) and frames[0].shape == (6, 8, 3)
    rows = list(csv.DictReader(stem.with_suffix(".csv").read_text().splitlines()))
    assert len(rows) == len(episode.frames)
    assert [int(row["action"]) for row in rows[:-1]] == episode.actions.tolist() and rows[-1]["action"] == ""
    assert np.allclose([float(row["reward"]) for row in rows[:-1]], episode.rewards)
    assert np.allclose([float(row["health"]) for row in rows], episode.variables[:, 0])
    assert np.allclose([float(row["signal_killcount"]) for row in rows], episode.signals[:, 0])
    assert rows[2]["events"] == "kill" and rows[0]["events"] == "" and rows[0]["action_name"] in dataset.action_names
    ends = [(row["terminated"], row["truncated"]) for row in rows[:-1]]
    assert ends[-1] == (str(int(episode.terminated)), str(int(episode.truncated))) and set(ends[:-1]) == {("0", "0")}
    assert not list((tmp_path / "films").rglob("*.tmp"))
