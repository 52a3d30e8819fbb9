"""From a dream to the real game and back, as small as it gets."""

import json
import shlex
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tyro

from neural_env.agents.dreams import DreamsConfig
from neural_env.agents.player import Agent, new_policy, read_agent, save_agent
from neural_env.agents.ppo import preset_named
from neural_env.checkpoint import load
from neural_env.cli import main
from neural_env.data.mixture import Mixture
from neural_env.evaluation import transfer_study
from neural_env.evaluation.transfer import (
    TransferConfig,
    _baselines,
    _check_baselines,
    _Judge,
    command_of,
    interval,
    real_frames,
    transfer,
)
from neural_env.evaluation.transfer_report import markdown
from neural_env.evaluation.transfer_study import StudyConfig, study
from neural_env.evaluation.truth import Course, TruthConfig, _real_return, _score
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
    assert "learned from before isn't counted" in text
    assert "--train-real equal" in text and "--horizon 6" in text and "neural-env transfer" in text
    assert (transferred / "curves.png").read_bytes()[1:4] == b"PNG"
    assert (transferred / "film.mp4").stat().st_size > 1000


def test_the_report_of_agents_that_imitate_planning_says_so(transferred):
    report = report_of(transferred)
    report["settings"] |= {"plan": 3, "starts": 512, "total_steps": 10**6}  # the last isn't read
    text = markdown(report)
    assert "**imitating planning, in the dream only**" in text and "PPO, in the dream" not in text
    assert "plans of 3 steps from 512 moments" in text and "isn't finished" not in text
    report["settings"]["plan"] = 0
    assert "Training isn't finished: 32, 32 of 1000000 steps" in markdown(report)


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
    run = transferred / "real" / "equal"
    assert rows[f"real game: {run}, at most 1x the frames"]["real_frames"] == 16
    assert f"real game: {run}, at its end" in rows


@pytest.fixture
def untrained(monkeypatch):
    """Fails where a training begins."""

    def refuse(*_, **__):
        raise AssertionError("what can't be compared with is refused before anything is trained")

    monkeypatch.setattr("neural_env.evaluation.transfer.train_dream_agent", refuse)
    monkeypatch.setattr("neural_env.evaluation.transfer.train_agent", refuse)


def player_of(folder, game, **config):
    policy = new_policy(replace(preset_named("tiny").policy, **config), game)
    save_agent(Agent(policy, game, {"steps": 16}), folder)
    return folder


def test_baselines_of_another_game_are_refused_before_anything_is_trained(
    untrained, tmp_path, mortal_world_folder, game, make_world
):
    given = {"out": tmp_path / "out", "checkpoint": str(mortal_world_folder)}
    fast = player_of(tmp_path / "fast", replace(game, frame_skip=1))
    with pytest.raises(ValueError, match=r"fast holds an agent with the frame skip 1, the world's is 4: leave it out"):
        transfer(TransferConfig(**given, real_runs=(fast,)))
    large = replace(load(mortal_world_folder), game=replace(game, resolution=(240, 320)))
    with pytest.raises(ValueError, match=r"--train-real trains an agent with the resolution \(120, 160\), the world's"):
        _check_baselines(TransferConfig(**given, train_real="equal"), large.game, 16)
    with pytest.raises(ValueError, match="give --real-frames"):
        transfer(TransferConfig(**given, train_real="equal"))


def test_runs_of_one_name_are_told_apart_and_a_map_is_shown_to_who_knows_it(tmp_path, mortal_world_folder, game):
    plain = player_of(tmp_path / "a" / "run", game)
    mapped = player_of(tmp_path / "b" / "run", game, automap=True)
    config = TransferConfig(
        out=tmp_path / "out",
        checkpoint=str(mortal_world_folder),
        real_runs=(plain, mapped),
        episodes=1,
        max_episode_steps=2,
    )
    with closing(_Judge(config, load(mortal_world_folder))) as judge:
        rows = judge.real(_baselines(config, None))
    assert rows.keys() == {f"real game: {run}, at its end" for run in (plain, mapped)}
    assert all(row["games"] == 1 for row in rows.values())


def test_the_recorded_command_asks_for_the_same_again(tmp_path):
    config = StudyConfig(
        out=tmp_path / "with a space",
        dreams=DreamsConfig(temperature=1.15, horizon=6, termination="threshold"),
        data=(Path("data/a game"), Path("data/b")),
        mixture=Mixture(uniform=0.5, events=0.5, kinds=("damage", "death"), lead=8),
        real_runs=(Path("out/one"), Path("out/two runs")),
        gamma=0.9,
        seeds=2,
        split="validation",
        film=False,
    )
    words = shlex.split(command_of(config.transfer(config.out)))
    assert words[:2] == ["neural-env", "transfer"]
    assert tyro.cli(StudyConfig, args=words[2:], config=(tyro.conf.OmitArgPrefixes,)) == config


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


def test_each_agent_goes_on_as_what_it_was(tmp_path):
    before = tmp_path / "agents"
    (before / "seed-0").mkdir(parents=True)
    (before / "seed-1").mkdir()
    config = TransferConfig(out=tmp_path / "out", init_from=before)
    assert [config.training(seed).init_from for seed in (0, 1)] == [before / "seed-0", before / "seed-1"]
    one = replace(config, init_from=before / "seed-1")
    assert [one.training(seed).init_from for seed in (0, 1)] == [before / "seed-1"] * 2


def test_rounds_tell_what_agents_cost_since_the_first(tmp_path, monkeypatch):
    asked = []

    def transferred(config):
        asked.append(config)
        row = {
            "mean_return": 9.0,
            "confidence_95": [8.0, 10.0],
            "flattery": None,
            "real_frames": None,
            "dream": {"mean_return": 5.0},
            "seeds": [{"steps": 1000}, {"steps": 3000}],
            "minutes": 1.5,
        }
        return {"rows": {"dream": row}, "command": "", "settings": {"seeds": 2, "episodes": 1, "split": "test"}}

    monkeypatch.setattr(transfer_study, "transfer", transferred)
    monkeypatch.setattr(transfer_study, "refresh", lambda step: asked.append(step) or step.out / "world")
    transfer_study.study(StudyConfig(out=tmp_path, rounds=2, old_data=(tmp_path,)))
    lines = [line.split(" | ") for line in (tmp_path / "study.md").read_text().splitlines() if line[2:3].isdigit()]
    assert [(line[-2], line[-1].rstrip(" |")) for line in lines] == [
        ("2,000", "1.5"),
        ("4,000", "3.0"),
        ("6,000", "4.5"),
    ]
    first, refreshed, second, *_ = asked
    assert first.init_from is None and second.init_from == tmp_path / "round-0" / "agents"
    assert refreshed.agent == tmp_path / "round-0" / "agents" / "seed-0"
    assert [row["steps"] for row in json.loads((tmp_path / "study.json").read_text()).values()] == [2000, 4000, 6000]


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


def test_the_real_row_begins_where_dreams_do(tmp_path):
    class Past:
        frame, left, warmed = "last of the context", 3, None

        def warm_up(self, seed, length):
            self.warmed = seed, length

        def step(self, action):
            assert self.warmed == (7, 4) and action == 2
            self.frame, self.left = "next", self.left - 1
            return self.frame, 4.0, self.left == 0, False, {}

    class Player:
        def reset(self, rng):
            self.seen = []

        def act(self, frame, variables):
            self.seen.append(frame)
            return 2

    player = Player()
    assert _real_return(TruthConfig(agent=tmp_path), player, Past(), 4, 7) == 12
    assert player.seen == ["last of the context", "next", "next"]


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
