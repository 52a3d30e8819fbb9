import numpy as np
import pytest

from neural_env.data.episode import split_of
from neural_env.envs.real_doom import RealDoom
from neural_env.wrappers import RealStarts

CONTEXT = 4


@pytest.fixture
def starts(dream):
    """RealStarts around the one dream; closing it would close the dream too."""
    made = []

    def make(**arguments):
        made.append(RealStarts(dream, **arguments))
        return made[-1]

    yield make
    for env in made:
        env._games.past.close()


def test_the_dream_begins_where_the_real_game_has_got_to(starts, dream):
    env = starts(warmup=(3, 9))
    observation, info = env.reset(seed=4)
    about = info["real_start"]
    assert 3 + CONTEXT - 1 <= about["steps"] <= 9 + CONTEXT - 1
    real, games = RealDoom("take_cover"), env._games
    frames, actions = [real.reset(seed=about["seed"])[0]], []
    games._policy.reset(np.random.default_rng([about["seed"], 1]))
    for _ in range(about["steps"]):
        actions.append(games._policy.act(frames[-1], np.empty(0)))
        frames.append(real.step(actions[-1])[0])
    real.close()
    options = {"context": np.stack(frames[-CONTEXT:]), "actions": np.array(actions[1 - CONTEXT :], np.int32)}
    alone, _ = dream.reset(seed=4, options=options)
    assert np.array_equal(alone, observation)


def test_equal_seeds_give_equal_starts_and_resets_go_on_with_the_stream(starts, fake):
    env = starts()
    first = [env.reset(seed=1)[1]["real_start"], *(env.reset()[1]["real_start"] for _ in range(3))]
    again = [env.reset(seed=1)[1]["real_start"], *(env.reset()[1]["real_start"] for _ in range(3))]
    assert first == again
    assert len({about["seed"] for about in first}) == 4
    assert env.reset(seed=2)[1]["real_start"] != first[0]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_seeds_are_of_the_split(starts, fake, split):
    env = starts(split=split, warmup=(0, 3))
    env.reset(seed=0)
    for _ in range(20):
        env.reset()
    assert len(set(env._games.past.real.seeds)) == 21
    assert {split_of(seed) for seed in env._games.past.real.seeds} == {split}


def test_one_engine_serves_all_resets(starts, fake):
    env = starts(warmup=(0, 3))
    for seed in range(4):
        env.reset(seed=seed)
    assert fake.made == 1 and len(env._games.past.real.seeds) == 4


def test_a_game_that_ends_on_the_way_is_begun_anew_with_another_seed(starts, fake):
    fake.ends = (6, True)
    env = starts(warmup=(0, 20))
    for seed in range(5):
        steps = env.reset(seed=seed)[1]["real_start"]["steps"]
        assert steps < 6 and env._games.past.real.time == steps
    assert len(env._games.past.real.seeds) > 5


def test_where_every_game_ends_too_soon_it_is_said(starts, fake):
    fake.ends = (2, True)
    with pytest.raises(RuntimeError, match="100 real games in a row ended"):
        starts().reset(seed=0)


def test_the_policy_is_the_one_that_is_named(starts, fake):
    env = starts(policy="noop", warmup=(9, 9))
    env.reset(seed=0)
    assert env._games.past.real.actions == [0] * 12
    moving = starts(policy="random", warmup=(40, 40))
    moving.reset(seed=0)
    assert set(moving._games.past.real.actions) == {0, 1, 2}


def test_the_episode_goes_on_as_a_dream(starts, fake):
    env = starts()
    env.reset(seed=0)
    observation, _reward, _terminated, _truncated, info = env.step(1)
    assert env.observation_space.contains(observation) and "real_start" not in info
    assert len(env._games.past.real.actions) == env._games.past.real.time


def test_closing_closes_both(make_dream, fake):
    env = RealStarts(make_dream())
    env.reset(seed=0)
    env.close()
    assert env._games.past.real.closed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup": (5, 3)}, "fewest <= most"),
        ({"warmup": (-1, 3)}, "fewest <= most"),
        ({"warmup": (1,)}, "two integers"),
        ({"warmup": (0, 2.5)}, "two integers"),
        ({"policy": "clever"}, "unknown policy 'clever'; choose one of sticky_random, random, noop"),
        ({"split": "holdout"}, "unknown split 'holdout'"),
        ({"scenario": "basic"}, "'basic' has the actions noop, move_left, move_right, attack, the world"),
        ({"scenario": "nowhere"}, "unknown scenario"),
    ],
)
def test_what_makes_no_sense_is_refused(dream, arguments, message):
    with pytest.raises(ValueError, match=message):
        RealStarts(dream, **arguments)


def test_reset_takes_no_options(starts, fake):
    with pytest.raises(ValueError, match=r"RealStarts starts the dream from the real game.*\['state'\]"):
        starts().reset(options={"state": None})


def test_only_a_dream_can_have_real_starts():
    real = RealDoom("take_cover")
    with pytest.raises(TypeError, match="wraps a NeuralDoom, got RealDoom"):
        RealStarts(real)
    real.close()
