import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import neural_env
from neural_env.cli import main
from neural_env.data.collect import CollectConfig, collect
from neural_env.training.danger import DangerStage, latents_of, load_danger, nearness
from neural_env.training.latents import LatentData, Windows, encoder_fingerprint
from neural_env.training.loop import LoopConfig, train
from neural_env.training.run import AutoencoderRun, DangerRun, train_autoencoder, train_danger
from neural_env.world.danger import DISCOUNT, REACH, Danger

GRID, CHANNELS, CONTEXT, ACTIONS = (15, 20), 4, 4, 3


def health_data(games, ends):
    """Episodes of these healths; latent channel 0 shows how many steps are left until the next loss, up to 5."""
    health = np.concatenate(games).astype(np.float32)
    starts = np.cumsum([0, *map(len, games)])
    terminated = np.zeros(len(health), np.uint8)
    terminated[starts[1:] - 2] = ends
    data = LatentData(
        np.zeros((len(health), *GRID, CHANNELS), np.float16),
        np.zeros(len(health), np.int32),
        np.zeros(len(health), np.float32),
        health[:, None],
        terminated,
        starts,
    )
    near = nearness(data, 0)
    data.latents[..., 0] = np.where(near > DISCOUNT**5.5, 3 * near - 1.5, -2)[:, None, None]
    return data


def test_harm_is_the_nearer_the_sooner_it_comes_and_none_after_it_came():
    near = nearness(health_data([[100, 100, 80, 80, 80]], [0]), 0)
    np.testing.assert_allclose(near, [DISCOUNT, 1, 0, 0, 0], rtol=1e-6)


def test_healing_is_no_harm():
    assert not nearness(health_data([[50, 50, 75, 75]], [0]), 0).any()


def test_death_is_harm_though_the_game_shows_no_frame_after_it():
    near = nearness(health_data([[100, 100, 100, 100]], [1]), 0)
    np.testing.assert_allclose(near, [DISCOUNT**2, DISCOUNT, 1, 0], rtol=1e-6)


def test_harm_of_another_episode_is_none():
    near = nearness(health_data([[100, 100, 100], [40, 40, 20]], [0, 0]), 0)
    np.testing.assert_allclose(near, [0, 0, 0, DISCOUNT, 1, 0], rtol=1e-6)


def test_what_is_further_than_its_reach_is_no_danger():
    near = nearness(health_data([[100] * (REACH + 3) + [90]], [0]), 0)
    assert (near[:3] == 0).all() and (near[3:-1] > 0).all()


@pytest.fixture(scope="module")
def stage():
    rng = np.random.default_rng(0)
    games = [100 - 5 * np.cumsum(rng.random(40) < 0.06) for _ in range(12)]
    data = health_data(games, [0] * 12)
    windows = Windows(data, CONTEXT, 0, pictures_only=False)
    return DangerStage(windows, windows, 0, seed=0)


def test_it_learns_to_read_danger_off_the_picture(stage, tmp_path):
    module = Danger(GRID, CHANNELS, CONTEXT, ACTIONS, rngs=nnx.Rngs(0))
    before = stage.validate(module)
    module, _ = train(stage, module, LoopConfig(steps=60, batch=32, learning_rate=3e-3, warmup=5, ema=0.9), tmp_path)
    after = stage.validate(module)
    assert after["within_4_average_precision"] > 0.9 > before["within_4_average_precision"]
    assert after["error"] < 0.6 * before["error"] and after["mean"] == pytest.approx(after["truth"], abs=0.06)


def test_it_is_not_told_what_will_be_done(stage):
    batch = stage.batch(0, 8)
    assert batch["between"].shape == (8, CONTEXT - 1) and batch["context"].shape[:2] == (8, CONTEXT)


def test_data_without_harm_is_refused():
    data = health_data([[100] * 9], [0])
    windows = Windows(data, CONTEXT, 0, pictures_only=False)
    with pytest.raises(ValueError, match="nobody is hurt in the training data"):
        DangerStage(windows, windows, 0, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_world_folder):
    """A finished training beside a tiny world's auto-encoder."""
    folder = tmp_path_factory.mktemp("danger")
    collect(CollectConfig(out=folder / "data", scenario="take_cover", episodes=12))
    shared = {"data": (folder / "data",), "out": folder / "run", "preset": "tiny"}
    none = LoopConfig(steps=0)
    train_autoencoder(AutoencoderRun(**shared, init_from=str(tiny_world_folder), loop=none))
    train_danger(DangerRun(**shared, loop=LoopConfig(steps=3, batch=8)))
    return folder / "run"


def test_danger_of_a_run_is_danger_of_the_world_that_is_bundled_of_it(tiny_world, make_world, tiny_world_folder):
    """Though a world keeps its weights in bfloat16, and a run to the last bit."""
    kept = neural_env.load(tiny_world_folder).world
    assert encoder_fingerprint(tiny_world.autoencoder) != encoder_fingerprint(kept.autoencoder)
    assert latents_of(tiny_world) == latents_of(kept) != latents_of(make_world(seed=1))


def test_a_run_leaves_what_agents_read(run, tiny_world_folder):
    world = neural_env.load(tiny_world_folder)
    danger = load_danger(run, world)
    contexts = world.starts.latents
    found = jax.jit(lambda module, *args: module(*args))(danger, jax.numpy.asarray(contexts), world.starts.actions)
    assert found.shape == (len(contexts),) and (found > 0).all() and (found < 1).all()
    assert json.loads((run / "danger" / "stage.json").read_text())["steps"] == 3


def test_another_worlds_latents_are_refused(run):
    with pytest.raises(ValueError, match="another auto-encoder than the world's: train it on"):
        load_danger(run, neural_env.load("take_cover"))


def test_a_run_without_the_stage_is_refused(tmp_path, tiny_world_folder):
    with pytest.raises(ValueError, match="has no danger stage: run neural-env train danger"):
        load_danger(tmp_path, neural_env.load(tiny_world_folder))


def test_a_game_without_health_is_refused(tmp_path, capsys):
    data = tmp_path / "data"
    collect(CollectConfig(out=data, scenario="basic", episodes=10))
    assert main(["train", "danger", "--data", str(data), "--out", str(Path(tmp_path / "run"))]) == 1
    assert "danger is read off the variable health" in capsys.readouterr().err
