import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.training import rollout
from neural_env.training.latents import LatentData, Windows
from neural_env.training.rollout import RolloutConfig, RolloutStage
from neural_env.world.parameters import parameters, replaced

GRID, CHANNELS, CONTEXT, ACTIONS, FRAMES = (15, 20), 4, 4, 3, 3
OWN = 1000.0  # added to a latent by whoever dreams it


@pytest.fixture(scope="module")
def data():
    """Two episodes whose frames know the time, in channel 0; the first one ends by a termination."""
    lengths = (30, 12)
    time = np.concatenate([np.arange(length) for length in lengths])
    latents = np.random.default_rng(0).standard_normal((len(time), *GRID, CHANNELS)).astype(np.float16)
    latents[..., 0] = time[:, None, None]
    ends = np.zeros(len(time), np.uint8)
    ends[lengths[0] - 2] = 1
    starts = np.cumsum((0, *lengths))
    zeros = np.zeros((len(time), 1), np.float32)
    return LatentData(latents, (time % ACTIONS).astype(np.int32), zeros[:, 0], zeros, ends, starts)


def windows(data, ahead=FRAMES):
    return Windows(data, CONTEXT, 0, pictures_only=True, ahead=ahead)


def test_a_window_that_goes_on_stays_within_its_episode_and_before_its_termination(data):
    index = windows(data).index
    batch = windows(data).gather(index)
    time = np.concatenate([batch["context"], batch["following"]], axis=1)[:, :, 0, 0, 0]
    assert time.shape[1] == CONTEXT + FRAMES and (np.diff(time, axis=1) == 1).all()
    assert (batch["following"][:, 0] == batch["latent"]).all()
    assert (batch["steered"] == time[:, CONTEXT - 1 : -1] % ACTIONS).all()
    first, second = time[index < 30, -1], time[index >= 30, -1]
    assert first.max() == 28 and second.max() == 11  # the frame after a termination is no picture


def test_windows_without_more_frames_are_as_ever(data):
    assert windows(data, ahead=1).gather(windows(data).index).keys() == data.gather(np.array([5]), CONTEXT).keys()
    with pytest.raises(ValueError, match="no episode is longer than the context of 4 frames and 29 more: collect"):
        windows(data, ahead=30)


def on_device(batch):
    return {name: jnp.asarray(array) for name, array in batch.items()}


class Spied:
    """A world, its denoiser and its objective at once, which note what they are given."""

    context_dropout = 0.0
    num_steps = 1
    autoencoder = None

    def __init__(self):
        self.objective = self

    def imagine(self, key, context, actions, *, num_steps):
        return context[:, -1].at[..., 0].add(1 + OWN * (context[:, -1, ..., 0] < OWN))

    def bound(self, context, actions, levels, present):
        self.context, self.actions, self.levels = context, actions, levels

    def loss(self, network, key, x0, weight):
        self.target = x0
        return jnp.arange(len(x0), dtype=jnp.float32)


@pytest.fixture
def spied(data, monkeypatch):
    monkeypatch.setattr(rollout, "with_unet", lambda world, unet: unet)
    monkeypatch.setattr(rollout, "channel_weight", lambda autoencoder, latent: jnp.ones(CHANNELS))

    def spy(forced, size=8):
        world = Spied()
        stage = RolloutStage(world, windows(data), windows(data).evenly(2, 1), RolloutConfig(FRAMES, forced))
        batch = on_device(stage.batch(0, size))
        _, logs = stage.loss(world, batch, jax.random.key(0))
        return world, batch, logs

    return spy


def shaped(array, size=8):
    return np.asarray(array).reshape(size, FRAMES, *array.shape[1:])


def test_the_context_at_each_depth_is_the_true_past_and_as_many_own_frames(spied):
    world, batch, _ = spied(forced=0.0)
    time = shaped(world.context)[..., 0, 0, 0]
    present = batch["context"][:, -1, 0, 0, 0]
    for depth in range(FRAMES):
        own = np.arange(CONTEXT) >= CONTEXT - depth
        expected = present[:, None] + np.arange(CONTEXT) + depth - CONTEXT + 1 + OWN * own
        assert (time[:, depth] == expected).all()
        assert (shaped(world.target)[:, depth, 0, 0, 0] == present + depth + 1).all()
        assert (shaped(world.actions)[:, depth] == (expected - OWN * own) % ACTIONS).all()
    assert (world.levels == 0).all()  # own frames come as in play


def test_some_windows_are_teacher_forced_with_noise_in_their_context(spied):
    world, _, _ = spied(forced=0.5, size=64)
    noisy = shaped(world.levels, 64).max(axis=(1, 2)) > 0
    assert 0.25 < noisy.mean() < 0.75
    own = shaped(world.context, 64)[..., 0, 0, 0].max(axis=(1, 2)) > OWN / 2
    assert (own == ~noisy).all()


def test_the_logs_say_what_drift_costs(spied):
    _, _, logs = spied(forced=0.0)
    first = FRAMES * np.arange(8).mean()  # the loss of an item is its number
    assert (float(logs["loss_first"]), float(logs["loss_last"])) == (first, first + FRAMES - 1)


@pytest.fixture(scope="module")
def stage(tiny_world, data):
    return RolloutStage(tiny_world, windows(data), windows(data, 16).evenly(2, 2), RolloutConfig(FRAMES, 0.25))


def test_no_gradient_passes_through_own_frames(stage, tiny_world):
    unet, batch, key = tiny_world.unet, on_device(stage.batch(0, 2)), jax.random.key(0)

    def gradient(loss):
        return jax.jit(jax.grad(lambda params: loss(replaced(unet, params))))(parameters(unet))

    whole = gradient(lambda module: stage.loss(module, batch, key)[0])
    dreamed = jax.jit(stage._dream)(unet, batch, jax.random.split(key, 6)[0])
    fixed = RolloutStage.__new__(RolloutStage)
    fixed.__dict__ = {**vars(stage), "_dream": lambda module, batch, key: dreamed}
    constant = gradient(lambda module: fixed.loss(module, batch, key)[0])
    for name, value in whole.items():
        np.testing.assert_allclose(value, constant[name], rtol=1e-2, atol=1e-5)
        assert np.isfinite(value).all()
    assert max(jnp.abs(value).max() for value in whole.values()) > 1e-3


def test_the_dream_is_validated_at_every_horizon_that_the_windows_reach(stage, tiny_world):
    scores = stage.validate(tiny_world.unet)
    steps = {f"psnr_step_{step}{kind}" for step in (1, 8, 16) for kind in ("", "_copy_first")}
    assert scores.keys() == steps and np.isfinite(list(scores.values())).all()
    assert scores["psnr_step_1"] != scores["psnr_step_16"]


def test_a_dream_is_the_worlds_own_frames_one_after_the_other(tiny_world, data):
    batch = windows(data).gather(windows(data).index[:2])
    key = jax.random.key(3)
    dreamed = jax.jit(rollout.dream)(tiny_world, key, batch["context"], batch["steered"], batch["actions"])
    context, actions = jnp.asarray(batch["context"]), jnp.asarray(batch["actions"])
    imagine = jax.jit(lambda *args: tiny_world.imagine(*args, num_steps=1))
    for i in range(FRAMES):
        latent = imagine(jax.random.fold_in(key, i), context, actions)
        np.testing.assert_allclose(dreamed[:, i], latent, rtol=1e-3, atol=1e-3)
        context = jnp.concatenate([context[:, 1:], latent[:, None]], axis=1)
        if i + 1 < FRAMES:
            actions = jnp.concatenate([actions[:, 1:], batch["steered"][:, i + 1, None]], axis=1)


@pytest.mark.parametrize("frames", [1, 17])
def test_a_window_of_no_own_frames_or_too_many_is_refused(frames):
    with pytest.raises(ValueError, match=f"frames must be 2 to 16, got {frames}"):
        RolloutConfig(frames=frames)


def test_windows_that_are_all_teacher_forced_are_refused():
    with pytest.raises(ValueError, match=r"share of the windows in \[0, 1\), got 1.0"):
        RolloutConfig(forced=1.0)
