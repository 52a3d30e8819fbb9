import json

import numpy as np
import pytest

from neural_env.agents.player import Agent, new_policy, save_agent
from neural_env.agents.ppo import preset_named
from neural_env.evaluation.agent import EvaluateAgentConfig, bootstrap, evaluate_agent, plot_learning
from neural_env.game import GameConfig

BASIC = GameConfig("basic", ("noop", "move_left", "move_right", "attack"), ("ammo2",), 4, (120, 160))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An agent that has learnt nothing."""
    folder = tmp_path_factory.mktemp("agent")
    save_agent(Agent(new_policy(preset_named("tiny").policy, BASIC), BASIC, {"updates": 0}), folder)
    return folder


def test_all_players_play_the_same_seeds_and_the_scores_are_their_means(folder):
    config = EvaluateAgentConfig(agent=folder, episodes=3, split="validation", max_episode_steps=30)
    scores = evaluate_agent(config)
    assert scores["seeds"] == [1, 21] and scores["max_episode_tics"] == 120 and scores["actions"] == "sampled"
    for row in scores["players"].values():
        assert len(row["returns"]) == 3 and row["mean_return"] == pytest.approx(np.mean(row["returns"]))
        assert row["deviation"] == pytest.approx(np.std(row["returns"], ddof=1))
        low, high = row["confidence_95"]
        assert min(row["returns"]) <= low <= row["mean_return"] <= high <= max(row["returns"])
        assert 4 <= row["mean_tics"] <= 120
        assert row["ratio_to_uniform_random"] is None  # `basic` pays less than nothing to a random player
    assert evaluate_agent(config) == scores


def test_take_covers_return_is_the_time_survived(folder):
    from neural_env.envs.real_doom import RealDoom

    env = RealDoom("take_cover")
    agent = folder.parent / "cover"
    save_agent(Agent(new_policy(preset_named("tiny").policy, env.game), env.game, {}), agent)
    scores = evaluate_agent(EvaluateAgentConfig(agent=agent, episodes=2))
    row = scores["players"]["uniform random"]
    assert row["mean_return"] == pytest.approx(row["mean_tics"], abs=4)  # the last step is held for up to 4 tics
    assert row["ratio_to_uniform_random"] == 1.0


def test_the_interval_is_that_of_the_mean():
    returns = np.random.default_rng(1).normal(100, 20, 400)
    low, high = bootstrap(returns)
    assert (low, high) == pytest.approx((returns.mean() - 1.96, returns.mean() + 1.96), abs=0.2)
    assert bootstrap(np.array([5.0, 5.0])) == [5.0, 5.0]


def test_a_scenario_of_other_actions_is_refused(folder):
    with pytest.raises(ValueError, match="give the scenario that it was trained on"):
        evaluate_agent(EvaluateAgentConfig(agent=folder, scenario="take_cover", episodes=1))


def test_games_that_there_are_none_of_are_refused(folder):
    with pytest.raises(ValueError, match="first_seed must be at least 0, got -1"):
        EvaluateAgentConfig(agent=folder, first_seed=-1)
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        evaluate_agent(EvaluateAgentConfig(agent=folder, episodes=0))


def test_a_curve_needs_a_run_in_which_an_episode_ended(folder, tmp_path):
    with pytest.raises(ValueError, match="--plot needs the folder of a training run"):
        evaluate_agent(EvaluateAgentConfig(agent=folder, episodes=1, plot=tmp_path / "curve.png"))
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps({"step": 16, "split": "train"}) + "\n")
    with pytest.raises(ValueError, match="train for longer"):
        plot_learning(metrics, tmp_path / "curve.png", title="")
