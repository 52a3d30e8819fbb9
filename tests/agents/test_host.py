import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neural_env.agents.games import Games, GamesConfig, training_seed
from neural_env.agents.host import HostPlayer, groups_for
from neural_env.agents.player import new_policy
from neural_env.agents.policy import begin
from neural_env.agents.ppo import Transition, _batch, _minibatch, initial_state, preset_named, rollout_in_dream
from neural_env.world.parameters import replaced

TINY = preset_named("tiny")


@pytest.fixture(scope="module")
def played():
    """Three roll-outs of two games whose episodes are at most four steps long."""
    config = GamesConfig(scenario="basic", games=2, workers=2, repeat=0.2, max_episode_steps=4)
    policy = new_policy(TINY.policy, config.game)
    params = initial_state(policy, TINY.ppo).params
    with Games(config) as games:
        player = HostPlayer(games, policy, TINY.ppo, record=True)
        numbers, rollouts = [player.next_episode], []
        for i in range(3):
            rollouts.append(player.rollout(params, jax.random.key(i), version=i, skill=None if i == 0 else 10.0 * i))
            numbers.append(player.next_episode)
    return policy, params, rollouts, numbers


def test_a_rollout_of_real_games_has_the_form_of_a_dreamed_one(played):
    policy, _, rollouts, _ = played

    def step(carry, actions):
        screens = jnp.zeros((2, 120, 160, 3), jnp.uint8)
        flags = jnp.zeros(2, bool)
        return carry, Transition(screens, screens, actions, jnp.zeros(2), flags, flags)

    def dream(key):
        memory = begin(policy, jnp.zeros((2, 120, 160, 3), jnp.uint8))
        return rollout_in_dream(step, policy, jnp.zeros(()), memory, key, TINY.ppo.n_steps)[2]

    dreamed = jax.eval_shape(dream, jax.random.key(0))._asdict()
    for name, array in rollouts[0][0]._asdict().items():
        assert (array.shape, array.dtype) == (dreamed[name].shape, dreamed[name].dtype), name


def test_what_is_learnt_from_is_what_was_seen(played):
    """The values of a minibatch are those given while playing, across episodes and roll-outs."""
    policy, params, rollouts, _ = played
    for rollout, _ in rollouts:
        device = jax.tree.map(jnp.asarray, rollout)
        part = _minibatch(device, _batch(device, device.values), jnp.arange(TINY.ppo.transitions))
        _, values = replaced(policy, params)(part.frames, part.past_actions)
        np.testing.assert_allclose(values, rollout.values.reshape(-1), atol=1e-4)


def test_an_episode_cut_off_leaves_the_value_of_its_last_frame(played):
    _, _, rollouts, _ = played
    for rollout, _ in rollouts:
        cut = rollout.truncated
        assert cut.any() and (rollout.final_values[cut] != 0).all() and not (cut & rollout.terminated).any()


def test_ended_episodes_are_handed_over_whole(played):
    policy, _, rollouts, _ = played
    episodes = [one for _, ended in rollouts for one in ended]
    assert len(episodes) >= 8
    for one in episodes:
        assert one.steps == len(one.episode) <= 4
        assert one.scenario_return == pytest.approx(one.episode.rewards.sum())
    first = next(one.episode for one in episodes if one.episode.seed == training_seed(0))
    assert policy.view(jnp.asarray(first.frames[:1])).tolist() == [rollouts[0][0].frames[1, 0].tolist()]
    versions = {one.episode.policy_version: one.episode.skill for one in episodes}
    assert versions == {0: None, 1: 10.0, 2: 20.0}


def test_numbers_of_episodes_that_nobody_has_begun(played):
    _, _, rollouts, numbers = played
    begun = {one.episode.seed for _, ended in rollouts for one in ended}
    assert numbers[0] == 2 and numbers == sorted(numbers)
    assert training_seed(numbers[-1]) > max(begun)


@pytest.mark.parametrize(("cores", "workers", "groups"), [(2, 2, 1), (2, 1, 1), (3, 2, 2), (16, 8, 2), (16, 16, 1)])
def test_games_are_played_in_two_groups_where_a_core_is_free(monkeypatch, cores, workers, groups):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert groups_for(workers) == groups
