from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.agents.dreams import DreamsConfig, begin_dreams, beginnings, intended, observe, settled, step_fn
from neural_env.agents.eyes import Eyes, codes
from neural_env.envs import core
from neural_env.envs.core import DreamState
from neural_env.envs.spread import disagreement, spread
from neural_env.world.model import PRESETS

QUIET = DreamsConfig(horizon=4, repeat=0.0, termination="never")


@pytest.fixture(scope="module")
def states(tiny_starts):
    return DreamState(jnp.asarray(tiny_starts.latents), jnp.asarray(tiny_starts.actions))


@pytest.fixture(scope="module")
def dreaming(tiny_world, states, game):
    """Steps dreams under settings: transitions and the dreams after them."""

    def run(config, actions, count=3):
        places = jax.jit(lambda world: beginnings(world, states, config))(tiny_world)
        dreams, first = begin_dreams(places, jax.random.key(0), count, config.horizon)
        dreams = dreams._replace(ages=jnp.zeros(count, jnp.int32))
        step = jax.jit(lambda world, places, dreams, act: step_fn(world, places, game, config)(dreams, act))
        seen = []
        for action in actions:
            dreams, transition = step(tiny_world, places, dreams, jnp.full(count, action, jnp.int32))
            seen.append(transition)
        return places, first, dreams, seen

    return run


def test_a_dream_is_cut_off_at_the_horizon_and_begins_anew_at_a_real_context(dreaming, states):
    places, _, dreams, seen = dreaming(QUIET, [1, 1, 1, 1])
    assert [bool(step.truncated.any()) for step in seen] == [False, False, False, True] and seen[-1].truncated.all()
    assert not any(step.terminated.any() for step in seen) and (dreams.ages == 0).all()
    for frame, final, context in zip(seen[-1].frames, seen[-1].final_frames, dreams.states.context, strict=True):
        assert (context == states.context).all(axis=(1, 2, 3, 4)).any()  # one of the real ones
        assert (frame == places.seen).all(axis=(1, 2, 3)).any() and (frame != final).any()


def test_dreams_of_different_ages_are_not_cut_off_together(tiny_world, states):
    places = beginnings(tiny_world, states, QUIET)
    dreams, _ = begin_dreams(places, jax.random.key(0), 32, 16)
    assert len(np.unique(dreams.ages)) > 8 and int(dreams.ages.max()) < 16


def test_what_the_agent_sees_in_the_dream_is_what_its_eyes_make_of_the_screen(tiny_world):
    """But for the rounding of the encoder's own compilation: a code is 8 bits."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3)).astype(np.uint8)
    eyes = Eyes(tiny_world.autoencoder, PRESETS["tiny"].autoencoder)
    state = core.encode_context(tiny_world, jnp.asarray(np.concatenate([frames] * 2)), jnp.zeros(3, jnp.int32))
    dreamed = observe(QUIET)(tiny_world, state)
    assert dreamed.shape == tiny_world.latent_shape and dreamed.dtype == jnp.uint8
    assert np.abs(np.asarray(eyes(jnp.asarray(frames))[1], int) - np.asarray(dreamed, int)).max() <= 1


def test_codes_keep_a_twentieth_of_a_deviation():
    latent = jnp.linspace(-5.9, 5.9, 997)
    np.testing.assert_allclose((codes(latent) / 127.5 - 1) * 6, latent, atol=0.025)


def test_the_agent_may_look_at_decoded_frames(dreaming):
    _, first, _, seen = dreaming(replace(QUIET, observe="rgb"), [2])
    assert first.shape == seen[0].frames.shape == (3, 120, 160, 3) and seen[0].frames.dtype == jnp.uint8


def test_a_dream_repeats_its_last_action_as_often_as_asked(dreaming):
    _, _, _, seen = dreaming(replace(QUIET, repeat=0.5, horizon=100), [0, 1, 2] * 7, 16)
    chosen = np.array([0, 1, 2] * 7)[1:, None]
    done = np.stack([step.actions for step in seen])
    repeated = done[1:] == done[:-1]
    assert 0.4 < repeated.mean() < 0.6 and (done[1:] == chosen)[~repeated].all()


def test_survival_pays_a_point_a_tic_and_nothing_at_the_end(dreaming):
    _, _, _, alive = dreaming(replace(QUIET, reward="survival"), [1])
    assert alive[0].rewards.tolist() == [4.0, 4.0, 4.0]


def test_each_guard_takes_its_price(dreaming):
    """All else equal, the rewards differ by what each says."""
    _, _, dreams, plain = dreaming(QUIET, [1])
    _, _, hurt, damaged = dreaming(replace(QUIET, damage=2.0), [1])
    _, _, _, unsure = dreaming(replace(QUIET, disagreement=3.0), [1])
    np.testing.assert_array_equal(dreams.variables, hurt.variables)
    assert (damaged[0].rewards <= plain[0].rewards).all() and (unsure[0].rewards < plain[0].rewards).all()


def test_damage_is_what_was_expected_and_not_what_the_picture_shows(tiny_world, states, game):
    config = replace(QUIET, damage=2.0)
    places = beginnings(tiny_world, states, config)
    dreams, _ = begin_dreams(places, jax.random.key(0), 3, 100)
    intent = intended(config, dreams, jnp.zeros(3, jnp.int32))
    info = core.Info(jnp.full((3, 1), 1.0), jnp.array([0.0, 0.5, 0.0]), jnp.array([[70.0], [90.0], [130.0]]))
    stepped = core.Step(places.seen[jnp.zeros(3, int)], dreams.states, jnp.full(3, 4.0), jnp.zeros(3, bool), info)
    before = dreams._replace(variables=jnp.full((3, 1), 100.0))
    _, transition = settled(places, game, config, before, intent, stepped, jnp.zeros(3))
    np.testing.assert_allclose(transition.rewards, [4 - 2 * 30, 4 - 2 * (0.5 * 100 + 0.5 * 10), 4], atol=1e-3)


def test_disagreement_is_the_wrappers_measure(tiny_world, states):
    from neural_env.wrappers.spread import spread as of_wrapper

    frames = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3)).astype(np.uint8)
    assert float(spread(frames)) == pytest.approx(of_wrapper(frames), rel=1e-5)
    state, key = jax.tree.map(lambda leaf: leaf[0], states), jax.random.key(7)
    keys = jax.random.split(key, 3)
    versions = [core.step(tiny_world, one, state, jnp.int32(1)).observation for one in keys]
    told = float(disagreement(tiny_world, key, state, jnp.int32(1), 3))
    assert told == pytest.approx(of_wrapper(np.stack(versions)), abs=0.05) and told > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 3.0}, r"temperature must be in \[0, 2\], got 3.0"),
        ({"context_noise": -0.1}, r"context_noise must be in \[0, 0.7\]"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"repeat": 1.0}, "repeat is a probability below 1"),
        ({"observe": "smell"}, "observe must be one of"),
    ],
)
def test_settings_that_make_no_dreams_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DreamsConfig(**changes)


def test_dreams_are_run_in_as_many_steps_as_suit_the_world_unless_told_otherwise():
    world = SimpleNamespace(num_steps=4)
    assert DreamsConfig().dials(world).num_steps == 4 and DreamsConfig().suited(world).num_steps == 4
    assert DreamsConfig(num_steps=1).dials(world).num_steps == 1 == DreamsConfig(num_steps=1).suited(world).num_steps


def test_damage_needs_health(game):
    with pytest.raises(ValueError, match="damage needs the variable health"):
        DreamsConfig(damage=1.0).check(replace(game, variable_names=("ammo2",)))
