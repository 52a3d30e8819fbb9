"""What `neural-env transfer` shows: a Markdown table, learning curves and a film."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from neural_env.agents.dreams import DreamsConfig
from neural_env.agents.player import Agent, AgentPolicy
from neural_env.data.play import play
from neural_env.envs.neural_doom import NeuralDoom
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.film import side_by_side, write_film
from neural_env.game import TICS_PER_SECOND

Scores = dict[str, Any]
_COLUMNS = (
    "player", "real score", "sd of games", "sd of agents", "95 % of the mean", "score in the dream", "real frames",
    "minutes",
)  # fmt: skip
_WINDOW = 10  # updates that a curve in the real game is averaged over


def markdown(report: Scores) -> str:
    """The report as a table; ends in a newline."""
    settings, rows = report["settings"], report["rows"]
    agents, split = settings["seeds"], settings["split"]
    lines = [
        f"**{report['scenario']}**: {agents} agent(s) trained in the dream of `{report['checkpoint']}` only, "
        f"{_lesson(settings)}, then {settings['episodes']} real games of {split} seeds each.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    names = {"dream": f"**{'imitating planning' if settings['plan'] else 'PPO'}, in the dream only**"}
    lines += [_row(names.get(name, name), row) for name, row in rows.items()]
    return "\n".join([*lines, "", *_notes(report), f"    {report['command']}", ""])


def _lesson(settings: Scores) -> str:
    """What an agent learns from."""
    if settings["plan"]:
        return f"each by imitating plans of {settings['plan']} steps from {settings['starts']} moments"
    return f"{settings['total_steps']} dreamed steps each"


def _row(name: str, row: Scores) -> str:
    low, high = row["confidence_95"]
    dreamed = row.get("dream")
    cells = [
        name,
        f"{row['mean_return']:.1f}",
        f"{row['deviation']:.1f}",
        _or_dash(row["deviation_of_seeds"], ".1f"),
        f"{low:.1f} to {high:.1f}",
        "-" if dreamed is None else f"{dreamed['mean_return']:.1f} ({100 * dreamed['died']:.0f} % end)",
        _or_dash(row.get("real_frames"), ",d"),
        _or_dash(row.get("minutes"), ".1f"),
    ]
    return f"| {' | '.join(cells)} |"


def _or_dash(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def _notes(report: Scores) -> list[str]:
    row = report["rows"]["dream"]
    notes = [
        "The score is the scenario's own reward. `real frames` of a dream-trained agent are those of its world's data; "
        "what those who played them had learned from before isn't counted."
    ]
    if report["world_players"]:
        notes.append(f"The players of these data: {'; '.join(report['world_players'])}.")
    if row["flattery"] is not None:
        notes.append(f"In its dream the agent scores {row['flattery']:.2f} times what it scores in the game.")
    settings = report["settings"]
    whole = settings["total_steps"]
    # One that imitates is there once all is planned and learned.
    if not settings["plan"] and any(seed["steps"] < whole for seed in row["seeds"]):
        steps = ", ".join(str(seed["steps"]) for seed in row["seeds"])
        notes.append(f"Training isn't finished: {steps} of {whole} steps; run again to go on.")
    return [" ".join(notes), ""]


def real_curve(run: Path) -> list[Scores]:
    """The learning curve of a training in the real game: frames, minutes, mean return of the episodes that ended.

    Minutes are of training: time between two runs of the program isn't counted.
    """
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = sorted({row["step"]: row for row in rows if row["split"] == "train"}.values(), key=lambda row: row["step"])
    points: list[Scores] = []
    returns: list[float] = []
    minutes = 0.0
    for row in rows:
        minutes += sum(row.get(name, 0.0) for name in ("play_seconds", "learn_seconds", "record_seconds")) / 60
        if "return" in row:
            returns = [*returns, row["return"]][-_WINDOW:]
            points.append({"frames": row["step"], "minutes": minutes, "return": float(np.mean(returns))})
    return points


def plot_curves(report: Scores, picture: Path) -> None:
    """Real score by minutes of training, and by frames of the real game."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (by_minutes, by_frames) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    for i, points in enumerate(report["curves"]["dream"]):
        scored = [(point["minutes"], np.mean(point["returns"])) for point in points if "returns" in point]
        if scored:
            label = "in the dream only (validation seeds)" if i == 0 else None
            by_minutes.plot(*np.transpose(scored), color="tab:blue", marker="o", markersize=3, label=label)
    for i, (name, points) in enumerate(report["curves"]["real"].items()):
        returns, label = [point["return"] for point in points], f"in the real game: {name}"
        for axes, along in ((by_minutes, "minutes"), (by_frames, "frames")):
            axes.plot([point[along] for point in points], returns, color=f"C{i + 1}", label=label)
    _mark_dream(report, by_frames)
    for axes, along in ((by_minutes, "minutes of training the agent"), (by_frames, "frames of the real game")):
        level = report["rows"]["uniform random"]["mean_return"]
        axes.axhline(level, color="tab:gray", linestyle=":", label="uniform random")
        axes.set(xlabel=along)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    by_minutes.set(ylabel="return in the real game")
    figure.suptitle(f"{report['scenario']}: agents of {report['checkpoint']}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    plt.close(figure)


def _mark_dream(report: Scores, axes: Any) -> None:
    """The final score, at the frames that its world has seen: the agent itself has seen none."""
    row, frames = report["rows"]["dream"], report["world_real_frames"]
    if frames is None:
        return
    low, high = row["confidence_95"]
    errors = [[row["mean_return"] - low], [high - row["mean_return"]]]
    label = f"in the dream only ({report['settings']['split']} seeds, 95 %)"
    axes.errorbar([frames], [row["mean_return"]], yerr=errors, fmt="o", color="tab:blue", capsize=3, label=label)


def film(agent: Agent, checkpoint: str, dreams: DreamsConfig, seed: int, max_steps: int, path: Path) -> None:
    """The agent in its dream, left, and in the real game, right, for one seed. The shorter one stands still.

    An agent that looks at latents sees those of the decoded frames here, in both worlds alike.
    """
    dream = NeuralDoom(
        checkpoint=checkpoint,
        num_steps=dreams.num_steps,
        context_noise=dreams.context_noise,
        temperature=dreams.temperature,
        termination=dreams.termination,
    )
    with closing(dream), closing(RealDoom(agent.game.scenario, agent.game.resolution, agent.game.frame_skip)) as real:
        policy = AgentPolicy(agent)
        sides = [play(env, policy, seed=seed, max_steps=max_steps).frames for env in (dream, real)]
    last = [frames[-1] for frames in sides]
    pairs = (
        side_by_side(*(end if frame is None else frame for frame, end in zip(pair, last, strict=True)))
        for pair in zip_longest(*sides)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_film(pairs, path, TICS_PER_SECOND / agent.game.frame_skip)
