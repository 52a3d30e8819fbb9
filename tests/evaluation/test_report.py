import io
import json
import shlex
import shutil
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest
from rich.console import Console

from neural_env.checkpoint import load
from neural_env.cli import main
from neural_env.evaluation.film import SCALE, side_by_side, write_film, write_strip
from neural_env.evaluation.report import plot_drift, table
from neural_env.evaluation.run import write_report
from neural_env.evaluation.world import RolloutScores

FORCED = {
    "frames": 990.0, "termination_steps": 1000.0,
    "autoencoder_psnr": 33.333, "psnr": 28.124, "copy_last_psnr": 25.5, "shuffled_psnr": 24.25,
    "reward_agreement": 0.987, "termination_agreement": 0.9951, "termination_events": 10.0, "termination_recall": 0.8,
    "termination_average_precision": 0.61,     "variable_0_mean_absolute_error": 1.5,
}  # fmt: skip
SCORES = {
    "teacher_forced": FORCED,
    "autoregressive": {"1": {"psnr": 27.9, "copy_first_psnr": 25.4}, "64": {"psnr": 20.1, "copy_first_psnr": 18.2}},
}


def printed(scores, names=("health",)):
    text = io.StringIO()
    Console(file=text, width=120).print(table(scores, names, title="take_cover"))
    return text.getvalue()


def test_the_table_holds_every_number_beside_its_baseline():
    text = printed(SCORES)
    for name, value, baseline in (
        ("auto-encoder PSNR", "33.33", ""),
        ("teacher-forced PSNR", "28.12", "25.50"),
        ("autoregressive PSNR, step 64", "20.10", "18.20"),
        ("reward agreement", "98.7 %", ""),
        ("termination agreement", "99.51 %", "99.00 %"),
        ("termination recall", "80 %", ""),
        ("termination average precision", "0.61", "0.01"),
        ("health, mean error", "1.50", ""),
    ):
        (line,) = [line for line in text.splitlines() if name in line]
        assert value in line and baseline in line
    assert "24.25" in text


def test_without_terminations_the_table_has_no_recall():
    forced = {name: value for name, value in FORCED.items() if name != "termination_recall"}
    assert "recall" not in printed({**SCORES, "teacher_forced": forced})


def test_two_frames_stand_side_by_side():
    left, right = np.full((6, 8, 3), 10, np.uint8), np.full((6, 8, 3), 200, np.uint8)
    both = side_by_side(left, right)
    assert both.shape == (6 * SCALE, (8 + 4 + 8) * SCALE, 3)
    assert (both[:, : 8 * SCALE] == 10).all() and (both[:, -8 * SCALE :] == 200).all()
    assert (both[:, 8 * SCALE : 12 * SCALE] == 0).all()


def test_a_film_has_its_frames_in_order_and_at_the_games_speed(tmp_path):
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (20, 90, 160, 230)]
    write_film(frames, tmp_path / "film.mp4", 8.75)
    with av.open(str(tmp_path / "film.mp4")) as film:
        stream = film.streams.video[0]
        levels = [frame.to_ndarray(format="rgb24").mean() for frame in film.decode(stream)]
        assert float(stream.average_rate) == pytest.approx(8.75, rel=0.01)
    np.testing.assert_allclose(levels, [20, 90, 160, 230], atol=5)


def test_plots_and_strips_are_pictures(tmp_path):
    rng = np.random.default_rng(0)
    curves = RolloutScores(rng.random((3, 5)), rng.random((3, 5)), np.zeros((5, 6, 8, 3)), np.zeros((5, 6, 8, 3)))
    plot_drift(curves, tmp_path / "drift.png")
    frames = rng.integers(256, size=(3, 6, 8, 3), dtype=np.uint8)
    write_strip([("real", frames), ("dream", frames)], ["1", "2", "3"], tmp_path / "strip.png")
    for name in ("drift.png", "strip.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_without_what_draws_and_films_there_is_a_report_all_the_same(tmp_path, monkeypatch, capsys):
    for package in ("matplotlib", "av"):
        monkeypatch.setitem(sys.modules, package, None)
    frames = np.zeros((2, 3, 6, 8, 3), np.uint8)
    found = SimpleNamespace(
        drift=SimpleNamespace(psnr=np.ones((2, 3))), rollouts=SimpleNamespace(real=frames, dreamed=frames)
    )
    dials = {"num_steps": 1, "context_noise": 0.0}
    report = {
        "checkpoint": "mine", "scenario": "basic", "game": {"frame_skip": 4}, "split": "test", "seeds": [0, 10],
        "episodes": 2, "steps": 6, "players": {}, "scores": {"dials": dials}, "bars": [], "rows": [], "command": "x",
        "seconds": {}, "machine": "a bare one",
    }  # fmt: skip
    write_report(report, found, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "World report: mine" in (tmp_path / "report.html").read_text()
    said = capsys.readouterr().out
    assert "the report has no pictures" in said and "the report has no films" in said


@pytest.fixture
def world(tiny_world_folder, tmp_path):
    return shutil.copytree(tiny_world_folder, tmp_path / "world")


@pytest.mark.slow
def test_evaluate_prints_draws_and_keeps_the_scores(world, tmp_path, capsys):
    before = (world / "weights.safetensors").read_bytes()
    command = ["evaluate", "world", "--checkpoint", str(world), "--episodes", "1", "--rollouts", "2"]
    assert main([*command, "--out", str(tmp_path / "report"), "--write"]) == 0
    out = capsys.readouterr().out
    assert "next frame, teacher-forced" in out and "actions matter" in out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["players"] == {"sticky_random(repeat=0.5)": 1} and report["provenance"]["preset"] == "tiny"
    assert report["bars"] == load(world).scores["bars"]
    scores = load(world).scores
    assert scores["seeds"] == [0, 0] and scores["rollouts"] == 2 and scores["dials"]["num_steps"] == 1
    kept = shlex.split(scores["command"])
    assert kept[:3] == ["neural-env", "evaluate", "world"] and set(command[1:]) <= set(kept)
    assert set(scores["autoregressive"]) == {"1", "8", "16", "32", "64"}
    assert json.loads(json.dumps(scores)) == scores
    pictures = {path.stem for path in (tmp_path / "report").glob("*.png")}
    assert {"drift", "rollout", "long_dream"} <= pictures
    assert (world / "weights.safetensors").read_bytes() == before


@pytest.mark.slow
def test_evaluate_without_write_keeps_nothing(world, tmp_path):
    before = (world / "config.json").read_bytes()
    command = ["evaluate", "world", "--checkpoint", str(world), "--episodes", "1", "--rollouts", "1"]
    assert main([*command, "--out", str(tmp_path / "report")]) == 0
    assert (world / "config.json").read_bytes() == before
