import json
from dataclasses import asdict, replace
from io import StringIO
from types import SimpleNamespace
from typing import ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from neural_env.ablation import run as runs
from neural_env.ablation.bench import Bench, Given, OutOfTime, alike, player_of
from neural_env.ablation.memory import Remembering, SparsePast
from neural_env.ablation.report import columns, markdown, rows, table, write
from neural_env.ablation.run import SMOKE, AblateConfig, StudyName, ablate, command_of
from neural_env.ablation.score import Exam, held_out, score
from neural_env.ablation.studies import STUDIES
from neural_env.ablation.study import Arm, Study
from neural_env.data.corpus import Corpus
from neural_env.data.episode import Episode
from neural_env.data.policies import StickyRandom
from neural_env.data.recorder import Recorder
from neural_env.envs.dials import Dials
from neural_env.world.diffusion import EDM
from neural_env.world.model import PRESETS, distilled
from neural_env.world.velocity import VPrediction

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
        ({"study": "noise", "arms": ("with",)}, "one arm is compared with nothing: give --arms 'with' and others of"),
        ({"study": "noise", "smoke": True, "held_out": 3}, "a smoke run has sizes of its own: leave out --held-out"),
        ({"study": "data", "player": "random"}, "the study data is scored on the play of agent and random"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AblateConfig(**settings)


def test_the_command_names_what_was_chosen_and_nothing_else():
    config = AblateConfig(study="context", seeds=(0, 1), test=True, arms=("4", "1"), workers=7)
    assert command_of(config) == "neural-env ablate context --seeds 0 1 --arms 4 1 --test"
    steps = AblateConfig(study="steps", arms=("1 step", "distilled"))
    assert command_of(steps) == "neural-env ablate steps --arms '1 step' distilled"


def test_arms_are_run_in_as_many_steps_as_suit_their_world_unless_they_are_about_steps():
    world = SimpleNamespace(num_steps=4)
    found = {
        name: {arm.dials_for(world).num_steps for arm in study.arms if arm.name != "distilled"}
        for name, study in STUDIES.items()
    }
    assert found.pop("steps") == {1, 2, 4, 8, 16} and found.pop("objective") == {1, 4}
    assert set().union(*found.values()) == {4}


@pytest.mark.parametrize(
    ("study", "arms"),
    [
        ("objective", ["EDM, 1 step", "v-prediction, 1 step", "shortcut, 1 step"]),
        ("steps", ["1 step", "distilled"]),
        ("rollout", ["own frames at the end", "as long, on true pasts"]),
        ("level", ["0", "0.05", "0.1", "0.2", "0.4"]),
    ],
)
def test_a_smoke_run_has_an_arm_of_each_training(study, arms):
    assert [arm.name for arm in runs._chosen(AblateConfig(study=study, smoke=True)).arms] == arms


# What a study starts from.


def bench_of(tmp_path, study, **given):
    """The bench of a study that is given so much."""
    settings = {"checkpoint": None, "data": (), "random_data": (), "agent": None, "player": None, "workers": 1}
    return Bench(
        Given(scenario="take_cover", preset="tiny", **{**settings, **given}), SMOKE, STUDIES[study], tmp_path, 0.0
    )


def holding(bench, game, model=TINY):
    """The bench, given a checkpoint of that game and model."""
    bench.checkpoint = SimpleNamespace(game=game, model=model)
    return bench


@pytest.mark.parametrize(("study", "arm"), [("steps", "distilled"), ("rollout", "own frames at the end")])
def test_a_distilled_world_is_not_trained_on(study, arm, game, tmp_path):
    bench = holding(bench_of(tmp_path, study, checkpoint="mine"), game, distilled(TINY))
    bench.study = SimpleNamespace(whole=True, arms=[each for each in bench.study.arms if each.name == arm])
    message = (
        f"mine is distilled and learns from its teacher alone, the arm '{arm}' trains its denoiser on: give a world"
    )
    with pytest.raises(ValueError, match=message):
        bench.check()


def test_a_distilled_world_makes_one_step(game, tmp_path):
    bench = holding(bench_of(tmp_path, "steps", checkpoint="mine"), game, distilled(TINY))
    bench.study = replace(bench.study, arms=bench.study.arms[:2])
    with pytest.raises(ValueError, match="the arm '2 steps' makes 2 steps a frame, its world at most 1"):
        bench.check()


@pytest.mark.parametrize("study", ["level", "decoder"])
def test_what_leaves_the_denoiser_be_is_asked_of_a_distilled_world(study, game, tmp_path):
    bench = holding(bench_of(tmp_path, study, checkpoint="mine"), game, distilled(TINY))
    bench.check()
    assert bench.model == distilled(TINY)


def test_arms_trained_from_nothing_have_the_objective_of_a_distilled_worlds_teacher(game, tmp_path):
    model = distilled(replace(TINY, objective=VPrediction()))
    bench = holding(bench_of(tmp_path, "noise", checkpoint="mine"), game, model)
    bench.check()
    assert bench.model.objective == VPrediction() and bench.model.num_steps == 4


def test_a_memory_of_what_the_model_sees_anyway_is_refused_before_anything_is_played(tmp_path):
    bench = bench_of(tmp_path, "memory")
    bench.given = replace(bench.given, preset="gamengen")
    with pytest.raises(ValueError, match=r"before the last 64 frames, .*: choose older ones, or a preset"):
        bench.check()
    assert not any(tmp_path.iterdir())


def test_a_study_that_needs_an_agent_says_so_before_anything_is_played(tmp_path):
    with pytest.raises(ValueError, match="needs an agent that plays take_cover: train one"):
        bench_of(tmp_path, "data").check()
    assert not any(tmp_path.iterdir())


def test_studies_of_a_given_world_train_nothing_and_need_no_data(game, tmp_path):
    bench = holding(bench_of(tmp_path, "level", checkpoint="mine"), game)
    assert bench.study_players == () and {bench.frames(arm) for arm in bench.study.arms} == {0}
    assert len(list(bench.trainings((0, 1, 2)))) == len(bench.study.arms)
    steps = holding(bench_of(tmp_path, "steps", checkpoint="mine"), game)
    assert [(arm.name, seed) for arm, seed in steps.trainings((0, 1))][-2:] == [("distilled", 0), ("distilled", 1)]


def recorded(folder, game, policy, lengths):
    """A dataset of that player: episodes of training seeds, two a shard."""
    with Recorder(folder, game, policy=policy, episodes_per_shard=2) as recorder:
        for i, length in enumerate(lengths):
            recorder.add(episode(length, seed=10 * i + 2))
    return folder


@pytest.fixture
def random_play(tmp_path, game):
    return recorded(tmp_path / "random", game, StickyRandom(3).name, [10, 10])


@pytest.mark.parametrize("policy", ["agent(take_cover, updates=3, sampled)", "ppo(fast, seed=0)"])
def test_who_played_the_data_plays_on_held_out_seeds(policy, random_play, tmp_path, game):
    learned = recorded(tmp_path / "learned", game, policy, [10])
    assert (player_of((random_play,)), player_of((learned,)), player_of((random_play, learned))) == (
        "random",
        "agent",
        "agent",
    )
    assert bench_of(tmp_path, "noise", data=(random_play,), agent=tmp_path).players == ("random",)
    assert bench_of(tmp_path, "noise", data=(learned,), player="random").players == ("random",)
    with pytest.raises(ValueError, match=r"needs an agent that plays take_cover: .* or let --player random play"):
        bench_of(tmp_path, "noise", data=(learned,)).check()


def test_players_are_compared_on_as_many_frames(tmp_path, game):
    short = Corpus.open([recorded(tmp_path / "short", game, "random", [9] * 4)])
    long = Corpus.open([recorded(tmp_path / "long", game, "agent", [19] * 8)])
    bounded = alike({"random": short, "agent": long})
    assert bounded["random"] == short and short.num_frames("train") == 40 == bounded["agent"].num_frames("train")
    assert alike({"agent": long}) == {"agent": long}


def test_data_of_another_game_than_the_checkpoints_are_refused(random_play, tmp_path, game):
    other = replace(game, frame_skip=8)
    with pytest.raises(ValueError, match=r"a game with the frame skip 8, .*random has 4: give checkpoint and data of"):
        holding(bench_of(tmp_path, "noise", checkpoint="mine", data=(random_play,)), other).check()


def test_what_is_played_is_the_checkpoints_game(tmp_path, game, tiny_world_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = AblateConfig(study="noise", checkpoint=str(tiny_world_folder))
    other = replace(game, scenario="defend_the_center", frame_skip=2, resolution=(240, 320))
    collection = holding(bench_of(tmp_path, "noise", checkpoint="mine"), other)._collection("random")
    assert (collection.scenario, collection.frame_skip, collection.resolution) == ("defend_the_center", 2, (240, 320))
    with pytest.raises(ValueError, match="are of 'take_cover', not 'basic': leave out --scenario"):
        ablate(replace(config, scenario="basic"))


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
        "note": "Mind the gap",
        "paper": "it does",
        "frames": {"with": 12_000, "without": 12_000},
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
    assert "| with | 25.00 | 30.00 | 24.00 | 24.00 | 24.00 | 50 % | 1.5 | 12,000 |" in text and "Mind the gap." in text
    assert "Not finished: without. Run the command again to go on." in text
    assert "copying the last frame gives 23.00 dB" in text and "`neural-env ablate noise`" in text
    assert json.loads((tmp_path / "result.json").read_text()) == result()
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_on_the_terminal_every_arm_has_a_column_and_no_figure_is_cut():
    other = {**SCORES, "psnr": 26.0}
    two = result(arms={"with": {"0": {"agent": SCORES}}, "without": {"0": {"agent": other}}})
    console = Console(width=60, record=True, file=StringIO())
    console.print(table(two))
    lines = [line.split() for line in console.export_text().replace("│", " ").replace("┃", " ").splitlines()]
    assert ["with", "without"] in lines and ["PSNR", "25.00", "26.00"] in lines
    assert ["training", "frames", "12,000", "12,000"] in lines


def test_several_seeds_give_a_mean_and_half_their_spread():
    other = {**SCORES, "psnr": 26.0}
    both = result(seeds=[0, 1], arms={"with": {"0": {"agent": SCORES}, "1": {"agent": other}}})
    assert rows(both)[0][1] == "25.50 ± 0.50"
    assert "Not finished" not in markdown(both)


def test_what_is_not_trained_is_scored_once_and_shown_without_a_spread():
    once = result(seeds=[0, 1], frames={"with": 0}, arms={"with": {"0": {"agent": SCORES}}})
    assert rows(once)[0][1] == "25.00" and "Not finished" not in markdown(once)
    assert "training frames" not in columns(once)


def test_several_players_have_columns_of_their_own():
    two = result(players=["agent", "random"], arms={"with": {"0": {"agent": SCORES, "random": SCORES}}})
    assert len(columns(two)) == len(rows(two)[0]) == 15
    assert "PSNR, random's play" in columns(two)


# Studies.


def test_the_share_where_the_sampler_begins_changes_nothing_else_of_the_objective():
    chosen = EDM(sigma_last=2.0, eta=1.0)
    halves, none, _ = (arm.model(replace(TINY, objective=chosen, num_steps=2)) for arm in STUDIES["first"].arms)
    assert halves == replace(TINY, objective=chosen, num_steps=2)
    assert none.objective == replace(chosen, first=0.0)
    assert STUDIES["first"].arms[1].model(replace(TINY, objective=VPrediction(), num_steps=4)) == replace(
        TINY, objective=EDM(first=0.0), num_steps=1
    )


# The command.


class FakeWorld(nnx.Module):
    """Weights and what they are run with."""

    def __init__(self, weights):
        self.kernel = nnx.Param(jnp.full(2, weights))
        self.objective, self.num_steps = EDM(), 1


class FakeBench:
    """Counts what is trained and scored."""

    trained: ClassVar[list] = []
    stop_after = 99
    agent = "its weights"
    weights = 1.0

    def __init__(self, given, sizes, study, folder, deadline):
        self.study, self.sizes, self.players = study, sizes, ("agent",)

    def check(self):
        pass

    def frames(self, arm):
        return 1_000

    def trainings(self, seeds):
        return ((arm, seed) for seed in seeds for arm in self.study.arms)

    def examined(self):
        return asdict(self.sizes.exam) | {"players": self.players, "agent": self.agent}

    def world(self, arm, seed):
        if len(self.trained) >= self.stop_after:
            raise OutOfTime(f"{arm.name} is not trained")
        self.trained.append((arm.name, seed))
        return FakeWorld(self.weights), [f"denoiser-{arm.name}"]

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


@pytest.mark.parametrize("changes", [{"weights": 2.0}, {"agent": "others"}])
def test_an_arm_is_scored_again_when_its_weights_or_who_plays_are_others(changes, fake, tmp_path, monkeypatch):
    config = AblateConfig(study="noise", out=tmp_path, horizon=8, arms=("with", "without"))
    ablate(config)
    ablate(config)
    assert len(fake) == 2
    for name, value in changes.items():
        monkeypatch.setattr(FakeBench, name, value)
    ablate(config)
    assert len(fake) == 4


def test_an_arm_is_scored_again_when_it_is_run_in_another_way(fake, tmp_path, monkeypatch):
    config = AblateConfig(study="noise", out=tmp_path, horizon=8, arms=("with", "without"))
    ablate(config)
    arms = tuple(replace(arm, dials={"context_noise": 0.1}) for arm in STUDIES["noise"].arms)
    monkeypatch.setitem(STUDIES, "noise", replace(STUDIES["noise"], arms=arms))
    ablate(config)
    assert len(fake) == 4


SMOKED = {  # arms of each study, and what is trained for them that those before hadn't
    "objective": (("EDM, 4 steps", "v-prediction, 1 step"), ["autoencoder", "denoiser", "denoiser"]),
    "noise": (("with", "evenly spread, as GameNGen's"), ["denoiser"]),
    "level": (("0", "0.4"), []),
    "steps": ((), ["distill"]),
    "rollout": ((), ["denoiser", "rollout"]),
    "decoder": ((), ["decoder"]),
    "memory": (("4 frames", "pooled"), ["denoiser", "denoiser"]),  # where there is a longer past
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smoke_runs_train_every_part_once_and_leave_whole_reports(tmp_path):
    def made():
        return {path.parent.name for path in (tmp_path / "parts").glob("*/weights.safetensors")}

    for study, (arms, trained) in SMOKED.items():
        before, config = made(), AblateConfig(study=study, arms=arms, out=tmp_path, smoke=True)
        found = ablate(config)
        assert sorted(name.split("-")[0] for name in made() - before) == trained
        forced = [scores["0"]["random"]["psnr"] for scores in found["arms"].values()]
        assert len(set(forced)) == len(forced) > 1 and min(forced) > 10
        assert len(found["frames"]) == len(forced) and min(found["frames"].values()) > 500
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*/weights.safetensors")}
    assert ablate(config)["arms"] == found["arms"]  # nothing is trained or measured again
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
