from dataclasses import FrozenInstanceError, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.conditioning import CrossAttention
from neural_env.world.model import PRESETS, WorldModel
from neural_env.world.parameters import parameters
from neural_env.world.shortcut import Shortcut
from neural_env.world.velocity import VPrediction

BATCH = 2


@pytest.fixture(scope="module")
def past(tiny_world):
    context = jax.random.normal(jax.random.key(0), (BATCH, tiny_world.context, *tiny_world.latent_shape))
    return context, jnp.array([[0, 1, 2, 1], [1, 0, 0, 2]], jnp.int32)


@pytest.fixture(scope="module")
def imagine(tiny_world, past):
    @partial(jax.jit, static_argnames="num_steps")
    def imagine(key, actions, context_noise, num_steps):
        return tiny_world.imagine(key, past[0], actions, num_steps=num_steps, context_noise=context_noise)

    def call(seed=0, actions=past[1], context_noise=0.0, num_steps=1):
        return imagine(jax.random.key(seed), actions, context_noise, num_steps)

    return call


def test_frames_become_latents_and_latents_become_frames(tiny_world):
    frames = np.random.default_rng(0).integers(256, size=(BATCH, 120, 160, 3), dtype=np.uint8)
    latent = tiny_world.encode(jnp.asarray(frames))
    assert latent.shape == (BATCH, 15, 20, 4) == (BATCH, *tiny_world.latent_shape) and latent.dtype == jnp.float32
    decoded = tiny_world.decode(latent)
    assert decoded.shape == frames.shape and decoded.dtype == jnp.uint8


def test_equal_keys_imagine_equal_frames_and_others_differ(imagine):
    assert (imagine(seed=0) == imagine(seed=0)).all()
    assert (imagine(seed=0) != imagine(seed=1)).any()


def test_the_action_taken_changes_what_is_imagined(imagine, past):
    other = past[1].at[0, -1].set(2)
    difference = jnp.abs(imagine() - imagine(actions=other)).max(axis=(1, 2, 3))
    assert difference[0] > 1e-3 and difference[1] == 0


def test_steps_and_context_noise_change_what_is_imagined(imagine):
    assert jnp.abs(imagine() - imagine(num_steps=3)).max() > 1e-3
    assert jnp.abs(imagine() - imagine(context_noise=0.5)).max() > 1e-3


@pytest.fixture(scope="module")
def untrained(game, past):
    """How far what an untrained world imagines is from the last frame."""
    world = jax.jit(lambda: WorldModel(PRESETS["tiny"], game, rngs=nnx.Rngs(0)))()

    @jax.jit
    def distance(context_noise):
        latent = world.imagine(jax.random.key(0), *past, num_steps=1, context_noise=context_noise)
        return (latent - past[0][:, -1]).std()

    return distance


def test_an_untrained_world_stands_still(untrained):
    assert untrained(0.0) < 0.1  # what shows of the noise: 1/20 of a deviation


def test_the_context_is_corrupted_before_the_model_sees_it(untrained):
    np.testing.assert_allclose(untrained(0.5), 0.5, rtol=0.05)


def test_variables_are_read_off_the_last_transition(tiny_world, past):
    context, actions = past
    read = tiny_world.read_variables(context, actions[:, :-1])
    foretold = tiny_world.foretell(context[:, :-1].repeat(2, axis=1)[:, -4:], actions[:, [0, 0, 1, 2]], context[:, -1])
    assert read.shape == (BATCH, 1)
    np.testing.assert_allclose(read, foretold.variables, rtol=1e-5)


def test_a_world_is_a_pytree_of_arrays_and_a_description(tiny_world):
    leaves, tree = jax.tree.flatten(tiny_world)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves) and len(leaves) > 40
    copy = jax.tree.unflatten(tree, leaves)
    assert (copy.objective, copy.context, copy.latent_shape) == (tiny_world.objective, 4, (15, 20, 4))


def test_a_screen_that_patches_do_not_tile_is_refused(game):
    with pytest.raises(ValueError, match="multiple of the patch size"):
        WorldModel(PRESETS["tiny"], replace(game, resolution=(100, 160)), rngs=nnx.Rngs(0))


def test_presets_cannot_be_changed_by_accident():
    with pytest.raises(FrozenInstanceError):
        PRESETS["tiny"].unet.blocks = 3
    assert len({PRESETS["tiny"], PRESETS["small"]}) == 2


@pytest.fixture(scope="module")
def guided(make_guided_world, past):
    world = make_guided_world()

    @partial(jax.jit, static_argnames="num_steps")
    def imagine(guidance, past, num_steps=1):
        return world.imagine(jax.random.key(0), *past, num_steps=num_steps, guidance=guidance)

    return lambda guidance, past=past, num_steps=1: imagine(guidance, past, num_steps)


def test_guidance_goes_from_the_dream_without_a_past_through_the_one_with_it_and_on(guided):
    without, with_past, beyond = guided(0.0), guided(1.0), guided(2.5)
    assert jnp.abs(with_past - without).max() > 0.01
    np.testing.assert_allclose(beyond, without + 2.5 * (with_past - without), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(with_past, guided(None), rtol=1e-4, atol=1e-5)


def test_without_a_past_the_whole_of_it_is_gone_and_the_actions_are_not(guided, past):
    context, actions = past
    without = guided(0.0)
    np.testing.assert_allclose(guided(0.0, (context[:, ::-1] * 3, actions)), without, rtol=1e-4, atol=1e-5)
    assert jnp.abs(guided(0.0, (context, actions.at[:, -1].set(0))) - without).max() > 1e-4


def test_guidance_is_one_call_of_the_network_and_none_at_weight_one(make_guided_world, past, monkeypatch):
    world, sizes = make_guided_world(), []
    original = type(world.unet).__call__

    def spy(self, x, *args):
        jax.debug.callback(lambda: sizes.append(len(x)))
        return original(self, x, *args)

    monkeypatch.setattr(type(world.unet), "__call__", spy)
    imagine = jax.jit(lambda weight: world.imagine(jax.random.key(0), *past, num_steps=2, guidance=weight))
    imagine(1.0).block_until_ready()
    jax.effects_barrier()
    assert sizes == [BATCH, BATCH]
    sizes.clear()
    imagine(1.5).block_until_ready()
    jax.effects_barrier()
    assert sizes == [2 * BATCH, 2 * BATCH]


def test_a_world_that_always_had_a_past_has_no_parameters_for_its_absence(tiny_world, make_guided_world, past):
    names, more = (set(parameters(world)) for world in (tiny_world, make_guided_world()))
    assert more - names == {"unet.conditioner.no_past"}
    levels = jnp.zeros((BATCH, 4))
    with pytest.raises(ValueError, match="context_dropout"):
        tiny_world.network(*past, levels, jnp.array([True, False]))(past[0][:, -1], jnp.ones(BATCH))


def small_world(game, **changes):
    model = replace(PRESETS["tiny"], **changes)
    return jax.jit(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))()


@pytest.mark.parametrize("objective", [VPrediction(), Shortcut()])
def test_a_world_of_another_objective_dreams_in_few_steps(game, past, perturbed, objective):
    world = perturbed(small_world(game, objective=objective))
    imagine = jax.jit(lambda key: world.imagine(key, *past, num_steps=2))
    first, again, other = (imagine(jax.random.key(seed)) for seed in (0, 0, 1))
    assert first.shape == (BATCH, *world.latent_shape) and np.isfinite(first).all()
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("objective", [VPrediction(), Shortcut()])
def test_guidance_goes_with_every_objective(game, past, perturbed, objective):
    unet = replace(PRESETS["tiny"].unet, context_dropout=0.1)
    world = perturbed(small_world(game, objective=objective, unet=unet))
    imagine = jax.jit(lambda weight: world.imagine(jax.random.key(0), *past, num_steps=1, guidance=weight))
    without, with_past, beyond = map(imagine, (0.0, 1.0, 2.5))
    assert jnp.abs(with_past - without).max() > 0.01
    np.testing.assert_allclose(beyond, without + 2.5 * (with_past - without), rtol=1e-2, atol=1e-3)


def test_a_world_that_remembers_one_frame_dreams_and_reads_its_variables(game, perturbed):
    world = perturbed(small_world(game, unet=replace(PRESETS["tiny"].unet, context=1)))
    context = jax.random.normal(jax.random.key(0), (BATCH, 1, *world.latent_shape))
    following = world.imagine(jax.random.key(0), context, jnp.ones((BATCH, 1), jnp.int32), num_steps=1)
    assert following.shape == (BATCH, *world.latent_shape)
    still = world.read_variables(context, jnp.zeros((BATCH, 0), jnp.int32))
    twice = world.read_variables(context.repeat(2, axis=1), jnp.zeros((BATCH, 1), jnp.int32))
    np.testing.assert_allclose(still, twice, rtol=1e-5)


def test_the_gamengen_preset_is_the_papers_recipe(game):
    model = PRESETS["gamengen"]
    world = nnx.eval_shape(lambda: WorldModel(model, game, rngs=nnx.Rngs(0)))
    assert (world.context, world.context_dropout, world.num_steps) == (64, 0.1, 4)
    assert world.objective == VPrediction() and model.unet.conditioning == CrossAttention()
    imagined = nnx.eval_shape(
        lambda world: world.imagine(
            jax.random.key(0),
            jnp.zeros((1, 64, *world.latent_shape)),
            jnp.zeros((1, 64), jnp.int32),
            num_steps=4,
            guidance=1.5,
        ),
        world,
    )
    assert imagined.shape == (1, 15, 20, 16)


def test_a_world_takes_at_least_one_step():
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        replace(PRESETS["tiny"], num_steps=0)
