"""The agents that come with the repository and learned in bundled worlds only: they see and play as they did then."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import neural_env
from neural_env.agents.eyes import codes
from neural_env.agents.foreseer import Foreseer
from neural_env.agents.player import read_agent
from neural_env.checkpoint import bundled_names
from neural_env.training.dream_agent import real_returns

AGENTS = Path(__file__).parents[2] / "runs" / "agents"
DREAMED = sorted(folder.name for folder in AGENTS.glob("*_dreamed"))


def test_there_is_one_for_every_bundled_world():
    assert set(DREAMED) == {f"{world}_dreamed" for world in bundled_names()}


@pytest.mark.parametrize("name", DREAMED)
def test_it_sees_what_its_world_sees(name):
    agent, bundled = read_agent(AGENTS / name), neural_env.load(name.removesuffix("_dreamed"))
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, *agent.game.resolution, 3), np.uint8))
    assert agent.game == bundled.game
    np.testing.assert_array_equal(agent.eyes(frames), codes(bundled.world.encode(frames)))


def test_the_one_that_imitates_planning_sees_as_danger_is_seen():
    assert isinstance(read_agent(AGENTS / "take_cover_dreamed").policy, Foreseer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, least",
    [
        ("take_cover_dreamed", 500),  # tics; random play lives for some 290, few games of it for 500
        ("defend_the_center_dreamed", 2.0),  # kills less deaths; random play has 0.3 +- 1.0
    ],
)
def test_it_plays_the_real_game_far_better_than_chance(name, least):
    """Twelve games of validation seeds."""
    assert np.mean(real_returns(read_agent(AGENTS / name), 12, 525)) > least
