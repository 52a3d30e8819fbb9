from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.agents.eyes import codes, latents
from neural_env.agents.foreseer import Foreseer, that_knows
from neural_env.agents.player import new_policy
from neural_env.agents.policy import ForeseerConfig, PolicyConfig
from neural_env.world.danger import Danger

GRID, CHANNELS, CONTEXT, ACTIONS = (15, 20), 4, 4, 3
EYES = SimpleNamespace(grid=lambda resolution: GRID)
SIZES = ForeseerConfig(picture_channels=CHANNELS, stack=CONTEXT)


@pytest.fixture(scope="module")
def contexts():
    key_latents, key_actions = jax.random.split(jax.random.key(0))
    shape = (5, CONTEXT, *GRID, CHANNELS)
    return jax.random.normal(key_latents, shape), jax.random.randint(key_actions, (5, CONTEXT - 1), 0, ACTIONS)


@pytest.fixture(scope="module")
def danger():
    return Danger(GRID, CHANNELS, CONTEXT, ACTIONS, rngs=nnx.Rngs(7))


def test_codes_keep_latents_to_half_a_step(contexts):
    np.testing.assert_allclose(latents(codes(contexts[0])), contexts[0], atol=6 / 255 + 1e-6)


def test_it_sees_what_danger_sees(contexts, danger, game):
    context, actions = contexts
    frames = jnp.moveaxis(codes(context), 1, 0)
    begun = new_policy(SIZES, game, eyes=EYES)
    knowing = that_knows(begun, danger)
    expected = danger.features(latents(jnp.moveaxis(frames, 0, 1)), actions)
    np.testing.assert_allclose(knowing.features(frames, actions), expected, rtol=1e-5)
    assert not np.allclose(begun.features(frames, actions), expected, atol=1e-2)
    logits, values = knowing(frames, actions)
    assert isinstance(knowing, Foreseer) and logits.shape == (5, ACTIONS) and values.shape == (5,)


def test_actions_before_the_game_count_as_none_taken(contexts, game):
    policy = new_policy(SIZES, game, eyes=EYES)
    frames = jnp.moveaxis(codes(contexts[0]), 1, 0)
    none = policy.features(frames, jnp.full((5, CONTEXT - 1), ACTIONS))
    taken = policy.features(frames, jnp.zeros((5, CONTEXT - 1), jnp.int32))
    assert np.isfinite(none).all() and not np.allclose(none, taken)


def test_an_agent_of_convolutions_stays_as_it_is(danger, game):
    sizes = PolicyConfig(picture_channels=CHANNELS, stack=2, past_actions=2, convolutions=((8, 3, 2),), features=16)
    policy = new_policy(sizes, game, eyes=EYES)
    assert that_knows(policy, danger) is policy


def test_foresight_of_nothing_is_refused():
    with pytest.raises(ValueError, match="stack must be at least 1, got 0"):
        ForeseerConfig(stack=0)
