from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.envs import core
from neural_env.envs.core import DreamState
from neural_env.envs.dials import Dials
from neural_env.world.model import WorldModel


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
    """The state that five steps begin in, and what they bring."""
    steps, present = [], state
    for key, action in zip(jax.random.split(jax.random.key(3), 5), [0, 1, 2, 2, 1], strict=True):
        steps.append(step(key, present, np.int32(action)))
        present = steps[-1].state
    return [state, *(each.state for each in steps)], steps


def close(frames, others):
    """Equal but for rounding: another program may sum in another order, and a grey level is then off by one."""
    difference = np.abs(np.asarray(frames).astype(int) - np.asarray(others).astype(int))
    return difference.max() <= 1 and difference.mean() < 0.01


def test_a_hundred_steps_at_as_many_dials_are_compiled_once(tiny_world, state):
    counted = Counted(core.step)
    step = core.bind(counted, tiny_world)
    for i in range(100):
        dials = Dials(context_noise=i / 1000, temperature=i / 50).on_host()
        state = step(jax.random.key(i), state, np.int32(i % 3), dials).state
    assert counted.traces == 1


def test_shapes_and_types_are_the_same_after_every_step(walk):
    states, steps = walk
    kinds = {jax.tree.map(lambda x: (x.shape, str(x.dtype)), s) for s in states}
    assert kinds == {DreamState(((4, 15, 20, 4), "float32"), ((3,), "int32"))}
    for observation, _, reward, terminated, info in steps:
        assert observation.shape == (120, 160, 3) and observation.dtype == np.uint8
        assert reward.shape == terminated.shape == info.termination_probability.shape == ()
        assert terminated.dtype == bool and info.variables.shape == (1,)


def test_the_oldest_frame_falls_out_and_the_action_taken_comes_in(walk):
    states, _ = walk
    for before, after, action in zip(states, states[1:], [0, 1, 2, 2, 1], strict=False):
        assert (after.context[:-1] == before.context[1:]).all()
        assert after.actions.tolist() == [*before.actions[1:].tolist(), action]
        assert (after.context[-1] != before.context[-1]).any()


def test_what_is_shown_is_the_last_of_the_context(tiny_world, walk):
    states, steps = walk
    frame, variables = (core.bind(f, tiny_world)(states[-1]) for f in (core.screen, core.variables))
    assert close(frame, steps[-1].observation)
    np.testing.assert_allclose(variables, steps[-1].info.variables, rtol=1e-3, atol=1e-4)


def test_latents_are_shown_without_decoding(tiny_world, state, step, monkeypatch):
    decoded = step(jax.random.key(0), state, np.int32(1)).state

    def refuse(*_):
        raise AssertionError("the decoder was run")

    monkeypatch.setattr(WorldModel, "decode", refuse)
    lazy = core.bind(partial(core.step, observe=core.latent), tiny_world)(jax.random.key(0), state, np.int32(1))
    assert (lazy.observation == lazy.state.context[-1]).all()
    np.testing.assert_allclose(lazy.observation, decoded.context[-1], rtol=1e-3, atol=1e-4)


def test_a_reset_draws_each_of_the_starts_as_often(tiny_world, tiny_starts):
    starts = DreamState(jnp.asarray(tiny_starts.latents), jnp.asarray(tiny_starts.actions))
    keys = jax.random.split(jax.random.key(0), 400)
    shown, states = jax.jit(jax.vmap(lambda key: core.reset(tiny_world, key, starts, core.latent)))(keys)
    assert (shown == states.context[:, -1]).all()
    drawn = (states.context[:, None] == starts.context).all(axis=(2, 3, 4, 5))
    assert (drawn.sum(axis=1) == 1).all()
    assert (abs(drawn.sum(axis=0) - 50) < 5 * np.sqrt(400 / 8)).all()
    frame, state = core.bind(core.reset, tiny_world)(jax.random.key(1), starts)
    assert close(frame, tiny_world.decode(state.context[-1:])[0])


def test_the_past_is_the_clients_frames_and_actions(tiny_world):
    frames = np.random.default_rng(0).integers(256, size=(4, 120, 160, 3), dtype=np.uint8)
    actions = np.array([2, 0, 1], np.int32)
    state = core.bind(core.encode_context, tiny_world)(frames, actions)
    assert state.actions.tolist() == [2, 0, 1]
    np.testing.assert_allclose(state.context, tiny_world.encode(jnp.asarray(frames)), rtol=1e-3, atol=1e-4)


def test_equal_keys_give_equal_steps_and_others_differ(step, state):
    first, again, other = (step(jax.random.key(k), state, np.int32(1)).state.context for k in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_an_episode_carries_its_own_randomness_and_a_roll_out_is_repeated_steps(tiny_world, state, step):
    carry = start = core.carry_from(jax.random.key(7), state)
    actions, key, advanced = jnp.array([0, 1, 2], jnp.int32), jax.random.key(7), []
    advance = core.bind(core.advance, tiny_world)
    for action in actions:
        advanced.append(advance(carry, action))
        carry = advanced[-1].state
        key, key_step = jax.random.split(key)
        expected = step(key_step, state, action)
        state = expected.state
        assert close(advanced[-1].observation, expected.observation)
    rolled = core.bind(core.rollout, tiny_world)(start, actions)
    assert close(rolled.observation, [each.observation for each in advanced]) and (rolled.state.key == carry.key).all()
    np.testing.assert_allclose(rolled.state.state.context, carry.state.context, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(rolled.reward, [each.reward for each in advanced], rtol=1e-3, atol=1e-4)
    assert rolled.info.variables.shape == (3, 1) and rolled.terminated.shape == (3,)


def test_many_dreams_at_once_are_as_many_single_ones(tiny_world, tiny_starts, step):
    states = DreamState(jnp.asarray(tiny_starts.latents[:3]), jnp.asarray(tiny_starts.actions[:3]))
    keys, actions = jax.random.split(jax.random.key(0), 3), jnp.array([0, 1, 2], jnp.int32)
    together = jax.jit(jax.vmap(partial(core.step, tiny_world)))(keys, states, actions)
    for i in range(3):
        alone = step(keys[i], jax.tree.map(lambda x, i=i: x[i], states), actions[i])
        assert close(together.observation[i], alone.observation)
        np.testing.assert_allclose(together.state.context[i], alone.state.context, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(together.info.variables[i], alone.info.variables, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def ends(make_world, state):
    """How many of 128 steps end an episode, and the probability that was foretold."""
    world = make_world(termination_logit=-1.0)
    keys = jax.random.split(jax.random.key(0), 128)
    many = jax.jit(jax.vmap(lambda key, dials: core.step(world, key, state, jnp.int32(0), dials), in_axes=(0, None)))

    def count(**dials):
        steps = many(keys, Dials(**dials).on_host())
        np.testing.assert_allclose(steps.info.termination_probability, 1 / (1 + np.e), rtol=1e-4)
        return int(steps.terminated.sum())

    return count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_dreams_end_as_often_as_foretold_at_that_temperature(ends, temperature):
    p = 1 / (1 + np.exp(1 / temperature))
    assert abs(ends(temperature=temperature) - 128 * p) < 5 * np.sqrt(128 * p * (1 - p))


def test_without_temperature_or_by_threshold_the_likelier_happens_and_never_is_never(ends, make_world, state):
    assert [ends(temperature=0.0), ends(termination="threshold"), ends(termination="never")] == [0, 0, 0]
    world = make_world(termination_logit=0.1)
    step = core.bind(core.step, world)
    said = [
        bool(step(jax.random.key(k), state, np.int32(0), Dials(**dials).on_host()).terminated)
        for k in range(3)
        for dials in ({"temperature": 0.0}, {"termination": "threshold"}, {"termination": "never"})
    ]
    assert said == [True, True, False] * 3


def test_denoising_steps_and_context_noise_reach_the_model(step, state):
    def context(**dials):
        return step(jax.random.key(0), state, np.int32(1), Dials(**dials).on_host()).state.context

    for dials in ({"num_steps": 3}, {"context_noise": 0.5}, {"temperature": 0.5}):
        assert (context(**dials) != context()).any(), dials


def test_at_temperature_nought_the_dream_is_the_same_whatever_the_key(step, state):
    first, other = (
        step(jax.random.key(k), state, np.int32(1), Dials(temperature=0.0, num_steps=2).on_host()) for k in (0, 1)
    )
    assert (first.observation == other.observation).all()


@pytest.mark.parametrize("of", ["frame", "reward", "variables"])
def test_the_dream_can_be_differentiated_by_its_past(tiny_world, state, of):
    def shown(context):
        after = core.step(tiny_world, jax.random.key(0), DreamState(context, state.actions), jnp.int32(0))
        pixels = tiny_world.autoencoder.decode(after.state.context[-1:])
        return {"frame": pixels.mean(), "reward": after.reward, "variables": after.info.variables.sum()}[of]

    gradient = jax.jit(jax.grad(shown))(state.context)
    assert jnp.isfinite(gradient).all() and (jnp.abs(gradient).max(axis=(1, 2, 3)) > 0).all()


def test_guidance_of_a_world_without_dropout_is_refused(tiny_world, state):
    with pytest.raises(ValueError, match="context_dropout"):
        core.step(tiny_world, jax.random.key(0), state, jnp.int32(0), Dials(guidance=1.5))


@pytest.mark.parametrize("size", [64.0, 1e4])
def test_a_dream_that_runs_away_stays_finite(tiny_world, size):
    """Weights of which nobody knows how they were trained must not give an agent NaN to learn from."""
    context = jnp.full((1, tiny_world.context, *tiny_world.latent_shape), size)
    actions = jnp.zeros((1, tiny_world.context), jnp.int32)
    for _ in range(tiny_world.context):
        latent = tiny_world.imagine(jax.random.key(0), context, actions, num_steps=1)
        context = jnp.concatenate([context[:, 1:], latent[:, None]], axis=1)
    outcome = tiny_world.foretell(context, actions, latent)
    assert all(bool(jnp.isfinite(x).all()) for x in (latent, *outcome)) and float(jnp.abs(latent).max()) <= 64
