"""Every metric on worlds whose faults are known: one that is always right, and some that aren't."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from neural_env.evaluation import stability
from neural_env.evaluation.bars import bars_of, needed
from neural_env.evaluation.bootstrap import exact
from neural_env.evaluation.card import CardConfig, _data, _how_made, _read_played, _transfer, card
from neural_env.evaluation.compare import differences, require_same_game
from neural_env.evaluation.controllability import inverse_rows, swap_rows
from neural_env.evaluation.rows import Row
from neural_env.evaluation.run import EvaluateConfig, report_of, write_report
from neural_env.evaluation.speed import LOST, step_rows
from neural_env.evaluation.study import Budget, horizon_of, study
from neural_env.evaluation.world import Dials, Dreamer, force, roll, windows_of

SMALL = Budget(
    episodes=6, pictures=80, costly=8, nets=("alexnet",), rollouts=8, dreams=2, many_steps=(1, 2), windows=16,
    taught=200, probe_steps=60, horizon=64, length=80,
)  # fmt: skip


@pytest.fixture(scope="module")
def studied(law, law_episodes):
    """The study of a world of that kind, made once."""
    found = {}

    def of(kind):
        if kind not in found:
            found[kind] = study(law(kind), Dials(), law_episodes, SMALL)
        return found[kind]

    return of


def by_name(found):
    return {row.name: row for row in found.rows}


def met(found):
    return {bar.name: bar.met for bar in found.bars}


@pytest.mark.slow
def test_a_world_that_is_always_right_gets_the_ceiling_in_every_row(studied):
    rows = by_name(studied("oracle"))
    for name, best in {"PSNR": 60, "SSIM": 1, "LPIPS (AlexNet)": 0, "PSNR of the HUD": 60}.items():
        assert rows[name].value.value == pytest.approx(best, abs=1e-6)
        assert rows[name].baselines["auto-encoder alone"].value == rows[name].value.value
        assert rows[name].baselines["copy the last frame"].value != pytest.approx(best, abs=1e-3)
    assert rows["JPEG quality of equal PSNR"].value.value == 95
    for step in (1, 8, 16, 32, 64):
        assert (
            rows[f"PSNR at step {step}"].value.value
            == 60
            > rows[f"PSNR at step {step}"].baselines["copy the first frame"].value
        )
    assert rows["reward: average precision"].value.value == rows["termination: average precision"].value.value == 1
    assert rows["reward: mean error"].value.value == rows["place: mean error, % of its range"].value.value == 0
    assert rows["termination: recall"].value.value == rows["reward: within 0.5"].value.value == 100
    assert rows["reward: recall"].value.value == 100
    assert rows["termination: calibration error (ECE)"].value.value == pytest.approx(0, abs=1e-6)
    assert rows["PSNR lost by one step"].value.value == 0
    real, dreamed = (rows[f"inverse model: accuracy on {what} clips"].value.value for what in ("real", "dreamed"))
    assert real == dreamed > rows["inverse model: accuracy on real clips"].baselines["always the most frequent"].value
    for length in (16, 32):  # the clips are equal, so that one of each pair is taken for what it is
        assert rows[f"accuracy on clips of {length} frames"].value.value == 50
    assert rows[stability.HELD].value.value == 100
    assert {name: value for name, value in met(studied("oracle")).items() if name != "real time"} == {
        "next frame, PSNR": True, "next frame, LPIPS": True, "one step against many": True, "no collapse": True,
        "actions matter": True, "32 steps on its own frames": True, "termination, average precision": True,
        "place, error": True,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["shuffled", "deaf"])
def test_a_world_that_takes_actions_for_others_or_for_nothing_fails_the_row_of_controllability(kind, law, law_episodes):
    dreamer = Dreamer(law(kind).world, Dials())
    forced = force(dreamer, windows_of(law_episodes, dreamer.context), SMALL.pictures)
    rollouts = roll(dreamer, law_episodes, SMALL.horizon, SMALL.rollouts)
    swapped, inverse = swap_rows(forced), inverse_rows(forced.windows, rollouts, 3, SMALL.taught, SMALL.probe_steps)
    (bar,) = [bar for bar in bars_of(swapped) if bar.name == "actions matter"]
    assert bar.met is False and swapped[1].value.low <= 0
    assert inverse[1].value.high < inverse[1].baselines["on real clips"].low


@pytest.mark.slow
def test_a_world_that_fades_is_told_from_the_real_game_and_collapses(studied):
    found = studied("fading")
    assert met(found)["no collapse"] is False and met(found)["actions matter"] is True
    rows = by_name(found)
    assert rows["PSNR"].value.value < rows["PSNR"].baselines["auto-encoder alone"].value < 60
    assert rows["accuracy on clips of 16 frames"].value.low > 80
    frechet = [rows[f"FD-VGG16, steps {span}"] for span in stability.segment_names(80)]
    assert frechet[-1].value.value > 2 * frechet[-1].baselines["real against real"].value


@pytest.mark.parametrize(("kind", "names"), [("oracle", ["1 step", "2 steps"]), ("one step", ["1 step"])])
def test_denoising_steps_are_compared_as_far_as_the_world_makes_them(kind, names, law, law_episodes):
    world = law(kind).world
    dreamer = Dreamer(world, Dials())
    some = windows_of(law_episodes, dreamer.context)[np.arange(8)]
    rows = step_rows(world, dreamer, some, Dials(), SMALL.many_steps)
    expected = [f"teacher-forced PSNR, {name} a frame" for name in names]
    assert [row.name for row in rows if row.name != LOST] == expected
    (bar,) = [bar for bar in bars_of(rows) if bar.name == "one step against many"]
    assert bar.met is (True if kind == "oracle" else None)


@pytest.mark.slow
def test_a_comparison_is_paired_and_says_what_is_sure(studied):
    lines = {line.a.name: line for line in differences(studied("oracle"), studied("fading"))}
    psnr = lines["PSNR"]
    assert psnr.sure and psnr.difference.value.high < 0
    expected = studied("fading").rows[0].value.value - studied("oracle").rows[0].value.value
    assert psnr.difference.value.value == pytest.approx(expected)
    same = differences(studied("fading"), studied("fading"))
    assert not any(line.sure for line in same)
    assert all(line.difference.value.value == 0 for line in same if line.difference)


def test_worlds_of_other_games_are_not_compared(game):
    require_same_game(game, replace(game))
    with pytest.raises(ValueError, match=r"only worlds of one game .* choose two of the same"):
        require_same_game(game, replace(game, frame_skip=2))


@pytest.mark.slow
def test_the_report_is_one_file_with_every_row_and_a_card_is_made_of_it(studied, law, law_episodes, tmp_path):
    found = studied("fading")
    config = EvaluateConfig(checkpoint="fading", split="validation", out=tmp_path / "report")
    report = report_of(config, law("fading"), law_episodes, found)
    write_report(report, found, config.out)
    text = (config.out / "report.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    sources = Sources()
    sources.feed(text)
    assert len(sources.found) == 8 + 3 and all(source.startswith("data:") for source in sources.found)
    for row in found.rows:
        assert row.name.replace("&", "&amp;") in text
    kept = json.loads((config.out / "report.json").read_text())
    assert kept == json.loads(json.dumps(report)) and len(kept["rows"]) == len(found.rows)
    assert kept["seeds"] == [1, 131] and kept["players"] == {"luck": 6}
    (tmp_path / "a_novice.json").write_text(json.dumps(scores_of(300.0)))
    recipe = tmp_path / "fading.sh"
    recipe.write_text("#!/bin/sh\n# All of `fading`: no minute on no core.\nset -e\n")
    played = (tmp_path / "a_novice.json",)
    path = card(CardConfig(report=config.out, out=tmp_path / "worlds", played=played, recipe=recipe))
    written = path.read_text()
    assert "[fading.sh](../fading.sh). All of `fading`: no minute on no core.\n" in written
    assert "## Transfer" in written and "| a novice | 300.0 +- 5.0 |" in written
    assert path.name == "take_cover.md" and "| no collapse | every dream holds | 0 % | **missed** |" in written
    assert (
        written.count("\n* ") == written.count("**missed**") and f"* no collapse: {needed('no collapse')}." in written
    )
    assert kept["command"] in written and all(row.name in written for row in found.rows)
    pictures = [line.split("](")[1][:-1] for line in written.splitlines() if line.startswith("![")]
    assert len(pictures) == 8 and all((path.parent / picture).is_file() for picture in pictures)
    height, width = found.rollouts.real.shape[2:4]
    with Image.open(path.parent / "take_cover" / "film.webp") as film:
        assert film.is_animated and film.size == (2 * width + 4, height)


def test_roll_outs_are_as_long_as_the_episodes_allow(law_episodes, law):
    episodes = sorted(law_episodes, key=len)[:3]
    longest = len(episodes[-1])
    assert horizon_of(episodes, 4, SMALL) == min(64, longest - 4)
    long = replace(SMALL, horizon=1000)
    found = roll(Dreamer(law("oracle").world, Dials()), episodes, horizon_of(episodes, 4, long), rollouts=2)
    assert found.real.shape[1] == longest - 4


def test_a_card_tells_of_all_the_data_of_its_world():
    report = {
        "provenance": {
            "data": [
                {"manifest_hash": "aa", "policy": "luck", "frames": {"train": 80, "test": 9}},
                {"manifest_hash": "bb", "policy": "ppo", "frames": {"train": 20, "test": 1}},
            ]
        }
    }
    lines = _data(report).splitlines()
    assert "| frames | 100 train, 10 test |" in lines and "| players | luck; ppo |" in lines
    assert [line for line in lines if "sha256" in line] == [f"| manifest, sha256 | `{name}` |" for name in ("aa", "bb")]


def scores_of(mean, scenario="take_cover", episodes=100):
    """What `evaluate agent` writes."""

    def row(policy, mean):
        return {"policy": policy, "mean_return": mean, "deviation": 5.0, "confidence_95": [mean - 1, mean + 1]}

    return {
        "scenario": scenario,
        "episodes": episodes,
        "split": "test",
        "seeds": [0, 10 * episodes - 10],
        "max_episode_tics": 2100,
        "command": f"neural-env evaluate agent --agent of-{mean:.0f}",
        "players": {"agent": row("agent(take_cover)", mean), "uniform random": row("sticky_random(repeat=0.0)", 289.0)},
    }


@pytest.fixture
def played(tmp_path):
    """Reads scores as if a player of that name had got them."""

    def played(name, *scores, **settings):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(scores_of(*scores, **settings)))
        return _read_played(path, "take_cover")

    return played


def test_a_card_tells_what_players_got_in_the_game_the_best_first(played):
    lines = _transfer([played("novice", 300.0), played("master", 900.0)]).splitlines()
    rows = [line for line in lines if line.startswith("| ") and "return" not in line]
    assert rows == [
        "| master | 900.0 +- 5.0 | 899.0 to 901.0 |",
        "| novice | 300.0 +- 5.0 | 299.0 to 301.0 |",
        "| uniform random | 289.0 +- 5.0 | 288.0 to 290.0 |",
    ]
    assert lines[2] == "In the real game, 100 games of test seeds 0 to 990, 2100 tics at most:"
    assert lines[-3:] == [f"neural-env evaluate agent --agent of-{mean}" for mean in (300, 900)] + ["```"]


def test_players_of_different_games_or_of_one_name_are_refused_by_a_card(played):
    with pytest.raises(ValueError, match=r"different games, 100 games .*; 50 games"):
        _transfer([played("novice", 300.0), played("master", 900.0, episodes=50)])
    with pytest.raises(ValueError, match="two files are called novice"):
        _transfer([played("novice", 300.0), played("novice", 900.0)])


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON"])
def test_scores_of_another_game_or_of_none_are_refused_by_a_card(played, tmp_path, content):
    with pytest.raises(ValueError, match="is of 'basic', the report of 'take_cover'"):
        played("novice", 300.0, "basic")
    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(ValueError, match="wrote with --json"):
        _read_played(tmp_path / "broken.json", "take_cover")


class Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]


def test_a_recipe_that_says_nothing_is_refused_by_a_card(tmp_path):
    silent = tmp_path / "silent.sh"
    with pytest.raises(ValueError, match=r"can't be read .* give the script that made the world"):
        _how_made(silent, tmp_path)
    silent.write_text("#!/bin/sh\nset -e\n")
    with pytest.raises(ValueError, match="has no comment: begin it with one that says what it makes, how long"):
        _how_made(silent, tmp_path)


def test_every_bar_says_what_a_world_needs_that_misses_it():
    said = {bar.name: needed(bar.name) for bar in bars_of([])} | {"health, error": needed("health, error")}
    assert all(len(text) > 20 for text in said.values()) and "trained for longer" in said["next frame, PSNR"]


def test_a_card_without_a_report_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="make one with `neural-env evaluate world --out"):
        card(CardConfig(report=tmp_path))
    (tmp_path / "report.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="has the format 'other', this version reads"):
        card(CardConfig(report=tmp_path))


def test_bars_that_were_not_measured_are_neither_met_nor_missed():
    bars = {bar.name: bar for bar in bars_of([Row("next frame, teacher-forced", "PSNR", exact(29.43), "dB")])}
    assert bars["next frame, PSNR"].met is True and bars["next frame, PSNR"].found == "29.43 dB"
    assert {bar.met for name, bar in bars.items() if name != "next frame, PSNR"} == {None}
    (missed,) = [b for b in bars_of([Row("next frame, teacher-forced", "PSNR", exact(29.42), "dB")]) if b.met is False]
    assert missed.verdict == "missed"


@pytest.mark.parametrize(
    ("row", "met", "found"),
    [
        (
            ("autoregressive", "PSNR at step 32", exact(24.0), "dB", 2, {"copy the first frame": exact(22.9)}),
            True,
            "22.90",
        ),
        (
            ("autoregressive", "PSNR at step 32", exact(24.0), "dB", 2, {"copy the first frame": exact(23.1)}),
            False,
            "24.00",
        ),
        (("outcome", "termination: average precision", exact(0.49)), False, "0.49"),
        (("outcome", "health: mean error, % of its range", exact(4.9), "%"), True, "4.90 %"),
        (("outcome", "health: mean error, % of its range", exact(5.1), "%"), False, "5.10 %"),
    ],
)
def test_a_bar_is_met_by_its_own_row_alone(row, met, found):
    (bar,) = [bar for bar in bars_of([Row(*row)]) if bar.met is not None]
    assert bar.met is met and found in bar.found


def test_dreams_hold_as_long_as_no_statistic_leaves_its_start_by_more_than_a_factor():
    steady = np.full((3, 4), 10.0)
    values = {name: steady.copy() for name in stability.FACTORS}
    assert stability.held(values).tolist() == [True, True, True]
    values["sharpness"][0, 2] = 4.9
    values["motion"][1, 3] = 2.6
    assert stability.held(values).tolist() == [False, True, True]
    values["motion"][2, 1] = 0.0
    assert stability.held(values).tolist() == [False, True, False]


@pytest.mark.parametrize("length", [1000, 80, 16])
def test_the_pairs_that_are_looked_at_lie_in_their_segments(length):
    places = stability.pair_places(length)
    size = length // stability.SEGMENTS
    assert (places[..., 1] == places[..., 0] + 1).all()
    for i, segment in enumerate(places):
        assert segment.min() >= i * size and segment.max() < (i + 1) * size
        assert len(np.unique(segment[:, 0])) == len(segment) >= 2
