import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from neural_env import checkpoint
from neural_env.agents.dreams import DreamsConfig, beginnings
from neural_env.agents.planning import Planner, PlanningPolicy
from neural_env.agents.shaping import Shaping
from neural_env.envs.core import DreamState
from neural_env.envs.dream import Dream
from neural_env.world.danger import Danger

GAMMA = 0.9
CONFIG = DreamsConfig(num_steps=1, reward="survival", temperature=0.0)


class Fixed:
    """Danger that depends on the last action alone."""

    def __init__(self, by_action):
        self.by_action = jnp.asarray(by_action)

    def __call__(self, context, actions):
        return self.by_action[actions[:, -1]]


@pytest.fixture(scope="module")
def loaded(tiny_world_folder):
    return checkpoint.load(tiny_world_folder)


@pytest.fixture(scope="module")
def places(loaded):
    states = DreamState(jnp.asarray(loaded.starts.latents), jnp.asarray(loaded.starts.actions))
    return beginnings(loaded.world, states, CONFIG)


def planner(folder, loaded, danger, ahead, config=CONFIG):
    dream = Dream(str(folder), decodes=False)
    return Planner(dream, config, config.dials(loaded.world), Shaping(danger, 50.0, GAMMA), ahead)


@pytest.mark.parametrize("ahead", [1, 3])
def test_an_outlook_is_what_is_paid_less_the_danger_left(tiny_world_folder, loaded, places, ahead):
    outlooks = planner(tiny_world_folder, loaded, Fixed([0.1, 0.5, 0.9]), ahead).outlooks(places, jax.random.key(0))
    tics = sum(GAMMA**i * 4 for i in range(ahead))  # hardly ever does a dream of this world end
    assert outlooks.shape == (8, 3) and outlooks.dtype == np.float32
    np.testing.assert_allclose(outlooks, tics - GAMMA**ahead * 50 * np.tile([0.1, 0.5, 0.9], (8, 1)), rtol=5e-3)


def test_what_may_end_the_dream_weighs_what_comes_after_it(mortal_world_folder, places):
    mortal = checkpoint.load(mortal_world_folder)
    one, three = (
        planner(mortal_world_folder, mortal, Fixed([0.0] * 3), ahead).outlooks(places, jax.random.key(0)).mean()
        for ahead in (1, 3)
    )
    p = 1 / (1 + np.e)  # of ending, each step; noise of the weights on top
    assert one == pytest.approx(4, rel=1e-5)  # the step itself is paid for
    assert three < 4 * (1 + GAMMA + GAMMA**2) - 1 and three == pytest.approx(
        sum(4 * (GAMMA * (1 - p)) ** i for i in range(3)), rel=0.15
    )


def test_expected_damage_counts_where_it_has_a_price(tiny_world_folder, loaded, places):
    none, priced = (
        planner(
            tiny_world_folder, loaded, Fixed([0.0] * 3), 2, DreamsConfig(num_steps=1, temperature=0.0, damage=damage)
        ).outlooks(places, jax.random.key(0))
        for damage in (0.0, 5.0)
    )
    assert (priced <= none).all() and (priced < none).any()


def test_equal_keys_are_equal_outlooks(tiny_world_folder, loaded, places):
    danger = Danger((15, 20), places.states.context.shape[-1], 4, 3, rngs=nnx.Rngs(0))
    config = DreamsConfig(num_steps=1)
    first, again, other = (
        planner(tiny_world_folder, loaded, danger, 2, config).outlooks(places, jax.random.key(key)) for key in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


class Preferring:
    """A planner for which the last action promises most; keeps what it was asked."""

    ahead = 3

    def __init__(self, dream):
        self.dream, self.seen = dream, []

    def outlooks(self, places, key):
        self.seen.append(places)
        return np.eye(3, dtype=np.float32)[[2]]


def test_a_planning_player_looks_at_the_last_frames_and_its_own_actions(tiny_world_folder, loaded):
    planner = Preferring(Dream(str(tiny_world_folder), decodes=False))
    policy = PlanningPolicy(planner)
    frames = np.random.default_rng(0).integers(0, 256, (6, 120, 160, 3)).astype(np.uint8)
    latents = np.asarray(loaded.world.encode(jnp.asarray(frames)))
    for _ in range(2):  # the second episode knows nothing of the first
        policy.reset(np.random.default_rng(0))
        planner.seen.clear()
        assert [policy.act(frame, np.array([90.0])) for frame in frames] == [2] * 6
        first, last = planner.seen[0], planner.seen[-1]
        np.testing.assert_allclose(first.states.context[0], [latents[0]] * 4, atol=1e-4)
        np.testing.assert_array_equal(first.states.actions, [[0, 0, 0]])
        np.testing.assert_allclose(last.states.context[0], latents[2:], atol=1e-4)
        np.testing.assert_array_equal(last.states.actions, [[2, 2, 2]])
        np.testing.assert_array_equal(last.variables, [[90.0]])
    assert policy.name == "planning(take_cover, ahead=3)" and policy.sees == ("screen", "variables")


def test_a_plan_looks_ahead(tiny_world_folder, loaded):
    with pytest.raises(ValueError, match="looks at least 1 step ahead, got 0"):
        planner(tiny_world_folder, loaded, Fixed([0.0] * 3), 0)
