import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.agents.policy import ActorCritic, PolicyConfig, begin
from neural_env.agents.ppo import (
    PPOConfig,
    ReturnScale,
    Rollout,
    Transition,
    _batch,
    _measured,
    _minibatch,
    advantages_of,
    initial_state,
    make_update,
    preset_named,
    rollout_in_dream,
)
from neural_env.world.parameters import replaced

POLICY = PolicyConfig(shrink=1, stack=2, past_actions=1, convolutions=((8, 4, 4),), features=16, hidden=())
PPO = PPOConfig(games=8, n_steps=16, minibatch=64, epochs=4, learning_rate=3e-3, final_learning_rate=3e-3, entropy=0.0)
LENGTH = 10  # steps after which the toy cuts its episodes off


def draw(sides):
    """A screen whose bright half says what to do."""
    left = jnp.arange(8)[None, None, :, None] < 4
    return jnp.where(left == (sides == 1)[:, None, None, None], 200, 20).astype(jnp.uint8) * jnp.ones(
        (1, 8, 1, 3), jnp.uint8
    )


def toy(carry, actions):
    """Pays 1 for the side that is bright now; a wrong action ends the episode with probability a half."""
    key, sides, ages = carry
    key, key_side, key_end = jax.random.split(key, 3)
    right = actions == sides
    terminated = ~right & jax.random.bernoulli(key_end, 0.5, sides.shape)
    truncated = ~terminated & (ages + 1 == LENGTH)
    following = jax.random.bernoulli(key_side, 0.5, sides.shape).astype(jnp.int32)
    after = Transition(draw(following), draw(sides), actions, right.astype(jnp.float32), terminated, truncated)
    return (key, following, jnp.where(terminated | truncated, 0, ages + 1)), after


@pytest.fixture(scope="module")
def policy():
    return ActorCritic(POLICY, 2, (8, 8), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def start(policy):
    sides = jnp.zeros(PPO.games, jnp.int32)
    return (jax.random.key(1), sides, jnp.zeros(PPO.games, jnp.int32)), begin(policy, draw(sides))


@pytest.fixture(scope="module")
def roll(policy):
    @jax.jit
    def roll(params, carry, memory, key):
        return rollout_in_dream(toy, replaced(policy, params), carry, memory, key, PPO.n_steps)

    return roll


@pytest.fixture(scope="module")
def update(policy):
    return make_update(policy, PPO, 40)


def test_ppo_learns_a_toy_world_in_a_compiled_rollout(policy, start, roll, update):
    state, (carry, memory) = initial_state(policy, PPO), start
    paid = []
    for i in range(40):
        key_play, key_learn = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
        carry, memory, rollout = roll(state.params, carry, memory, key_play)
        state, logs = update(state, rollout, key_learn)
        paid.append(float(rollout.rewards.mean()))
    assert paid[0] < 0.65  # a player who knows nothing is right half of the time
    assert np.mean(paid[-3:]) > 0.95
    assert int(state.step) == 40 and np.isfinite(float(logs["value_loss"]))
    assert update._cache_size() == 1 and roll._cache_size() == 1  # compiled once


def test_a_rollout_says_what_was_seen_done_and_paid(policy, start, roll):
    carry, memory = start
    _, following, rollout = roll(initial_state(policy, PPO).params, carry, memory, jax.random.key(5))
    t, n = PPO.n_steps, PPO.games
    assert rollout.frames.shape == (t + 1, n, 8, 8, 3) and rollout.past_actions.shape == (t, n, 1)
    bright = np.asarray(rollout.frames[1:, :, 0, 0, 0]) == 200  # what was to be done
    assert (np.asarray(rollout.rewards) == (bright == rollout.actions)).all()
    ended = np.asarray(rollout.terminated | rollout.truncated)
    ages = np.asarray(rollout.ages)
    assert ended.any() and (ages[1:][ended[:-1]] == 0).all() and (ages[1:] == ages[:-1] + 1)[~ended[:-1]].all()
    assert (np.asarray(rollout.past_actions[1:, :, 0]) == np.where(ended[:-1], 2, rollout.actions[:-1])).all()
    assert (np.asarray(following.frames[-2]) == rollout.frames[-1]).all()
    np.testing.assert_allclose(np.exp(rollout.log_probs), 0.5, atol=0.1)


def test_rollouts_go_on_where_the_last_one_ended(policy, start, roll):
    params = initial_state(policy, PPO).params
    carry, memory, first = roll(params, *start, jax.random.key(5))
    _, _, second = roll(params, carry, memory, jax.random.key(6))
    assert (np.asarray(second.frames[0]) == first.frames[-1]).all()
    np.testing.assert_allclose(second.values[0], first.last_values, atol=1e-6)


def test_a_minibatch_sees_what_the_policy_saw(policy, start, roll):
    """Its values are those of the roll-out; frames of before the roll-out, and of before the episode, count too."""
    params = initial_state(policy, PPO).params
    carry, memory, _ = roll(params, *start, jax.random.key(5))
    _, _, rollout = roll(params, carry, memory, jax.random.key(6))
    rows = jnp.arange(PPO.transitions)
    part = _minibatch(rollout, _batch(rollout, rollout.values), rows)
    _, values = replaced(policy, params)(part.frames, part.past_actions)
    np.testing.assert_allclose(values, rollout.values.reshape(-1), atol=1e-5)


def test_a_truncated_episode_is_bootstrapped_and_a_terminated_one_is_not():
    nothing, flag = jnp.zeros((3, 1)), jnp.zeros((3, 1), bool)
    middle = flag.at[1].set(True)
    estimate = partial(
        advantages_of, jnp.ones((3, 1)), nothing, jnp.array([8.0]), gamma=0.5, gae_lambda=1.0,
        final_values=jnp.full((3, 1), 6.0),
    )  # fmt: skip
    # 1 + 0.5 * 8 in the last step, whatever went before; what is behind an end reaches nobody.
    assert estimate(terminated=middle, truncated=flag)[:, 0].tolist() == [1.5, 1.0, 5.0]
    assert estimate(terminated=flag, truncated=middle)[:, 0].tolist() == [3.0, 4.0, 5.0]
    assert estimate(terminated=flag, truncated=flag)[:, 0].tolist() == [2.75, 3.5, 5.0]


def test_advantages_are_the_papers_sum():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 6, 2)).astype(np.float32)
    last, ends = rng.normal(size=2).astype(np.float32), np.zeros((6, 2), bool)
    found = advantages_of(rewards, values, last, ends, ends, values, gamma=0.9, gae_lambda=0.8)
    deltas = rewards + 0.9 * np.concatenate([values[1:], last[None]]) - values  # equation 12
    expected = [sum((0.9 * 0.8) ** k * deltas[t + k] for k in range(6 - t)) for t in range(6)]  # equation 11
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_return_scale_is_the_deviation_over_all_rollouts():
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 5, (20, 4)).astype(np.float32) for _ in range(3)]
    scale = ReturnScale(jnp.asarray(1e-4), jnp.zeros(()), jnp.zeros(()))
    for rewards in parts:
        ends = np.ones((20, 4), bool)  # each step an episode: the return is the reward
        scale = _measured(scale, rollout_of(rewards, ends), 0.99)
    assert float(scale.deviation) == pytest.approx(np.concatenate(parts).std(), rel=1e-3)


def rollout_of(rewards, terminated):
    t, n = rewards.shape
    zeros, none = np.zeros((t, n), np.float32), np.zeros((t, n), bool)
    frames = np.zeros((t + 1, n, 8, 8, 3), np.uint8)
    whole = np.zeros((t, n), np.int32)
    return Rollout(
        frames, whole, np.zeros((t, n, 1), np.int32), whole, zeros, zeros, rewards, terminated, none, zeros, zeros[0]
    )


def test_the_size_of_the_reward_changes_nothing(policy, start, roll):
    """Rewards are scaled by their own deviation, so 1 a kill and 1000 a kill are learned alike."""
    _, _, rollout = roll(initial_state(policy, PPO).params, *start, jax.random.key(5))
    update = make_update(policy, PPO, 40)
    one, _ = update(initial_state(policy, PPO), rollout, jax.random.key(0))
    other, _ = update(initial_state(policy, PPO), rollout._replace(rewards=1000 * rollout.rewards), jax.random.key(0))
    for name, array in one.params.items():
        np.testing.assert_allclose(array, other.params[name], atol=1e-4)


def test_an_update_is_a_function_of_state_rollout_and_key(policy, start, roll, update):
    _, _, rollout = roll(initial_state(policy, PPO).params, *start, jax.random.key(5))
    one, other, third = (update(initial_state(policy, PPO), rollout, jax.random.key(k))[0] for k in (0, 0, 1))
    assert all((one.params[name] == other.params[name]).all() for name in one.params)
    assert any((one.params[name] != third.params[name]).any() for name in one.params)


def test_the_learning_rate_falls_over_the_training(policy, start, roll):
    config = replace(PPO, final_learning_rate=1e-3)
    _, _, rollout = roll(initial_state(policy, PPO).params, *start, jax.random.key(5))
    update, state = make_update(policy, config, 2), initial_state(policy, config)
    rates = []
    for _ in range(4):
        state, logs = update(state, rollout, jax.random.key(0))
        rates.append(float(logs["learning_rate"]))
    assert rates == pytest.approx([3e-3, 2e-3, 1e-3, 1e-3])


def test_a_minibatch_that_does_not_divide_the_rollout_is_refused():
    with pytest.raises(ValueError, match="minibatch=100 must divide games"):
        PPOConfig(games=8, n_steps=16, minibatch=100)


def test_the_default_preset_is_the_papers():
    ppo, network = preset_named("gamengen").ppo, preset_named("gamengen").policy
    assert (ppo.games, ppo.n_steps, ppo.minibatch, ppo.epochs) == (8, 512, 64, 10)
    assert (ppo.gamma, ppo.learning_rate, ppo.entropy) == (0.99, 1e-4, 0.1)
    assert (network.past_actions, network.features, len(network.hidden)) == (32, 512, 1)


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no preset 'slow'; there are \['dream', 'fast', .*'tiny'\]"):
        preset_named("slow")


def test_without_rlax_the_extra_is_named(monkeypatch, policy):
    monkeypatch.setitem(sys.modules, "rlax", None)
    with pytest.raises(ImportError, match=r'pip install "neural-env\[agents\]"'):
        make_update(policy, PPO, 1)
