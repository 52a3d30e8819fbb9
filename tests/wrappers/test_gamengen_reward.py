import doctest
import json
from dataclasses import asdict, replace

import gymnasium as gym
import numpy as np
import pytest

from neural_env.agents.rewards import GameNGenWeights
from neural_env.data.vizdoom import SIGNALS
from neural_env.envs.real_doom import RealDoom
from neural_env.wrappers import gamengen_reward
from neural_env.wrappers.gamengen_reward import GameNGenReward

CALM = dict.fromkeys(SIGNALS, 0.0) | {"health": 100.0, "ammo": 50.0, "position_x": 1000.0, "position_y": -500.0}


class Scripted(gym.Env):
    """Tells the signals it was given, one set a step; the scenario pays 7."""

    observation_space = gym.spaces.Box(0, 255, (1, 1, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, *script):
        self.script = script

    def reset(self, *, seed=None, options=None):
        self.left = list(self.script)
        return np.zeros((1, 1, 3), np.uint8), {"signals": self.left.pop(0), "kept": 1}

    def step(self, action):
        return np.zeros((1, 1, 3), np.uint8), 7.0, False, False, {"signals": self.left.pop(0), "kept": 2}


def terms_of(*changes, weights=None):
    """What each step pays, when the calm signals change so."""
    env = GameNGenReward(Scripted(CALM, *(CALM | change for change in changes)), weights)
    env.reset()
    steps = [env.step(0) for _ in changes]
    assert all(reward == sum(info["reward_terms"].values()) for _, reward, _, _, info in steps)
    return [{name: term for name, term in info["reward_terms"].items() if term} for *_, info in steps]


@pytest.mark.parametrize(
    ("change", "terms"),
    [
        ({}, {}),
        ({"hits_taken": 2}, {"hit": -200}),
        ({"dead": 1}, {"death": -5000}),
        ({"hitcount": 3}, {"enemy_hit": 900}),
        ({"killcount": 2}, {"enemy_kill": 2000}),
        ({"itemcount": 1}, {"pick_up": 100}),
        ({"weapons": 1}, {"pick_up": 100}),
        ({"secretcount": 1}, {"secret": 500}),
        ({"health": 80}, {"health": -200}),
        ({"health": 125}, {"health": 250}),
        ({"armor": 50}, {"armor": 500}),
        ({"ammo": 60}, {"ammo": 100}),
        ({"ammo": 47}, {"ammo": -3}),
        ({"hits_taken": 1, "health": -3, "dead": 1}, {"hit": -100, "health": -1030, "death": -5000}),
    ],
)
def test_each_change_pays_what_the_paper_says(change, terms):
    assert terms_of(change) == [terms]


def test_a_state_that_lasts_is_paid_once():
    hurt = {"hits_taken": 1, "health": 90}
    assert terms_of(hurt, hurt) == [{"hit": -100, "health": -100}, {}]


def test_a_new_area_pays_by_its_distance_and_only_once():
    def at(x, y):
        return {"position_x": 1000.0 + x, "position_y": -500.0 + y}

    # The start is the middle of a square of 256 units.
    steps = terms_of(at(127, 0), at(129, 0), at(0, 0), at(130, 5), at(300, -300), at(-600, 0))
    paid = [step.get("new_area", 0) for step in steps]
    assert paid == [0, 20 * 1.5, 0, 0, 20 * (1 + 0.5 * 2), 20 * (1 + 0.5 * 2)]


def test_areas_are_new_again_in_the_next_episode():
    there = {"position_x": 1300.0}
    env = GameNGenReward(Scripted(CALM, CALM | there))
    for _ in range(2):
        env.reset()
        assert env.step(0)[4]["reward_terms"]["new_area"] == 30


def test_the_scenarios_own_reward_and_the_rest_of_info_stay():
    env = GameNGenReward(Scripted(CALM, CALM | {"killcount": 1}))
    assert env.reset()[1]["kept"] == 1
    _, reward, _, _, info = env.step(0)
    assert (reward, info["scenario_reward"], info["kept"]) == (1000, 7.0, 2)


def test_weights_can_be_changed_one_by_one():
    weights = replace(GameNGenWeights(), enemy_kill=1.0, ammo_spent=0.0)
    change = {"killcount": 1, "ammo": 40}
    assert terms_of(change, weights=weights) == terms_of(change, weights=asdict(weights)) == [{"enemy_kill": 1}]


def test_the_wrapper_is_rebuilt_from_its_spec():
    env = GameNGenReward(gym.make("neural_env:RealDoom-v0", scenario="basic", signals=True), {"hit": -7.0})
    spec = json.loads(env.spec.to_json())
    assert spec["additional_wrappers"][-1]["kwargs"]["weights"]["hit"] == -7.0
    again = gym.make(env.spec)
    while not isinstance(again, GameNGenReward):
        again = again.env
    assert again._weights == GameNGenWeights(hit=-7.0)
    again.close()


def test_an_environment_without_signals_is_refused_with_the_cure():
    env = GameNGenReward(RealDoom("basic"))
    with pytest.raises(ValueError, match="make the environment with signals=True"):
        env.reset(seed=0)
    env.close()


def test_an_area_of_no_size_is_refused():
    with pytest.raises(ValueError, match=r"area_units must be above 0 map units, got 0"):
        GameNGenWeights(area_units=0)


def test_death_in_the_real_game_is_paid_for():
    env = GameNGenReward(RealDoom("take_cover", signals=True))
    env.reset(seed=2)
    terminated, total = False, dict.fromkeys(("hit", "death", "health"), 0.0)
    while not terminated:
        _, _, terminated, _, info = env.step(0)
        total = {name: total[name] + info["reward_terms"][name] for name in total}
    env.close()
    assert total["death"] == -5000 and total["hit"] <= -100 and total["health"] <= -1000


def test_the_example_in_the_docstring_runs():
    results = doctest.testmod(gamengen_reward)
    assert results.attempted > 0 and results.failed == 0
