from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from neural_env.training import distill
from neural_env.training.distill import DistillConfig, DistillStage
from neural_env.world.diffusion import EDM
from neural_env.world.distilled import Distilled
from neural_env.world.parameters import parameters, replaced

MEAN, STD = 0.3, 0.6  # of the Gaussian next frame whose flow is known
SHAPE = (4, 6, 2)


class Affine(nnx.Module):
    """A network that can't do more than stretch and shift: enough to draw a Gaussian in one step."""

    def __init__(self):
        self.gain, self.shift = nnx.Param(jnp.zeros(())), nnx.Param(jnp.zeros(()))

    def bound(self, context, actions, levels, present=None):
        return lambda x, c_noise, c_step=None: self.gain[...] * x + self.shift[...]


class Gaussian:
    """A teacher's world that knows of its next frame that it is N(MEAN, STD^2), or, guided by w, N(w MEAN, STD^2)."""

    objective = EDM(eta=0.5)
    latent_shape = SHAPE
    autoencoder = None

    def __init__(self, context_dropout=0.0):
        self.context_dropout = context_dropout

    def network(self, context, actions, levels, weight=1.0):
        def network(x, c_noise):  # F whose D is the optimal denoiser
            s = jnp.exp(4 * c_noise)[:, None, None, None]
            noised = x * jnp.sqrt(s**2 + 1)
            optimal = (STD**2 * noised + s**2 * weight * MEAN) / (STD**2 + s**2)
            return (optimal - noised / (s**2 + 1)) * jnp.sqrt(s**2 + 1) / s

        return network

    guided = network


class NoWindows:
    """Windows of nothing in particular."""

    def batch(self, step, size):
        return {"context": np.zeros((size, 2, *SHAPE), np.float32), "actions": np.zeros((size, 2), np.int32)}

    def evenly(self, size, batches):
        return [{**self.batch(0, size), "latent": np.zeros((size, *SHAPE), np.float32)}] * batches


def on_device(batch):
    return {name: jnp.asarray(array) for name, array in batch.items()}


@pytest.fixture
def student_of(monkeypatch):
    """Distils a world into an affine network; returns samples of it."""
    monkeypatch.setattr(distill, "channel_weight", lambda autoencoder, latent: jnp.ones(SHAPE[-1]))

    def learn(world):
        stage = DistillStage(world, NoWindows(), NoWindows(), DistillConfig(teacher_steps=32, guidance=2.0))
        module, adam = Affine(), optax.adam(0.05)
        batch = on_device(stage.batch(0, 16))

        def update(carry, key):
            params, state = carry
            gradient = jax.grad(lambda p: stage.loss(replaced(module, p), batch, key)[0])(params)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        params = parameters(module)
        keys = jax.random.split(jax.random.key(0), 400)
        (params, _), _ = jax.jit(lambda carry: jax.lax.scan(update, carry, keys))((params, adam.init(params)))
        network = replaced(module, params).bound(None, None, None)
        return Distilled(teacher=world.objective).sample(network, jax.random.key(1), (500, *SHAPE), 1)

    return learn


def flown(mean):
    """Where the flow of N(mean, STD^2) takes a start of mean 0, which is a little short of the mean."""
    return mean * (1 - STD / np.hypot(STD, EDM().sigma_max))


def test_a_student_draws_in_one_step_what_its_teacher_draws_in_many(student_of):
    drawn = student_of(Gaussian())
    assert abs(drawn.mean() - flown(MEAN)) < 0.015
    assert abs(drawn.std() / STD - 1) < 0.12  # 32 Euler steps fall short of the deviation by 9 %
    noise = jax.random.normal(jax.random.key(1), drawn.shape)
    assert np.corrcoef(drawn.ravel(), noise.ravel())[0, 1] > 0.999  # equal noise, equal sample
    untaught = Gaussian.objective.as_flow().sample(Gaussian().network(0, 0, 0), jax.random.key(1), (500, *SHAPE), 1)
    assert untaught.std() < 0.05 * STD  # the mean of all that may happen


def test_a_teacher_that_knows_dreams_without_a_past_teaches_with_guidance(student_of):
    assert abs(student_of(Gaussian(context_dropout=0.1)).mean() - flown(2.0 * MEAN)) < 0.015


@pytest.fixture(scope="module")
def windows(tiny_world):
    class Few:
        def batch(self, step, size):
            rng = np.random.default_rng(step)
            past = rng.standard_normal((size, 4, *tiny_world.latent_shape), np.float32)
            actions = rng.integers(3, size=(size, 4), dtype=np.int32)
            return {"context": past, "actions": actions, "latent": past[:, -1]}

        def evenly(self, size, batches):
            return [self.batch(step, 2) for step in range(2)]

    return Few()


def test_student_and_teacher_are_compared_on_the_same_noise(tiny_world, windows, perturbed):
    stage = DistillStage(tiny_world, windows, windows, DistillConfig(teacher_steps=2))
    same = stage.validate(tiny_world.unet)
    names = {"psnr", "psnr_teacher", "psnr_teacher_one_step", "psnr_to_teacher", "spread", "spread_teacher"}
    assert same.keys() == names and np.isfinite(list(same.values())).all()
    assert same["psnr"] == same["psnr_teacher_one_step"]  # a student that learned nothing
    assert same["psnr_to_teacher"] > stage.validate(perturbed(tiny_world.unet, scale=0.3))["psnr_to_teacher"]


def test_the_loss_reaches_every_weight_of_the_student(tiny_world, windows):
    stage = DistillStage(tiny_world, windows, windows, DistillConfig(teacher_steps=2))
    batch = on_device(stage.batch(0, 2))
    assert batch.keys() == {"context", "actions"}
    loss = jax.jit(jax.grad(lambda p: stage.loss(replaced(tiny_world.unet, p), batch, jax.random.key(0))[0]))
    gradient = loss(parameters(tiny_world.unet))
    assert all(jnp.abs(value).max() > 0 for name, value in gradient.items() if "kernel" in name)


def test_a_student_is_no_teacher(tiny_world, windows):
    world = nnx.merge(*nnx.split(tiny_world))
    world.objective = Distilled(teacher=tiny_world.objective)
    with pytest.raises(ValueError, match="this world is distilled already: distil its teacher"):
        DistillStage(world, windows, windows, DistillConfig())


def test_what_teaches_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 2 steps to teach one, got 1"):
        DistillConfig(teacher_steps=1)
    with pytest.raises(ValueError, match=r"guidance must be at least 1, which is none, got 0\.5"):
        replace(DistillConfig(), guidance=0.5)
