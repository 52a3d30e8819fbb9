import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.conditioning import (
    CONTEXT_NOISE_MAX,
    AdaGN,
    ContextNoise,
    CrossAttention,
    Sizes,
    Told,
    bucket,
    corrupt,
)


def test_the_buckets_part_the_range_into_ten():
    middles = (np.arange(10) + 0.5) * 0.07
    assert bucket(jnp.array(middles)).tolist() == list(range(10))


def test_a_level_on_or_beyond_the_ends_of_the_range_has_the_first_or_last_bucket():
    assert bucket(jnp.array([-0.1, 0.0, 0.0699, 0.0701, 0.6299, 0.6301, 0.7, 5.0])).tolist() == [0, 0, 0, 1, 8, 9, 9, 9]


def test_each_frame_is_corrupted_at_its_own_level():
    levels = jnp.array([[0.0, 0.1, 0.7], [0.5, 0.0, 0.2]])
    context = jnp.full((2, 3, 20, 20, 16), 4.0)
    noise = corrupt(jax.random.key(0), context, levels) - context
    count = 20 * 20 * 16
    np.testing.assert_allclose(noise.std(axis=(2, 3, 4)), levels, rtol=5 / np.sqrt(2 * count))
    assert (jnp.abs(noise.mean(axis=(2, 3, 4))) <= 5 * levels / np.sqrt(count) + 1e-6).all()
    assert (noise[levels == 0] == 0).all()


def test_a_third_of_the_training_items_have_a_clean_context_and_some_are_as_noisy_as_can_be():
    levels = np.asarray(ContextNoise().levels(jax.random.key(0), 20_000, 4))
    assert levels.min() >= 0 and 0.95 * CONTEXT_NOISE_MAX < levels.max() <= CONTEXT_NOISE_MAX
    clean = (np.asarray(bucket(jnp.array(levels))) == 0).all(axis=1)
    assert 0.3 < clean.mean() < 0.4


def test_an_even_spread_is_uniform_up_to_the_highest_level():
    levels = np.asarray(ContextNoise(0.5, spread="even").levels(jax.random.key(0), 20_000, 4))
    counts = np.histogram(levels, bins=10, range=(0, 0.5))[0]
    np.testing.assert_allclose(counts / levels.size, 0.1, atol=5 * np.sqrt(0.09 / levels.size))


def test_a_level_that_no_bucket_holds_is_refused():
    with pytest.raises(ValueError, match=r"context_noise is a level in \[0, 0.7\], got 0.8"):
        ContextNoise(0.8)


def test_training_levels_differ_from_frame_to_frame_and_favour_none():
    levels = np.asarray(ContextNoise().levels(jax.random.key(0), 20_000, 4))
    ranks = np.argsort(levels, axis=1)
    assert (np.diff(np.sort(levels, axis=1)) > 0).mean() > 0.999
    share = (ranks[:, 0, None] == np.arange(4)).mean(axis=0)
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / len(levels)))


SIZES = Sizes(actions=3, context=2, grid=(5, 6), channels=4, features=8)
KINDS = (AdaGN(), CrossAttention(heads=2))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.kind)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def conditioner(kind, perturbed):
    return perturbed(kind.build(SIZES, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def block(conditioner, perturbed):
    return perturbed(conditioner.block(4, 6, rngs=nnx.Rngs(1)))


def past(batch):
    return jax.random.normal(jax.random.key(0), (1, 5, 6, 8)).repeat(batch, axis=0)


def told(actions, **changes):
    b = len(actions)
    return Told(past(b), jnp.array(actions, jnp.int32), jnp.zeros(b), jnp.zeros((b, 2)))._replace(**changes)


def heard(conditioner, block, **changes):
    """What a block makes of the same features under each condition."""
    x = jax.random.normal(jax.random.key(1), (1, 5, 6, 4))
    condition = conditioner(changes.pop("told"))
    b = len(conditioner.vector(condition))
    out = block(x.repeat(b, axis=0), condition)
    assert out.shape == (b, 5, 6, 6) and conditioner.vector(condition).shape == (b, 8)
    return out


def test_the_age_of_an_action_matters_as_much_as_its_kind(conditioner, block):
    out = heard(conditioner, block, told=told([[1, 2], [2, 1], [1, 2]]))
    np.testing.assert_allclose(out[0], out[2], rtol=1e-4, atol=1e-5)
    assert jnp.abs(out[0] - out[1]).max() > 1e-4


def test_every_block_hears_of_the_samples_noise_and_of_each_context_frames(conditioner, block):
    for changes in (
        {"c_noise": jnp.array([0.0, 0.5])},
        *({"levels": jnp.zeros((2, 2)).at[1, i].set(0.5)} for i in (0, 1)),
    ):
        out = heard(conditioner, block, told=told([[1, 2], [1, 2]], **changes))
        assert jnp.abs(out[0] - out[1]).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_of_the_samplers_step_is_heard_by_those_built_for_it_and_refused_by_others(kind, perturbed):
    hears = perturbed(kind.build(SIZES._replace(tells_step=True), rngs=nnx.Rngs(0)))
    listens = hears.block(4, 6, rngs=nnx.Rngs(1))
    out = heard(hears, perturbed(listens), told=told([[1, 2], [1, 2]], c_step=jnp.array([0.0, 1.0])))
    assert jnp.abs(out[0] - out[1]).max() > 1e-4
    with pytest.raises(ValueError, match="this network must be told the length of the sampler's step"):
        hears(told([[1, 2]]))
    with pytest.raises(ValueError, match="this network isn't told the length of the sampler's step"):
        kind.build(SIZES, rngs=nnx.Rngs(0))(told([[1, 2]], c_step=jnp.zeros(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_past_its_noise_levels_are_gone_and_the_actions_are_not(kind, perturbed):
    conditioner = perturbed(kind.build(SIZES._replace(without_past=True), rngs=nnx.Rngs(0)))
    block = perturbed(conditioner.block(4, 6, rngs=nnx.Rngs(1)))
    absent = told([[1, 2], [1, 2], [1, 0]], present=jnp.zeros(3, bool), levels=jnp.zeros((3, 2)).at[1].set(0.5))
    out = heard(conditioner, block, told=absent)
    np.testing.assert_allclose(out[0], out[1], rtol=1e-4, atol=1e-5)
    assert jnp.abs(out[0] - out[2]).max() > 1e-4
    with pytest.raises(ValueError, match=r"this model always has a past: set UNetConfig\.context_dropout"):
        kind.build(SIZES, rngs=nnx.Rngs(0))(told([[1, 2]], present=jnp.zeros(1, bool)))


def test_attention_begins_as_no_change():
    tokens = CrossAttention(heads=2).build(SIZES, rngs=nnx.Rngs(0))
    block = tokens.block(4, 6, rngs=nnx.Rngs(1))
    condition = tokens(told([[1, 2]]))
    x = jax.random.normal(jax.random.key(1), (1, 5, 6, 4))
    assert (block(x, condition) == block.block(x, condition.embedding)).all()


@pytest.mark.parametrize("place", [(0, 0, 0), (4, 5, 7), (2, 3, 4)])
def test_the_gist_hears_of_every_place_and_frame_of_the_past(place):
    conditioner = AdaGN().build(SIZES, rngs=nnx.Rngs(0))
    changed = past(2).at[(1, *place)].add(3.0)
    embedding = conditioner(told([[0, 0], [0, 0]], context=changed))
    assert jnp.abs(embedding[0] - embedding[1]).max() > 1e-4
