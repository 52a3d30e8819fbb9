import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.world.conditioning import CONTEXT_NOISE_MAX, Conditioner, bucket, corrupt, sample_levels


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
    levels = np.asarray(sample_levels(jax.random.key(0), 20_000, 4))
    assert levels.min() >= 0 and 0.95 * CONTEXT_NOISE_MAX < levels.max() <= CONTEXT_NOISE_MAX
    clean = (np.asarray(bucket(jnp.array(levels))) == 0).all(axis=1)
    assert 0.3 < clean.mean() < 0.4


def test_training_levels_differ_from_frame_to_frame_and_favour_none():
    levels = np.asarray(sample_levels(jax.random.key(0), 20_000, 4))
    ranks = np.argsort(levels, axis=1)
    assert (np.diff(np.sort(levels, axis=1)) > 0).mean() > 0.999
    share = (ranks[:, 0, None] == np.arange(4)).mean(axis=0)
    np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / len(levels)))


@pytest.fixture(scope="module")
def conditioner():
    return Conditioner(3, 2, (5, 6), 4, 8, rngs=nnx.Rngs(0))


def past(batch):
    return jax.random.normal(jax.random.key(0), (1, 5, 6, 8)).repeat(batch, axis=0)


def test_the_age_of_an_action_matters_as_much_as_its_kind(conditioner):
    actions = jnp.array([[1, 2], [2, 1], [1, 2]], jnp.int32)
    embedding = conditioner(past(3), actions, jnp.zeros(3), jnp.zeros((3, 2)))
    assert embedding.shape == (3, 8)
    np.testing.assert_allclose(embedding[0], embedding[2], rtol=1e-5)
    assert jnp.abs(embedding[0] - embedding[1]).max() > 1e-3


@pytest.mark.parametrize("place", [(0, 0, 0), (4, 5, 7), (2, 3, 4)])
def test_the_gist_hears_of_every_place_and_frame_of_the_past(conditioner, place):
    changed = past(2).at[(1, *place)].add(3.0)
    embedding = conditioner(changed, jnp.zeros((2, 2), jnp.int32), jnp.zeros(2), jnp.zeros((2, 2)))
    assert jnp.abs(embedding[0] - embedding[1]).max() > 1e-4
