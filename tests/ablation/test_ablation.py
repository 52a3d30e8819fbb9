import json
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.ablation import run as runs
from neural_env.ablation.bench import OutOfTime
from neural_env.ablation.memory import Remembering, SparsePast
from neural_env.ablation.report import columns, markdown, rows, write
from neural_env.ablation.run import AblateConfig, StudyName, ablate, command_of
from neural_env.ablation.score import Exam, held_out, score
from neural_env.ablation.studies import STUDIES
from neural_env.ablation.study import Arm, Study
from neural_env.data.episode import Episode
from neural_env.envs.dials import Dials
from neural_env.world.model import PRESETS

TINY = PRESETS["tiny"]
FIGURES = {"psnr": 25.0, "psnr_hud": 30.0, "psnr_shuffled": 24.0, "psnr_copy": 23.0, "windows": 8, "rollouts": 2}
SCORES = {**FIGURES, "drift": [24.0] * 8, "drift_hold": [22.0] * 8, "sharpness": 0.5, "frame_ms": 1.5}


def episode(steps=40, terminated=False, seed=1):
    rng = np.random.default_rng(seed)
    return Episode(
        frames=rng.integers(256, size=(steps + 1, 120, 160, 3), dtype=np.uint8),
        actions=rng.integers(3, size=steps, dtype=np.int32),
        rewards=np.zeros(steps, np.float32),
        variables=np.zeros((steps + 1, 1), np.float32),
        signals=np.zeros((steps + 1, 0), np.float32),
        terminated=terminated,
        truncated=not terminated,
        seed=seed,
        policy="none",
    )


# Studies.


def test_every_study_can_be_asked_for_and_builds_its_arms(game):
    assert set(get_args(StudyName)) == STUDIES.keys()
    for study in STUDIES.values():
        for arm in study.arms:
            assert arm.model(TINY).autoencoder == TINY.autoencoder


def test_arms_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"at least two arms of different names, got \['a', 'a'\]"):
        Study(question="?", arms=(Arm(name="a"), Arm(name="a")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"study": "noise", "arms": ("nothing",)}, "the study noise has no arm 'nothing'; choose from .*without"),
        ({"study": "noise", "seeds": (1, 1)}, "seeds must be different numbers"),
        ({"study": "noise", "preset": "huge"}, "there is no preset 'huge'"),
        ({"study": "noise", "steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AblateConfig(**settings)


def test_the_command_names_what_was_chosen_and_nothing_else():
    config = AblateConfig(study="context", seeds=(0, 1), test=True, arms=("4", "1"), workers=7)
    assert command_of(config) == "neural-env ablate context --seeds 0 1 --arms 4 1 --test"


# A sparse past.


def seen(world, grid):
    """F of a past of twelve frames, of which those 12 and 8 steps back and the last two are looked at."""
    sparse = SparsePast(world.unet, 2, (8, 12), grid)

    def estimate(past):
        x, level = jnp.zeros((1, *world.latent_shape)), jnp.zeros(1)
        return sparse.bound(past, jnp.zeros((1, 12), jnp.int32), jnp.zeros((1, 12)))(x, level)

    past = jnp.asarray(np.random.default_rng(0).standard_normal((1, 12, *world.latent_shape), np.float32))
    return jax.jit(estimate), past


@pytest.mark.parametrize("grid", [None, (3, 4)])
def test_a_sparse_past_sees_its_ages_and_the_last_frames_only(tiny_world, grid):
    estimate, past = seen(tiny_world, grid)
    before = estimate(past)
    changes = [float(jnp.abs(estimate(past.at[:, place].add(1.0)) - before).max()) for place in range(12)]
    assert [change > 0 for change in changes] == [place in (0, 4, 10, 11) for place in range(12)]


def test_a_blurred_frame_tells_its_coarse_means_alone(tiny_world):
    estimate, past = seen(tiny_world, (3, 4))
    checks = jnp.where((jnp.arange(15)[:, None] + jnp.arange(20)) % 2 == 0, 1.0, -1.0)[..., None]
    fine, coarse = (estimate(past.at[:, 0].add(change)) - estimate(past) for change in (checks, 1.0))
    assert jnp.abs(fine).max() < 0.2 * jnp.abs(coarse).max()


def test_a_world_that_remembers_has_a_past_as_long_as_its_oldest_age(game):
    world = nnx.eval_shape(lambda: Remembering(ages=(8, 12))(TINY, game, 0))
    assert world.context == 12 and world.unet.places == (-12, -8, -4, -3, -2, -1)


def test_an_age_within_the_recent_frames_is_refused(game):
    with pytest.raises(ValueError, match=r"the ages \(3,\) must lie before the last 4 frames"):
        Remembering(ages=(3,))(TINY, game, 0)


# Scores.


def test_scores_compare_like_with_like(tiny_world):
    exam = Exam(windows=10, rollouts=3, horizon=4)
    places = held_out([episode(), episode(30, terminated=True, seed=11)], tiny_world.autoencoder, 8, exam)
    assert len(places.windows) == 10 and len(places.starts) == 3
    assert min(t for _, t in places.windows) == 7 and max(t for e, t in places.windows if e == 1) <= 28
    scores = score(tiny_world, places, Dials(), 4)
    assert len(scores["drift"]) == len(scores["drift_hold"]) == 4
    # The first dreamed frame is a teacher-forced one, at the starts instead of the windows.
    assert scores["drift"][0] == pytest.approx(scores["psnr"], abs=2)
    assert scores["psnr"] != scores["psnr_copy"] and scores["frame_ms"] > 0


def test_held_out_episodes_that_are_too_short_are_refused(tiny_world):
    with pytest.raises(ValueError, match="longest held-out episode has 40 steps, 72 are needed"):
        held_out([episode()], tiny_world.autoencoder, 8, Exam())


# Reports.


def result(**changes):
    plain = {
        "study": "noise",
        "question": "Does it?",
        "paper": "it does",
        "command": "neural-env ablate noise",
        "split": "validation",
        "players": ["agent"],
        "seeds": [0],
        "horizon": 8,
        "device": "none",
        "arms": {"with": {"0": {"agent": SCORES}}, "without": {}},
    }
    return {**plain, **changes}


def test_the_report_has_every_figure_under_its_heading_and_says_what_is_missing(tmp_path):
    write(result(), tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| with | 25.00 | 30.00 | 24.00 | 24.00 | 24.00 | 50 % | 1.5 |" in text
    assert "Not finished: without. Run the command again to go on." in text
    assert "copying the last frame gives 23.00 dB" in text and "`neural-env ablate noise`" in text
    assert json.loads((tmp_path / "result.json").read_text()) == result()
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_several_seeds_give_a_mean_and_half_their_spread():
    other = {**SCORES, "psnr": 26.0}
    both = result(seeds=[0, 1], arms={"with": {"0": {"agent": SCORES}, "1": {"agent": other}}})
    assert rows(both)[0][1] == "25.50 ± 0.50"
    assert "Not finished" not in markdown(both)


def test_several_players_have_columns_of_their_own():
    two = result(players=["agent", "random"], arms={"with": {"0": {"agent": SCORES, "random": SCORES}}})
    assert len(columns(two)) == len(rows(two)[0]) == 14
    assert "PSNR, random's play" in columns(two)


# The command.


class FakeBench:
    """Counts what is trained and scored."""

    trained: ClassVar[list] = []
    stop_after = 99

    def __init__(self, given, sizes, study, folder, deadline):
        self.sizes, self.players, self.study_players, self.history = sizes, ("agent",), (), 4

    def world(self, arm, seed):
        if len(self.trained) >= self.stop_after:
            raise OutOfTime(f"{arm.name} is not trained")
        self.trained.append((arm.name, seed))
        return SimpleNamespace(), [f"denoiser-{arm.name}"]

    def exam(self, split, player):
        return split


@pytest.fixture
def fake(monkeypatch):
    scored = []

    def score(world, exam, dials, horizon):
        scored.append(exam)
        return {**SCORES, "drift": [24.0] * horizon, "drift_hold": [22.0] * horizon}

    monkeypatch.setattr(runs, "Bench", FakeBench)
    monkeypatch.setattr(runs, "score", score)
    monkeypatch.setattr(FakeBench, "trained", [])
    return scored


def test_a_study_that_ran_out_of_time_goes_on_and_scores_nothing_twice(fake, tmp_path, monkeypatch, capsys):
    config = AblateConfig(study="noise", out=tmp_path, horizon=8)
    monkeypatch.setattr(FakeBench, "stop_after", 1)
    first = ablate(config)
    assert [len(scores) for scores in first["arms"].values()] == [1, 0, 0] and len(fake) == 1
    assert "run again to go on" in capsys.readouterr().out
    monkeypatch.setattr(FakeBench, "stop_after", 99)
    again = ablate(config)
    assert [len(scores) for scores in again["arms"].values()] == [1, 1, 1] and len(fake) == 3


def test_scores_are_of_validation_seeds_until_the_final_ones_are_asked_for(fake, tmp_path):
    config = AblateConfig(study="noise", out=tmp_path, horizon=8, arms=("with", "without"))
    ablate(config)
    ablate(replace(config, test=True))
    assert fake == ["validation"] * 2 + ["test"] * 2
    assert (tmp_path / "noise" / "test" / "table.md").is_file()


def test_an_arm_is_scored_again_when_more_is_asked(fake, tmp_path):
    config = AblateConfig(study="noise", out=tmp_path, horizon=8, arms=("with", "without"))
    ablate(config)
    ablate(replace(config, horizon=16))
    assert len(fake) == 4


@pytest.mark.slow
def test_a_smoke_run_trains_its_arms_and_leaves_a_whole_report(tmp_path):
    config = AblateConfig(study="noise", out=tmp_path, smoke=True)
    found = ablate(config)
    assert list(found["arms"]) == ["with", "without"]
    parts = sorted(path.name.split("-")[0] for path in (tmp_path / "parts").iterdir())
    assert parts == ["autoencoder", "denoiser", "denoiser"]
    forced = [scores["0"]["random"]["psnr"] for scores in found["arms"].values()]
    assert forced[0] != forced[1] and min(forced) > 10
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*/weights.safetensors")}
    assert ablate(config)["arms"] == found["arms"]  # nothing is trained or measured again
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
