"""Evaluation of a world that is always right, of one that is always wrong, and of the tiny one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env.data.episode import Episode, split_of
from neural_env.data.policies import StickyRandom
from neural_env.evaluation import world as evaluation
from neural_env.evaluation.frames import psnr
from neural_env.evaluation.world import Dials, Dreamer, autoregressive, force, teacher_forced, windows_of
from neural_env.world.model import WorldModel
from neural_env.world.outcome import Outcome

CONTEXT = 4


def next_value(value, action):
    """The law of a game whose screen is one grey level."""
    return (value + 3 + 20 * action) % 251


def episode(seed, steps, terminated):
    rng = np.random.default_rng(seed)
    actions = rng.integers(3, size=steps, dtype=np.int32)
    values = [int(rng.integers(251))]
    for action in actions:
        values.append(next_value(values[-1], action))
    if terminated:  # the engine shows no frame after the last one
        values[-1] = values[-2]
    column = np.array(values)
    return Episode(
        frames=np.broadcast_to(column[:, None, None, None], (steps + 1, 6, 8, 3)).astype(np.uint8),
        actions=actions,
        rewards=actions.astype(np.float32),
        variables=column[:, None].astype(np.float32),
        signals=np.zeros((steps + 1, 0), np.float32),
        terminated=terminated,
        truncated=not terminated,
        seed=seed,
        policy="none",
    )


@pytest.fixture(scope="module")
def episodes():
    return [episode(0, 30, True), episode(10, 12, False), episode(20, 3, True), episode(30, 25, True)]


class Oracle(WorldModel):
    """Knows the law, and in which moments an action is the last; its latents are the frames."""

    def __init__(self, episodes):
        last = [e for e in episodes if e.terminated]
        self.context = CONTEXT
        self.latent_shape = (6, 8, 3)
        self.fatal = nnx.Variable(jnp.array([[e.frames[-2, 0, 0, 0], e.actions[-1]] for e in last]))

    def encode(self, frames):
        return frames.astype(jnp.float32)

    def decode(self, latent):
        return latent.astype(jnp.uint8)

    def imagine(self, key, context, actions, **dials):
        return next_value(context[:, -1], actions[:, -1, None, None, None])

    def foretell(self, context, actions, latent):
        now = jnp.stack([context[:, -1, 0, 0, 0], actions[:, -1]], axis=1)
        ends = (now[:, None] == self.fatal[...][None]).all(axis=2).any(axis=1)
        reward = actions[:, -1].astype(float)
        had_it_gone_on = reward + 5 * ends
        return Outcome(had_it_gone_on, jnp.where(ends, 99.0, -99.0), latent[:, 0, 0, :1], reward, latent[:, 0, 0, :1])


class Blind(Oracle):
    def imagine(self, key, context, actions, **dials):
        return super().imagine(key, context, jnp.zeros_like(actions))


class Wrong(Oracle):
    """Ten grey levels off, wherever a frame comes from; foretells an end with a quarter's probability, always."""

    def decode(self, latent):
        return jnp.where(latent < 128, latent + 10, latent - 10).astype(jnp.uint8)

    def foretell(self, context, actions, latent):
        right = super().foretell(context, actions, latent)
        reward = right.last_reward + 2
        return Outcome(reward, jnp.full(len(actions), -jnp.log(3.0)), right.variables - 7, reward, right.variables)


@pytest.fixture(scope="module")
def oracle(episodes):
    return Oracle(episodes)


# Seeds and windows.


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(("count", "first"), [(1, 0), (5, 0), (3, 7), (4, 1_000_001)])
def test_seeds_are_those_of_the_split_in_order(split, count, first):
    seeds = evaluation.seeds_of(split, count, first)
    assert len(seeds) == count and seeds == sorted(set(seeds)) and seeds[0] >= first
    assert all(split_of(seed) == split for seed in seeds)
    assert not any(split_of(seed) == split for seed in range(first, seeds[-1]) if seed not in seeds)


def test_windows_are_all_of_the_episodes_transitions_with_a_full_past(episodes):
    windows = windows_of(episodes, CONTEXT)
    assert len(windows.actions) == sum(max(0, len(e) - CONTEXT + 1) for e in episodes) == 27 + 9 + 22
    row = 5  # of the first episode: the sixth window, whose present frame is number 8
    assert (windows.frames[row] == episodes[0].frames[5:9]).all()
    assert (windows.actions[row] == episodes[0].actions[5:9]).all()
    assert (windows.after[row] == episodes[0].frames[9]).all()
    assert windows.rewards[row] == episodes[0].rewards[8] and windows.variables[row] == episodes[0].variables[9]


def test_a_window_ends_where_its_episode_terminates_and_not_where_it_was_cut_off(episodes):
    assert np.flatnonzero(windows_of(episodes, CONTEXT).ends).tolist() == [26, 57]


def test_episodes_that_are_all_too_short_are_refused(episodes):
    with pytest.raises(ValueError, match="no episode is longer than the context of 4 frames: play more"):
        windows_of(episodes[2:3], CONTEXT)


# Teacher-forced.


def test_the_law_tells_the_moments_before_an_end_from_all_others(oracle, episodes):
    windows = windows_of(episodes, CONTEXT)
    outcomes = force(Dreamer(oracle, Dials()), windows).outcomes
    assert ((outcomes.termination > 0.5) == windows.ends).all()


def test_fewer_pictures_are_of_windows_spread_evenly_and_outcomes_of_all(oracle, episodes):
    windows = windows_of(episodes, CONTEXT)
    forced = force(Dreamer(oracle, Dials()), windows, pictures=10)
    assert len(forced.frames) == len(forced.reconstructed) == len(forced.shuffled) == len(forced.shown) == 10
    assert len(forced.outcomes.rewards) == len(windows) == 58 and not forced.shown.ends.any()
    assert set(forced.shown.episode) == {0, 1, 3} and (forced.frames == forced.shown.after).all()


def test_true_and_other_actions_meet_the_same_noise(episodes):
    class Noisy(Blind):
        def imagine(self, key, context, actions, **dials):
            return super().imagine(key, context, actions) + 40 * jax.random.normal(key, context[:, -1].shape)

    windows = windows_of(episodes, CONTEXT)
    forced = force(Dreamer(Noisy(episodes), Dials()), windows, pictures=10)
    assert forced.swapped.any() and (forced.frames == forced.shuffled).all()  # it is blind: nothing else could differ


def test_a_world_that_is_always_right_has_perfect_scores(oracle, episodes):
    scores = teacher_forced(oracle, windows_of(episodes, CONTEXT), Dials())
    assert scores["psnr"] == scores["autoencoder_psnr"] == scores["true_where_swapped_psnr"] == 60
    assert scores["reward_mean_absolute_error"] == 0 and scores["reward_agreement"] == 1
    assert scores["termination_agreement"] == scores["termination_recall"] == 1
    assert scores["termination_false_alarms_per_1000"] == scores["variable_0_mean_absolute_error"] == 0
    assert (scores["frames"], scores["termination_events"], scores["termination_steps"]) == (56, 2, 58)


def test_the_baselines_are_those_of_the_real_frames(oracle, episodes):
    windows = windows_of(episodes, CONTEXT)
    scores = teacher_forced(oracle, windows, Dials())
    alive = ~windows.ends
    held = psnr(windows.frames[alive, -1], windows.after[alive]).mean()
    assert scores["copy_last_psnr"] == pytest.approx(held)
    assert scores["shuffled_where_swapped_psnr"] < scores["shuffled_psnr"] < 60


def test_a_world_blind_to_actions_gains_nothing_from_the_true_ones(episodes):
    scores = teacher_forced(Blind(episodes), windows_of(episodes, CONTEXT), Dials())
    assert scores["psnr"] == scores["shuffled_psnr"] < 60


def test_a_world_that_errs_is_scored_by_how_much(episodes):
    windows = windows_of(episodes, CONTEXT)
    scores = teacher_forced(Wrong(episodes), windows, Dials())
    assert scores["psnr"] == scores["autoencoder_psnr"] == pytest.approx(20 * np.log10(25.5))
    assert scores["reward_mean_absolute_error"] == 2 and scores["reward_agreement"] == 0
    assert scores["termination_recall"] == pytest.approx(0.25)
    assert scores["termination_agreement"] == pytest.approx((2 * 0.25 + 56 * 0.75) / 58)
    assert scores["termination_false_alarms_per_1000"] == pytest.approx(250)
    assert scores["variable_0_mean_absolute_error"] == 7


def test_without_terminations_there_is_no_recall(oracle, episodes):
    scores = teacher_forced(oracle, windows_of(episodes[1:2], CONTEXT), Dials())
    assert "termination_recall" not in scores and scores["termination_agreement"] == 1


# Autoregressive.


@pytest.mark.parametrize("rollouts", [1, 5, 20])
def test_a_dream_that_follows_the_law_stays_true_for_the_whole_horizon(oracle, episodes, rollouts):
    scores = autoregressive(oracle, episodes, Dials(), horizon=9, rollouts=rollouts)
    assert scores.psnr.shape == scores.copy_first_psnr.shape == (rollouts, 9)
    assert (scores.psnr == 60).all()
    assert (scores.dreamed == scores.real).all() and scores.real.shape == (9, 6, 8, 3)


def test_the_baseline_holds_the_last_real_frame(oracle, episodes):
    scores = autoregressive(oracle, episodes[1:2], Dials(), horizon=8, rollouts=1)
    real = episodes[1].frames
    expected = psnr(np.broadcast_to(real[3], (8, 6, 8, 3)), real[4:12])
    np.testing.assert_allclose(scores.copy_first_psnr, [expected])
    assert (scores.real == real[4:12]).all()


def test_the_longest_horizon_that_an_episode_allows_is_allowed_and_no_longer(oracle, episodes):
    autoregressive(oracle, episodes[:1], Dials(), horizon=26, rollouts=1)
    with pytest.raises(ValueError, match="no episode has the 31 steps of a context and a roll-out: play longer"):
        autoregressive(oracle, episodes[:1], Dials(), horizon=27, rollouts=1)


# The tiny world and the real game.


@pytest.fixture(scope="module")
def real(game):
    return evaluation.real_episodes(game, evaluation.seeds_of("test", 2), max_steps=14)


@pytest.mark.slow
def test_real_episodes_are_played_from_test_seeds(real):
    assert [(e.seed, e.split, len(e)) for e in real] == [(0, "test", 14), (10, "test", 14)]
    assert {e.policy for e in real} == {"sticky_random(repeat=0.5)"}


class MapReader(StickyRandom):
    """Looks at screen and map; counts the channels that it is shown."""

    sees = ("screen", "automap")

    def act(self, frame, variables):
        self.channels = frame.shape[-1]
        return super().act(frame, variables)


@pytest.mark.slow
def test_a_player_that_looks_at_the_map_is_shown_it(game):
    player = MapReader(3)
    (episode,) = evaluation.real_episodes(game, [1], [player], max_steps=2)
    assert player.channels == 6 and episode.frames.shape == (3, 120, 160, 3)


@pytest.mark.slow
def test_a_world_of_random_weights_is_scored_and_found_wanting(tiny_world, real):
    windows = windows_of(real, CONTEXT)
    scores = teacher_forced(tiny_world, windows, Dials())
    assert np.isfinite(list(scores.values())).all() and scores["frames"] == 22
    assert scores["psnr"] < 20 < scores["copy_last_psnr"]
    assert scores["termination_false_alarms_per_1000"] < 1 and "variable_0_mean_absolute_error" in scores
    more = teacher_forced(tiny_world, windows, Dials(num_steps=2, context_noise=0.5))
    assert more["psnr"] != scores["psnr"] and more["copy_last_psnr"] == scores["copy_last_psnr"]


@pytest.mark.slow
def test_the_dream_starts_from_the_truth_and_sees_its_own_frames(tiny_world, real):
    scores = autoregressive(tiny_world, real, Dials(), horizon=6, rollouts=3)
    assert scores.psnr.shape == (3, 6) and np.isfinite(scores.psnr).all()
    assert scores.dreamed.shape == (6, 120, 160, 3) and scores.dreamed.dtype == np.uint8


@pytest.mark.slow
def test_a_long_dream_is_a_function_of_its_seed(tiny_world, tiny_starts):
    first, again, other = (evaluation.long_dream(tiny_world, tiny_starts, Dials(), 10, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (10, 120, 160, 3)
    assert (first == again).all() and (first != other).any()
    assert jax.default_backend() == "cpu"
