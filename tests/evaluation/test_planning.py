import json
import shlex
from pathlib import Path

import pytest
import tyro

import neural_env
from neural_env.agents.dreams import DreamsConfig
from neural_env.checkpoint import save_module
from neural_env.cli import main
from neural_env.evaluation.planning import EvaluatePlanningConfig, command_of
from neural_env.training.danger import danger_of, latents_of, load_danger

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def danger(tmp_path_factory, tiny_world_folder):
    """A run whose danger has learned nothing, of the tiny world's latents."""
    world, folder = neural_env.load(tiny_world_folder).world, tmp_path_factory.mktemp("run")
    save_module(danger_of(world, 0), folder / "danger" / "weights.safetensors")
    record = {"encoder": latents_of(world)}
    (folder / "danger" / "stage.json").write_text(json.dumps(record))
    return folder


def test_planning_plays_the_real_game_beside_random_players(danger, tiny_world_folder, tmp_path, capsys):
    given = ["--checkpoint", str(tiny_world_folder), "--danger-from", str(danger), "--runtime", "xla", "--ahead", "2"]
    short = ["--episodes", "2", "--max-episode-steps", "3", "--json", str(tmp_path / "scores.json")]
    assert main(["evaluate", "planning", *given, *short]) == 0
    assert "planned 2 steps" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["seeds"] == [0, 10] and scores["split"] == "test"
    rows = scores["players"]
    assert rows.keys() == {"planning", "uniform random", "sticky random"}
    assert rows["planning"]["policy"] == "planning(take_cover, ahead=2)"
    assert all(row["returns"] == [12.0, 12.0] for row in rows.values())  # three steps of four tics


def test_the_recorded_command_asks_for_the_same_again():
    config = EvaluatePlanningConfig(ahead=2, dreams=DreamsConfig(damage=0.5, danger=20.0), split="validation")
    words = shlex.split(command_of(config))
    assert words[:3] == ["neural-env", "evaluate", "planning"]
    assert tyro.cli(EvaluatePlanningConfig, args=words[3:], config=(tyro.conf.OmitArgPrefixes,)) == config


def test_what_is_dangerous_in_the_bundled_world_comes_with_the_repository():
    danger = load_danger(ROOT / "runs" / "danger" / "take_cover", neural_env.load("take_cover"))
    starts = neural_env.load("take_cover").starts
    found = danger(starts.latents, starts.actions)
    assert found.shape == (len(starts.latents),) and float(found.mean()) < 0.3  # a game's first frames are calm


def test_settings_that_make_no_plan_are_refused():
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        EvaluatePlanningConfig(ahead=0)
    with pytest.raises(ValueError, match=r"gamma is a discount in \[0, 1\), got 1"):
        EvaluatePlanningConfig(gamma=1)
