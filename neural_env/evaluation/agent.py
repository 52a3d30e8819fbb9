"""`neural-env evaluate agent`: an agent's score in the real game, beside two that know nothing, on the same seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neural_env.agents.player import Agent, AgentPolicy, read_agent
from neural_env.command import command_line
from neural_env.data.episode import Split
from neural_env.data.play import play
from neural_env.data.policies import Policy, StickyRandom
from neural_env.data.shards import write_whole
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.world import seeds_of

Scores = dict[str, Any]

_RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True, kw_only=True)
class RealGames:
    """Which games of held-out seeds are played, and where their scores go. Raises `ValueError`."""

    episodes: int = 100  # of as many seeds
    split: Split = "test"  # whose seeds are played; tune on validation, report on test
    first_seed: int = 0  # the first seeds of the split from here on
    max_episode_steps: int = 525  # an episode is cut off after so many steps
    json: Path | None = None  # file for the scores

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        if self.first_seed < 0:
            raise ValueError(f"first_seed must be at least 0, got {self.first_seed}")

    def scores(self, env: RealDoom, name: str, policy: Policy, actions: str, command: str) -> Scores:
        """Of the policy, and of either random player on the same seeds; `actions` says how the policy chose them."""
        seeds = seeds_of(self.split, self.episodes, self.first_seed)
        return {
            "scenario": env.game.scenario,
            "split": self.split,
            "seeds": [seeds[0], seeds[-1]],
            "episodes": self.episodes,
            "actions": actions,
            "max_episode_tics": self.max_episode_steps * env.game.frame_skip,
            "command": command,
            "players": _beside_random(env, name, policy, seeds, self.max_episode_steps),
        }

    def tell(self, scores: Scores) -> None:
        """Print the scores and, if asked, keep them: whole or not at all."""
        Console().print(table(scores))
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.json, (json.dumps(scores, indent=2) + "\n").encode())


@dataclass(frozen=True, kw_only=True)
class EvaluateAgentConfig(RealGames):
    """Score an agent in the real game on held-out seeds, beside uniform and sticky random players."""

    agent: Path  # folder made by `neural-env train agent`, or one of its versions
    scenario: str | None = None  # what to play; what the agent was trained on by default
    iwad: str | None = None  # path of a game to play it in; what the agent was trained in by default
    greedy: bool = False  # take the likeliest action; by default actions are drawn, as in training
    plot: Path | None = None  # PNG for the learning curve of the training run


def evaluate_agent(config: EvaluateAgentConfig) -> Scores:
    """Plays, prints and, if asked, keeps the scores.

    Raises:
        CheckpointError: there is no agent in the folder.
        ValueError: the agent plays another game, or there is no episode to play.
    """
    agent = read_agent(config.agent)
    if config.plot is not None:
        plot_learning(config.agent / "metrics.jsonl", config.plot, title=f"{agent.game.scenario}: PPO in the real game")
    scores = measure(config, agent)
    config.tell(scores)
    return scores


def _make(config: EvaluateAgentConfig, agent: Agent) -> RealDoom:
    """The game to play; starts no engine."""
    trained = agent.provenance
    scenario = config.scenario or str(trained.get("scenario", agent.game.scenario))
    iwad, automap = config.iwad or trained.get("iwad"), agent.policy.config.automap
    env = RealDoom(scenario, agent.game.resolution, agent.game.frame_skip, iwad=iwad, automap=automap)
    if env.action_names != agent.game.action_names:
        raise ValueError(
            f"the agent knows the actions {agent.game.action_names}, {scenario!r} has {env.action_names}: "
            "give the scenario that it was trained on"
        )
    return env


def measure(config: EvaluateAgentConfig, agent: Agent) -> Scores:
    """The scores of the agent and of both random players, on equal seeds."""
    actions = "greedy" if config.greedy else "sampled"
    with closing(_make(config, agent)) as env:
        scores = config.scores(env, "agent", AgentPolicy(agent, greedy=config.greedy), actions, command_of(config))
    return {**scores, "agent": agent.provenance}


def _beside_random(env: RealDoom, name: str, policy: Policy, seeds: Sequence[int], max_steps: int) -> Scores:
    """A row for the policy, and one for either random player on the same seeds."""
    actions = len(env.game.action_names)
    players: dict[str, Policy] = {
        name: policy,
        "uniform random": StickyRandom(actions, 0.0),
        "sticky random": StickyRandom(actions, 0.5),
    }
    results = {name: played(env, policy, seeds, max_steps) for name, policy in players.items()}
    mean = {name: returns.mean() for name, (returns, _) in results.items()}
    return {
        name: {
            "policy": players[name].name,
            "mean_return": float(mean[name]),
            "deviation": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
            "confidence_95": bootstrap(returns),
            "mean_tics": float(steps.mean() * env.game.frame_skip),
            "ratio_to_uniform_random": _ratio(mean[name], mean["uniform random"]),
            "ratio_to_sticky_random": _ratio(mean[name], mean["sticky random"]),
            "returns": returns.tolist(),
        }
        for name, (returns, steps) in results.items()
    }


def played(env: RealDoom, policy: Policy, seeds: Sequence[int], max_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return and number of steps of each episode."""
    episodes = (play(env, policy, seed=seed, max_steps=max_steps) for seed in track(seeds, policy.name))
    rows = [(float(episode.rewards.sum()), len(episode)) for episode in episodes]
    returns, steps = np.array(rows).T
    return returns, steps


def bootstrap(returns: np.ndarray) -> list[float]:
    """The 95 % confidence interval of the mean: percentiles of resampled means (Efron)."""
    rows = np.random.default_rng(0).integers(len(returns), size=(_RESAMPLES, len(returns)))
    low, high = np.percentile(returns[rows].mean(axis=1), [2.5, 97.5])
    return [float(low), float(high)]


def _ratio(mean: float, baseline: float) -> float | None:
    """None where the baseline earns nothing or less: then a ratio says nothing."""
    return float(mean / baseline) if baseline > 0 else None


def command_of(config: EvaluateAgentConfig) -> str:
    """The command line that measures the same again."""
    settings = {**asdict(config), "greedy": config.greedy or None}
    return command_line("neural-env evaluate agent", settings, left_out=("json", "plot"))


def table(scores: Scores) -> Table:
    """The scores as people read them, 80 columns wide."""
    seeds = f"{scores['split']} seeds {scores['seeds'][0]} to {scores['seeds'][1]}"
    title = (
        f"{scores['scenario']}: {scores['episodes']} episodes, {seeds}; agent {scores['actions']}, the others random"
    )
    grid = Table(title=title, title_justify="left")
    for heading in ("player", "return", "sd", "95 % of mean", "tics", "x uniform", "x sticky"):
        grid.add_column(heading, justify="left" if heading == "player" else "right", no_wrap=True)
    for name, row in scores["players"].items():
        low, high = row["confidence_95"]
        ratios = [row[f"ratio_to_{other}_random"] for other in ("uniform", "sticky")]
        grid.add_row(
            name.removesuffix(" random"),
            f"{row['mean_return']:.2f}",
            f"{row['deviation']:.2f}",
            f"{low:.1f} to {high:.1f}",
            f"{row['mean_tics']:.0f}",
            *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    return grid


def plot_learning(metrics: Path, picture: Path, *, title: str, window: int = 10) -> None:
    """The mean return of the episodes that ended in each update, by step, and its mean over `window` updates.

    Raises `ValueError` if the file is missing or no episode ended.
    """
    if not metrics.is_file():
        raise ValueError(f"{metrics} is missing: --plot needs the folder of a training run")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps, returns = np.array([(row["step"], row["return"]) for row in rows if "return" in row]).reshape(-1, 2).T
    if not len(steps):
        raise ValueError(f"no episode ended in {metrics}: train for longer before drawing a curve")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    smooth = [returns[max(0, i + 1 - window) : i + 1].mean() for i in range(len(returns))]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(steps, returns, color="tab:blue", alpha=0.3, linewidth=1, label="an update's episodes")
    axes.plot(steps, smooth, color="tab:blue", label=f"mean of {window} updates")
    axes.set(xlabel="environment steps", ylabel="return (the scenario's own reward)", xlim=(0, steps[-1]))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    plt.close(figure)
