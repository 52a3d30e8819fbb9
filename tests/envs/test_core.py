from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.envs import core
from neural_env.envs.core import DreamState


class Counted:
    """A function that knows how often it was traced."""

    def __init__(self, function):
        self.function = function
        self.traces = 0

    def __call__(self, *args, **kwargs):
        self.traces += 1
        return self.function(*args, **kwargs)


@pytest.fixture(scope="module")
def state(tiny_starts):
    return DreamState(jnp.asarray(tiny_starts.latents[0]), jnp.asarray(tiny_starts.actions[0]))


@pytest.fixture(scope="module")
def step(tiny_world):
    return core.bind(core.step, tiny_world)


@pytest.fixture(scope="module")
def walk(step, state):
    """Frames, states and outcomes of five steps."""
    frames, states, outcomes = [], [state], []
    for key, action in zip(jax.random.split(jax.random.key(3), 5), [0, 1, 2, 2, 1], strict=True):
        frame, following, outcome = step(key, states[-1], np.int32(action))
        frames.append(frame)
        states.append(following)
        outcomes.append(outcome)
    return np.stack(frames), states, outcomes


def close(frames, others):
    """Equal but for rounding: another program may sum in another order, and a grey level is then off by one."""
    difference = np.abs(np.asarray(frames).astype(int) - np.asarray(others).astype(int))
    return difference.max() <= 1 and difference.mean() < 0.01


def test_a_hundred_steps_are_compiled_once(tiny_world, state):
    counted = Counted(core.step)
    step = core.bind(counted, tiny_world)
    for i in range(100):
        _, state, _ = step(jax.random.key(i), state, np.int32(i % 3), context_noise=np.float32(i / 1000))
    assert counted.traces == 1


def test_shapes_and_types_are_the_same_after_every_step(walk):
    _, states, outcomes = walk
    kinds = {jax.tree.map(lambda x: (x.shape, str(x.dtype)), s) for s in states}
    assert kinds == {DreamState(((4, 15, 20, 4), "float32"), ((3,), "int32"))}
    for outcome in outcomes:
        assert outcome.reward.shape == outcome.terminated.shape == outcome.termination_probability.shape == ()
        assert outcome.terminated.dtype == bool and outcome.variables.shape == (1,)


def test_the_oldest_frame_falls_out_and_the_action_taken_comes_in(walk):
    _, states, _ = walk
    for before, after, action in zip(states, states[1:], [0, 1, 2, 2, 1], strict=False):
        assert (after.context[:-1] == before.context[1:]).all()
        assert after.actions.tolist() == [*before.actions[1:].tolist(), action]
        assert (after.context[-1] != before.context[-1]).any()


def test_the_frame_shown_is_the_last_of_the_context(tiny_world, walk):
    frames, states, outcomes = walk
    frame, variables = core.bind(core.observe, tiny_world)(states[-1])
    assert frame.shape == (120, 160, 3) and frame.dtype == np.uint8
    assert close(frame, frames[-1])
    np.testing.assert_allclose(variables, outcomes[-1].variables, rtol=1e-3, atol=1e-4)


def test_the_past_is_the_clients_frames_and_actions(tiny_world):
    frames = np.random.default_rng(0).integers(256, size=(4, 120, 160, 3), dtype=np.uint8)
    actions = np.array([2, 0, 1], np.int32)
    state = core.bind(core.encode_context, tiny_world)(frames, actions)
    assert state.actions.tolist() == [2, 0, 1]
    np.testing.assert_allclose(state.context, tiny_world.encode(jnp.asarray(frames)), rtol=1e-3, atol=1e-4)


def test_equal_keys_give_equal_steps_and_others_differ(step, state):
    first, again, other = (step(jax.random.key(k), state, np.int32(1))[1].context for k in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_a_roll_out_is_the_same_as_repeated_steps(tiny_world, walk, state):
    frames, states, outcomes = walk
    rolled = core.bind(core.rollout, tiny_world)(jax.random.key(3), state, jnp.array([0, 1, 2, 2, 1], jnp.int32))
    assert close(rolled[0], frames)
    np.testing.assert_allclose(rolled[1].context, states[-1].context, rtol=1e-3, atol=1e-4)
    assert (rolled[1].actions == states[-1].actions).all()
    np.testing.assert_allclose(rolled[2].reward, [o.reward for o in outcomes], rtol=1e-3, atol=1e-4)


def test_an_episode_carries_its_own_randomness(tiny_world, state, step):
    carry = start = core.Carry(jax.random.key_data(jax.random.key(7)), state)
    actions, key, frames = jnp.array([0, 1, 2], jnp.int32), jax.random.key(7), []
    advance = core.bind(core.advance, tiny_world)
    for action in actions:
        frame, carry, _ = advance(carry, action)
        key, key_step = jax.random.split(key)
        expected, state, _ = step(key_step, state, action)
        assert close(frame, expected)
        frames.append(frame)
    played, last, _ = core.bind(core.play, tiny_world)(start, actions)
    assert close(played, frames) and (last.key == carry.key).all()


def test_many_dreams_at_once_are_as_many_single_ones(tiny_world, tiny_starts, step):
    states = DreamState(jnp.asarray(tiny_starts.latents[:3]), jnp.asarray(tiny_starts.actions[:3]))
    keys, actions = jax.random.split(jax.random.key(0), 3), jnp.array([0, 1, 2], jnp.int32)
    together = jax.jit(jax.vmap(partial(core.step, tiny_world)))(keys, states, actions)
    for i in range(3):
        frame, following, outcome = step(keys[i], jax.tree.map(lambda x, i=i: x[i], states), actions[i])
        assert close(together[0][i], frame)
        np.testing.assert_allclose(together[1].context[i], following.context, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(together[2].variables[i], outcome.variables, rtol=1e-3, atol=1e-4)


def test_dreams_end_as_often_as_foretold(make_world, state):
    world = make_world(termination_logit=-1.0)
    keys = jax.random.split(jax.random.key(0), 128)
    ends = jax.jit(jax.vmap(lambda key: core.step(world, key, state, jnp.int32(0))[2]))(keys)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(ends.termination_probability, p, rtol=1e-4)
    assert abs(ends.terminated.mean() - p) < 5 * np.sqrt(p * (1 - p) / len(keys))


def test_denoising_steps_and_context_noise_reach_the_model(tiny_world, state, step):
    three = core.bind(partial(core.step, num_steps=3), tiny_world)
    frame = step(jax.random.key(0), state, np.int32(1))[1].context
    assert (three(jax.random.key(0), state, np.int32(1))[1].context != frame).any()
    assert (step(jax.random.key(0), state, np.int32(1), context_noise=np.float32(0.5))[1].context != frame).any()


def test_the_dream_can_be_differentiated_by_its_past(tiny_world, state):
    def brightness(context):
        following = core.step(tiny_world, jax.random.key(0), DreamState(context, state.actions), jnp.int32(0))[1]
        return following.context[-1].sum()

    gradient = jax.jit(jax.grad(brightness))(state.context)
    assert jnp.isfinite(gradient).all() and (jnp.abs(gradient).max(axis=(1, 2, 3)) > 0).all()
