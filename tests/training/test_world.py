import itertools
import json
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from neural_env.agents.player import FORMAT
from neural_env.data.mixture import Mixture
from neural_env.game import GameConfig
from neural_env.training import loop
from neural_env.training import world as worlds
from neural_env.training.run import DenoiserRun, OutcomeRun
from neural_env.training.world import SHARES, WorldRun, make_world

STEPS = list(SHARES)


@pytest.fixture
def made(monkeypatch):
    """What the stages were asked to make, in order; they make it at once, at 100 updates a second."""
    asked = []

    def trains(name):
        def train(run):
            asked.append((name, run.loop.steps))
            folder = run.out / name
            folder.mkdir(parents=True, exist_ok=True)
            record = folder / "stage.json"
            first = json.loads(record.read_text())["steps"] if record.exists() else 0
            steps = min(run.loop.steps, first + 100)
            record.write_text(json.dumps({"steps": steps}))
            lines = [{"split": "train", "step": first + i * 10, "time": 0.1 * i} for i in range(1, 11)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

        return train

    stages = {name: (config, trains(name)) for name, (config, _) in worlds._TRAIN.items()}
    monkeypatch.setattr(worlds, "_TRAIN", stages)
    monkeypatch.setattr(worlds, "collect", lambda config: asked.append((config.out.name, config.episodes)))
    monkeypatch.setattr(worlds, "train_agent", lambda run: asked.append(("agent", run.total_steps)))
    for name in ("bundle", "evaluate"):
        monkeypatch.setattr(worlds, name, lambda config, name=name: asked.append((name, 0)))
    return asked


def agent_of(folder, resolution=(120, 160)):
    """As much of an agent as is read before it plays."""
    game = GameConfig("basic", ("noop",), (), 4, resolution)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"format": FORMAT, "game": asdict(game)}))
    return folder


def run(folder, **changes):
    agent = agent_of(folder / "trained_agent")
    return WorldRun(**{"scenario": "basic", "preset": "tiny", "minutes": 0.1, "out": folder, "agent": agent, **changes})


def done(folder):
    return json.loads((folder / "progress.json").read_text())["done"]


def test_every_step_is_made_once_and_in_order(made, tmp_path):
    assert make_world(run(tmp_path))
    assert done(tmp_path) == [step for step in STEPS if step != "agent"]
    assert list(dict.fromkeys(name for name, _ in made if not name.endswith("_play"))) == STEPS[3:]


def test_updates_are_counted_by_the_measured_speed_and_then_kept(made, tmp_path):
    make_world(run(tmp_path))
    asked = [steps for name, steps in made if name == "denoiser"]
    progress = json.loads((tmp_path / "progress.json").read_text())
    seconds = 0.9 * progress["allowed"]["denoiser"]
    assert asked[0] == worlds._UNKNOWN_STEPS
    assert set(asked[1:]) == {progress["steps"]["denoiser"]}
    assert asked[1] == pytest.approx(100 + 0.95 * 100 * seconds, rel=0.02)


def test_what_a_step_saves_the_later_ones_have(made, tmp_path):
    make_world(run(tmp_path))
    allowed = json.loads((tmp_path / "progress.json").read_text())["allowed"]
    assert allowed["evaluate"] == pytest.approx(6, rel=0.3)  # the others took hardly any time


def test_updates_too_many_for_a_tenth_of_a_second_are_counted(made, tmp_path, monkeypatch):
    maker = worlds._Maker(run(tmp_path, minutes=10.0))
    folder = tmp_path / "run" / "denoiser"
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text('{"steps": 100}')
    monkeypatch.setattr(loop, "time", SimpleNamespace(time=itertools.count(1.7e9, 0.01).__next__))
    with loop.Metrics(folder) as metrics:
        for step in range(10, 110, 10):
            metrics.write(step, "train", {"loss": 1.0})
    left = maker._left("denoiser") - 6
    assert maker._updates_that_fit("denoiser", 0.1) == pytest.approx(100 + 0.95 * 1000 * left, rel=0.05)


@pytest.mark.parametrize(("preset", "screen"), [("tiny", (120, 160)), ("base", (240, 320))])
def test_everything_is_played_at_the_resolution_that_suits_the_preset(made, tmp_path, monkeypatch, preset, screen):
    played = []
    monkeypatch.chdir(tmp_path)
    agent_of(tmp_path / "runs" / "agents" / "basic")
    monkeypatch.setattr(worlds._Maker, "_left", lambda self, name: 0.0)
    for name in ("collect", "train_agent"):
        monkeypatch.setattr(worlds, name, lambda config, name=name: played.append((name, config.resolution)))
    make_world(run(tmp_path, preset=preset, agent=None))
    assert {resolution for _, resolution in played} == {screen}
    assert ("agent" in done(tmp_path)) == (preset == "base")  # the one there is plays at another


def test_the_decoder_learns_last_of_all_that_the_picture_depends_on(made):
    order = list(SHARES)
    assert max(map(order.index, ("autoencoder", "denoiser", "rollout", "distill"))) < order.index("decoder")


def test_the_denoiser_sees_what_leads_to_events_more_often_than_the_game_has_them(made, tmp_path):
    stage = worlds._Maker(run(tmp_path))._stage(DenoiserRun, 10, 1.0)
    assert stage.mixture.events > 0 and stage.mixture.lead > 0
    assert stage.loop.clip > OutcomeRun(data=(), out=tmp_path).loop.clip


def test_a_world_can_begin_as_another_of_its_actions_and_sizes(made, tmp_path, tiny_world_folder):
    maker = worlds._Maker(run(tmp_path, scenario="take_cover", init_from=str(tiny_world_folder)))
    begins = {name: maker._stage(worlds._TRAIN[name][0], 10, 1.0) for name in ("autoencoder", "denoiser", "outcome")}
    assert [stage.init_from for stage in begins.values()] == [str(tiny_world_folder)] * 2 + [None]
    with pytest.raises(ValueError, match=r"has 3 actions, basic has 4: choose another, or begin from nothing"):
        run(tmp_path, init_from=str(tiny_world_folder))
    with pytest.raises(ValueError, match=r"is of other sizes than the preset small"):
        run(tmp_path, scenario="take_cover", preset="small", init_from=str(tiny_world_folder))


def test_a_cpu_reads_as_much_as_it_has_time_to_encode(made, tmp_path):
    assert [run(tmp_path, minutes=float(m)).max_frames for m in (1, 60)] == [2_000, 18_000]
    maker = worlds._Maker(run(tmp_path, minutes=60.0))
    assert maker._stage(OutcomeRun, 10, 1.0).max_frames_per_dataset == 18_000
    assert run(tmp_path, minutes=60.0, max_frames_per_dataset=7).max_frames == 7


def test_a_preset_file_is_known_by_what_it_says(made, tmp_path):
    for name, context in (("one", 2), ("two", 2), ("three", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.json").write_text(json.dumps({"preset": "tiny", "unet": {"context": context}}))
    assert make_world(run(tmp_path, preset=str(tmp_path / "one" / "mine.json")))
    assert make_world(run(tmp_path, preset=str(tmp_path / "two" / "mine.json")))
    with pytest.raises(ValueError, match="holds a run with model"):
        make_world(run(tmp_path, preset=str(tmp_path / "three" / "mine.json")))


def test_a_run_from_before_a_setting_was_there_goes_on_with_its_default(made, tmp_path):
    assert make_world(run(tmp_path))
    progress = json.loads((tmp_path / "progress.json").read_text())
    del progress["run"]["without"]
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    assert make_world(run(tmp_path))


def test_stages_that_are_left_out_are_not_made_and_the_others_share_their_minutes(made, tmp_path):
    assert make_world(run(tmp_path, without=("rollout", "distill")))
    assert [name for name in STEPS if name not in done(tmp_path)] == ["agent", "rollout", "distill"]
    with pytest.raises(ValueError, match="holds a run with without"):
        make_world(run(tmp_path))


def test_a_run_goes_on_with_its_own_mixture_alone(made, tmp_path):
    assert make_world(run(tmp_path, mixture=Mixture(uniform=1.0, kinds=("death",))))
    assert make_world(run(tmp_path, mixture=Mixture(uniform=1.0, kinds=("death",))))
    with pytest.raises(ValueError, match="holds a run with mixture"):
        make_world(run(tmp_path))


def test_killed_anywhere_it_goes_on_there(made, tmp_path, monkeypatch):
    def killed(run):
        raise KeyboardInterrupt

    whole = worlds._TRAIN["outcome"]
    monkeypatch.setitem(worlds._TRAIN, "outcome", (OutcomeRun, killed))
    with pytest.raises(KeyboardInterrupt):
        make_world(run(tmp_path))
    assert done(tmp_path)[-1] == "denoiser"
    monkeypatch.setitem(worlds._TRAIN, "outcome", whole)
    made.clear()
    assert make_world(run(tmp_path))
    assert "denoiser" not in dict(made) and done(tmp_path)[-1] == "evaluate"


def test_a_machine_that_keeps_nothing_goes_on_from_the_carried_files(made, tmp_path):
    where, carried = tmp_path / "here", tmp_path / "carry"
    slices = 0
    while not make_world(run(where, slice_minutes=1e-6, carry=carried)):
        shutil.rmtree(where)  # the machine is given back
        slices += 1
        assert slices < 200
    assert slices > 5 and done(where)[-1] == "evaluate"
    assert sum(name == "bundle" for name, _ in made) == 1


def test_an_agent_is_trained_where_there_is_none(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worlds._Maker, "_left", lambda self, name: 0.0)
    make_world(run(tmp_path, agent=None))
    assert done(tmp_path) == STEPS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "huge"}, "there is no preset 'huge'"),
        ({"minutes": 0.0}, "minutes must be more than 0"),
        ({"episodes": 3}, "episodes must be at least 12"),
        (
            {"preset": "base", "resolution": (120, 160)},
            r"\(120, 160\) must be a multiple of the patch size 16",
        ),
        ({"resolution": (100, 100)}, "unknown resolution"),
        ({"preset": "base"}, r"plays at \(120, 160\), the world is made at \(240, 320\): give another --agent"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)


def test_a_folder_of_another_world_is_refused(made, tmp_path):
    make_world(run(tmp_path))
    with pytest.raises(ValueError, match="holds a run with scenario 'basic': give another --out"):
        make_world(run(tmp_path, scenario="take_cover"))
