import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env import checkpoint
from neural_env.envs import core
from neural_env.world.parameters import all_arrays
from neural_env.world.precision import in_bfloat16


@pytest.fixture(scope="module")
def carry(tiny_starts):
    state = core.DreamState(jnp.asarray(tiny_starts.latents[0]), jnp.asarray(tiny_starts.actions[0]))
    return core.carry_from(jax.random.key(0), state)


def test_every_convolution_of_unet_and_decoder_is_in_bfloat16(tiny_world, carry):
    def imagined(world, context, actions):
        return world.decode(world.imagine(jax.random.key(0), context, actions, num_steps=1))

    context, actions = carry.state.context[None], jnp.zeros((1, 4), jnp.int32)
    program = str(jax.make_jaxpr(imagined)(in_bfloat16(tiny_world), context, actions))
    kinds = re.findall(r":(\w+)\[[\d,]*\][^\n]*= conv_general_dilated", program)
    assert len(kinds) > 10 and set(kinds) == {"bf16"}


def test_what_passes_in_and_out_has_the_types_of_before(tiny_world, carry):
    def kinds(world):
        after = jax.eval_shape(core.advance, world, carry, jnp.int32(1))
        return jax.tree.map(lambda x: (x.shape, x.dtype), after)

    assert kinds(in_bfloat16(tiny_world)) == kinds(tiny_world)


def test_the_world_itself_stays_as_it_was(tiny_world):
    before = {name: array.dtype for name, array in all_arrays(tiny_world).items()}
    in_bfloat16(tiny_world)
    assert {name: array.dtype for name, array in all_arrays(tiny_world).items()} == before
    assert tiny_world.unet.stem.dtype is None


@pytest.mark.slow
def test_the_bundled_world_shows_the_same_in_bfloat16_from_the_same_past():
    """Sixteen moments of one dream; left to itself, a dream soon makes much of the last digit."""
    loaded = checkpoint.load("take_cover")
    state = core.DreamState(jnp.asarray(loaded.starts.latents[0]), jnp.asarray(loaded.starts.actions[0]))
    carry, advance = core.carry_from(jax.random.key(0), state), jax.jit(core.advance)
    rounded = in_bfloat16(loaded.world)
    for moment in range(16):
        after, other = (advance(world, carry, moment % 3) for world in (loaded.world, rounded))
        error = np.square(np.asarray(after.observation, np.float64) - other.observation).mean()
        assert 10 * np.log10(255**2 / error) > 50
        carry = after.state
