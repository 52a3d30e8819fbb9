import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.agents.shaping import Shaping
from neural_env.envs.core import DreamState
from neural_env.world.danger import Danger


@pytest.fixture(scope="module")
def shaping(perturbed):
    module = perturbed(Danger((15, 20), 4, 4, 3, rngs=nnx.Rngs(0)))
    return Shaping(module, price=50.0, gamma=0.9)


@pytest.fixture(scope="module")
def path():
    """Five states one after the other, of two dreams."""
    keys = jax.random.split(jax.random.key(0), 5)
    return [DreamState(jax.random.normal(key, (2, 4, 15, 20, 4)), jnp.ones((2, 3), jnp.int32)) for key in keys]


def test_all_that_is_paid_is_what_the_first_state_makes_it(shaping, path):
    """Whatever lies between: so no other way to play becomes the best."""
    alive = jnp.zeros(2, bool)
    paid = [shaping(*pair, alive) for pair in itertools.pairwise(path)]
    total = sum(0.9**i * each for i, each in enumerate(paid))
    ends = 0.9**4 * shaping.potential(path[-1]) - shaping.potential(path[0])
    np.testing.assert_allclose(total, ends, atol=1e-4)


def test_nothing_is_dangerous_any_more_where_the_game_is_over(shaping, path):
    paid = shaping(path[0], path[1], jnp.ones(2, bool))
    np.testing.assert_allclose(paid, -shaping.potential(path[0]), rtol=1e-6)


def test_danger_costs_up_to_its_price(shaping, path):
    potential = np.asarray(shaping.potential(path[0]))
    assert (potential < 0).all() and (potential > -50).all()
    np.testing.assert_allclose(potential, -50 * shaping.danger(*path[0]), rtol=1e-6)
