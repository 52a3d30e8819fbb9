"""From a dream to the real game and back, as small as it gets."""

import json

import numpy as np
import pytest

from neural_env.agents.player import read_agent
from neural_env.checkpoint import load
from neural_env.cli import main
from neural_env.evaluation.transfer import interval, real_frames
from neural_env.evaluation.transfer_study import StudyConfig, study
from neural_env.evaluation.truth import Course, TruthConfig, _score
from neural_env.training.refresh import RefreshConfig, refresh

TINY = [
    "--preset", "tiny", "--total-steps", "32", "--horizon", "6", "--seeds", "2", "--snapshots", "1", "--episodes", "2",
    "--validation-games", "1", "--dream-episodes", "3", "--max-episode-steps", "10",
]  # fmt: skip


@pytest.fixture(scope="module")
def transferred(tmp_path_factory, mortal_world_folder):
    """A finished transfer, with a baseline that learned in the real game."""
    out = tmp_path_factory.mktemp("transfer") / "run"
    given = ["--real-frames", "16", "--train-real", "equal", "--real-preset", "tiny"]
    checkpoint = ["--checkpoint", str(mortal_world_folder), "--scenario", "take_cover"]
    assert main(["transfer", "--out", str(out), *checkpoint, *TINY, *given]) == 0
    return out


def report_of(out):
    return json.loads((out / "report.json").read_text())


def test_the_report_has_a_row_for_every_player(transferred):
    report = report_of(transferred)
    rows = report["rows"]
    assert set(rows) == {"uniform random", "sticky random", "dream", "real game: trained here, as many frames"}
    for row in rows.values():
        low, high = row["confidence_95"]
        assert low <= row["mean_return"] <= high and 0 < row["mean_return"] <= 40  # ten steps of four tics
    dream = rows["dream"]
    assert np.shape(dream["returns"]) == (2, 2) and len(dream["seeds"]) == 2 and dream["dream"]["died"] > 0
    assert dream["mean_return"] == pytest.approx(np.mean(dream["returns"]))
    assert dream["real_frames"] == 16 == rows["real game: trained here, as many frames"]["real_frames"]
    assert [point["steps"] for point in report["curves"]["dream"][1]] == [0, 32]


def test_the_report_can_be_read_and_seen(transferred):
    text = (transferred / "report.md").read_text()
    assert "**PPO, in the dream only**" in text and text.count("\n| ") == 5  # the heading and four players
    assert "--train-real equal" in text and "--horizon 6" in text and "neural-env transfer" in text
    assert (transferred / "curves.png").read_bytes()[1:4] == b"PNG"
    assert (transferred / "film.mp4").stat().st_size > 1000


def test_what_was_measured_is_not_measured_again(transferred, mortal_world_folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it was measured before")

    monkeypatch.setattr("neural_env.evaluation.transfer.played", refuse)
    monkeypatch.setattr("neural_env.evaluation.transfer.play_dreams", refuse)
    before = report_of(transferred)["rows"]
    given = ["--real-frames", "16", "--no-film"]
    assert main(["transfer", "--out", str(transferred), "--checkpoint", str(mortal_world_folder), *TINY, *given]) == 0
    assert report_of(transferred)["rows"]["dream"] == before["dream"]


def test_an_existing_training_in_the_real_game_is_compared_with(transferred, mortal_world_folder):
    given = ["--real-frames", "16", "--no-film", "--real-runs", str(transferred / "real" / "equal")]
    assert main(["transfer", "--out", str(transferred), "--checkpoint", str(mortal_world_folder), *TINY, *given]) == 0
    rows = report_of(transferred)["rows"]
    assert rows["real game: equal, at most 1x the frames"]["real_frames"] == 16
    assert "real game: equal, at its end" in rows


def test_another_scenario_than_the_worlds_is_refused(tmp_path, mortal_world_folder, capsys):
    given = ["--out", str(tmp_path), "--checkpoint", str(mortal_world_folder), "--scenario", "basic"]
    assert main(["transfer", *given]) == 1
    assert "dreams 'take_cover', not 'basic'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_makes_a_row_for_each_value_and_plays_validation_seeds(tmp_path, mortal_world_folder):
    sweep = ["--sweep", "num_steps", "--values", "1", "2", "--seeds", "1"]
    assert main(["transfer", "--out", str(tmp_path), "--checkpoint", str(mortal_world_folder), *TINY, *sweep]) == 0
    text = (tmp_path / "study.md").read_text()
    assert "| 1 |" in text and "| 2 |" in text and "validation seeds" in text
    made = [read_agent(tmp_path / f"num_steps={n}" / "agents" / "seed-0").provenance["dreams"] for n in (1, 2)]
    assert [dreams["num_steps"] for dreams in made] == [1, 2]


@pytest.mark.slow
def test_a_round_adds_the_agents_own_games_to_what_the_world_knows(tmp_path, mortal_world_folder):
    data = str(tmp_path / "data")
    assert main(["collect", "--out", data, "--episodes", "10", "--max-episode-steps", "12"]) == 0
    rounds = ["--rounds", "1", "--old-data", data, "--new-episodes", "10", "--denoiser-steps", "2"]
    given = ["--checkpoint", str(mortal_world_folder), "--seeds", "1", "--no-film", "--outcome-steps", "2"]
    out = tmp_path / "study"
    assert main(["transfer", "--out", str(out), *TINY, *rounds, *given]) == 0
    old, new = load(mortal_world_folder), load(out / "round-1" / "world")
    assert len(new.provenance["data"]) == 2 and new.provenance["data"][1]["policy"].startswith("agent(take_cover")
    assert (np.asarray(old.world.unet.head.kernel[...]) != np.asarray(new.world.unet.head.kernel[...])).any()
    assert real_frames(new) > 10
    assert (out / "study.md").read_text().count("\n| ") == 2


def test_the_values_of_a_sweep_are_read_as_what_the_setting_is(tmp_path):
    read = {}
    for name, values in {"num_steps": ("1", "4"), "temperature": ("1",), "termination": ("never",)}.items():
        swept = StudyConfig(out=tmp_path, sweep=name, values=values).swept()
        read[name] = [getattr(dreams, name) for dreams in swept.values()]
    assert read == {"num_steps": [1, 4], "temperature": [1.0], "termination": ["never"]}


def test_studies_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="have no setting 'fear'; there are observe, num_steps"):
        StudyConfig(out=tmp_path, sweep="fear", values=("1",))
    with pytest.raises(ValueError, match="--sweep temperature can't take hot"):
        StudyConfig(out=tmp_path, sweep="temperature", values=("hot",))
    with pytest.raises(ValueError, match="give --sweep and --values"):
        StudyConfig(out=tmp_path, sweep="temperature")
    with pytest.raises(ValueError, match="give --old-data"):
        StudyConfig(out=tmp_path, rounds=1)


def test_a_distilled_world_is_refused_before_anybody_plays(distilled_world_folder, tmp_path):
    given = {"checkpoint": str(distilled_world_folder), "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="is distilled and learns from its teacher alone, not from games: give"):
        refresh(RefreshConfig(**given, data=(tmp_path,), agent=tmp_path))
    with pytest.raises(ValueError, match="is distilled and learns from its teacher alone, not from games: give"):
        study(StudyConfig(**given, rounds=1, old_data=(tmp_path,)))
    assert not (tmp_path / "out").exists()


def test_the_interval_knows_that_agents_differ_more_than_games():
    rng = np.random.default_rng(0)
    alike = rng.normal(100, 10, (3, 50))
    apart = alike + np.array([[-40.0], [0.0], [40.0]])
    width = [high - low for low, high in map(interval, (alike, apart))]
    assert width[0] == pytest.approx(2 * 1.96 * 10 / 150**0.5, rel=0.5) and width[1] > 10 * width[0]


def test_truths_are_swapped_one_by_one():
    course = Course(np.array([4.0, 4, 4, 4]), np.array([3.0, 3]), dreamed_end=3, real_end=2)
    found = [_score(course, rewards, ends) for rewards in ("dreamed", "true") for ends in ("dreamed", "true")]
    assert found == [12, 8, 6, 6]
    assert _score(course._replace(dreamed_end=None), "dreamed", "dreamed") == 16  # until time ran out


def test_the_command_line_finds_where_a_dream_fails(transferred, mortal_world_folder, tmp_path):
    scores = tmp_path / "truth.json"
    given = ["--agent", str(transferred / "agents" / "seed-0"), "--checkpoint", str(mortal_world_folder)]
    short = ["--episodes", "2", "--max-episode-steps", "8", "--sync", "never", "2", "--json", str(scores)]
    assert main(["evaluate", "truth", *given, *short]) == 0
    rows = json.loads(scores.read_text())["rows"]
    assert len(rows) == 9 and rows[-1]["frames_true"] == "always"
    both = [row for row in rows if (row["rewards"], row["terminations"]) == ("true", "true")]
    assert all(0 < value <= 32 for row in both for value in row["returns"])  # eight steps of four tics
    with pytest.raises(ValueError, match="sync must be"):
        TruthConfig(agent=tmp_path, sync=("sometimes",))
