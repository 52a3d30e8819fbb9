"""The worlds that ship: they load, they dream, and they are as true as their stored scores say."""

import doctest
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import neural_env
from neural_env import bundled
from neural_env import checkpoint as checkpoints
from neural_env.evaluation.frames import psnr
from neural_env.evaluation.players import players_of
from neural_env.evaluation.world import Dials, long_dream, real_episodes, seeds_of, teacher_forced, windows_of
from neural_env.wrappers import ShadowMode, shadow_mode

NAMES = checkpoints.bundled_names()
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def world(name):
    return neural_env.load(name)


def test_there_is_a_bundled_world():
    assert "take_cover" in NAMES


def test_a_bundled_world_says_where_it_comes_from(world):
    assert world.scores["command"].startswith("neural-env evaluate world")
    assert world.scores["split"] == "test"
    assert all(len(part["manifest_hash"]) == 64 for part in world.provenance["data"])
    assert set(world.provenance["stages"]) >= {"autoencoder", "denoiser", "outcome"}


def test_bundled_weights_are_small():
    total = sum(path.stat().st_size for path in bundled.BUNDLED.rglob("*") if path.is_file())
    assert total <= 30e6


@pytest.mark.slow
def test_a_bundled_world_passes_gymnasiums_checker(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("neural_env:NeuralDoom-v0", checkpoint=name).unwrapped, skip_render_check=True)


@pytest.mark.slow
def test_a_bundled_world_is_as_true_as_its_scores_say(world):
    # By the players of the stored scores, in turn: what copying the last frame is worth depends on who plays.
    named = world.scores["command"].split("--policies ")[1].split(" --")[0].split()
    players = players_of(world.game, [str(ROOT / name) if "/" in name else name for name in named])
    episodes = real_episodes(world.game, seeds_of("test", 4), players)
    dials = Dials(**world.scores["dials"])
    forced = teacher_forced(world.world, windows_of(episodes, world.model.unet.context), dials)
    stored = world.scores["teacher_forced"]
    # A few episodes of many: the gains over the baselines move less than the levels do.
    for baseline in ("copy_last_psnr", "shuffled_psnr"):
        gain, expected = forced["psnr"] - forced[baseline], stored["psnr"] - stored[baseline]
        assert gain == pytest.approx(expected, abs=0.6)
    assert forced["autoencoder_psnr"] == pytest.approx(stored["autoencoder_psnr"], abs=1.0)


@pytest.mark.slow
def test_a_bundled_dream_neither_fades_nor_freezes_over_200_steps(world):
    """It is blurrier than the game from its first frame on (the README says so); it must not get worse from there."""
    dreamed = long_dream(world.world, world.starts, Dials(**world.scores["dials"]), 200)
    real = real_episodes(world.game, seeds_of("test", 1))[0].frames
    still = np.ptp(real[:, 100:], axis=0) == 0  # of the HUD: all but ammunition, health and face
    assert still.mean() > 0.5

    def sharpness(frames):  # mean step between neighbouring pixels, in grey levels
        return np.abs(np.diff(frames.astype(np.float32), axis=2)).mean()

    assert 0.8 < sharpness(dreamed[-20:]) / sharpness(dreamed[:20]) < 1.25
    assert sharpness(dreamed[-20:]) > 0.5 * sharpness(real)
    error = (dreamed[-1, 100:].astype(np.float32) - real[0, 100:])[still]
    assert np.sqrt(np.square(error).mean()) < 8  # grey levels: 30 dB
    # The player moves: frames differ by more than coding them costs.
    assert psnr(dreamed[:-50], dreamed[50:]).mean() < world.scores["teacher_forced"]["autoencoder_psnr"]


@pytest.mark.slow
def test_shadow_mode_of_a_bundled_world_starts_near_the_truth(name):
    env = ShadowMode(gym.make("neural_env:NeuralDoom-v0", checkpoint=name))
    _, info = env.reset(seed=0)
    assert info["shadow"]["psnr"] > 28  # the real frame through the auto-encoder
    *_, info = env.step(np.int64(1))
    assert info["shadow"]["psnr"] > 20
    env.close()


@pytest.mark.slow
def test_the_example_in_shadow_modes_docstring_runs():
    results = doctest.testmod(shadow_mode)
    assert results.attempted > 0 and results.failed == 0
