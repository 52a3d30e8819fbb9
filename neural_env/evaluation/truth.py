"""`neural-env evaluate truth`: where a dream fails an agent, found by swapping in the truth piece by piece.

The agent plays the dream while the real game takes the same actions beside it, as in `wrappers.ShadowMode`. A row says
what was true in it: the frames, by bringing the dream back to real ones every so many steps; the rewards; the
terminations. The row at which the score comes near the real one names the piece that is wrong. All of them count from
the moment at which the dream begins, after a context of no-ops.

* An agent that scores far more in the dream, and no more with true terminations: it isn't told of its death.
* One that scores little with true rewards and terminations, and more the oftener frames are true: the pictures drift.
* One that scores little even with frames true at every step: a single step is too blurred, or it has learnt too little.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neural_env.agents.eyes import codes
from neural_env.agents.player import Agent, AgentPolicy, read_agent
from neural_env.data.episode import Split
from neural_env.envs.core import Carry
from neural_env.envs.dials import Dials
from neural_env.envs.dream import Beginning, Dream, Scene
from neural_env.evaluation.agent import bootstrap
from neural_env.evaluation.world import seeds_of
from neural_env.wrappers.real_past import RealPast
from neural_env.wrappers.shadow_mode import period_of

Scores = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TruthConfig:
    """Play a dream with parts of it replaced by the truth. Raises `ValueError`."""

    agent: Path  # folder made by `neural-env train dream-agent`, or one of its versions
    checkpoint: str = "take_cover"  # the dream: bundled world, a checkpoint folder, or hf://owner/name
    num_steps: int | None = None  # denoising steps a frame; by default as many as suit the world
    temperature: float = 1.0  # of the sample and of the draw that ends an episode
    context_noise: float = 0.0  # level at which the past is corrupted
    sync: tuple[str, ...] = ("never", "32", "8", "1")  # frames: steps between two times that they are made real
    episodes: int = 20  # real games of as many seeds
    split: Split = "validation"  # whose seeds
    max_episode_steps: int = 525  # a game is cut off after so many steps
    json: Path | None = None  # file for the scores

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        for sync in self.sync:
            period_of(_number(sync))


class Course(NamedTuple):
    """One game, as both worlds tell it; the dream goes on alone where the real game has ended."""

    dreamed_rewards: np.ndarray  # [t]
    real_rewards: np.ndarray  # [at most t]
    dreamed_end: int | None  # steps after which the dream said that it was over
    real_end: int | None  # steps after which it was; None: time ran out first


def evaluate_truth(config: TruthConfig) -> Scores:
    """Plays, prints and, if asked, keeps the scores.

    Raises:
        CheckpointError: there is no agent, or no world.
        ValueError: the agent plays another game than the world dreams.
    """
    agent = read_agent(config.agent)
    dream = Dream(config.checkpoint, decodes=agent.eyes is None)
    if dream.game != agent.game:
        raise ValueError(f"the agent plays {agent.game}, the world dreams {dream.game}: give the world it learned in")
    seeds = seeds_of(config.split, config.episodes)
    with closing(RealPast(dream.game)) as past:
        rows = [row for sync in config.sync for row in _rows(sync, _courses(config, agent, dream, past, sync, seeds))]
        player = AgentPolicy(agent)
        real = [_real_return(config, player, past, dream.context_length, seed) for seed in track(seeds, "real game")]
    rows.append(_row("always", "true", "true", real))
    scores = {"agent": str(config.agent), "checkpoint": config.checkpoint, "seeds": [seeds[0], seeds[-1]], "rows": rows}
    Console().print(table(scores))
    if config.json is not None:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        temporary = config.json.with_suffix(".tmp")
        temporary.write_text(json.dumps(scores, indent=2) + "\n")
        temporary.replace(config.json)
    return scores


def _number(sync: str) -> str | int:
    return int(sync) if sync.isdigit() else sync


def _courses(
    config: TruthConfig, agent: Agent, dream: Dream, past: RealPast, sync: str, seeds: list[int]
) -> list[Course]:
    policy, period = AgentPolicy(agent), period_of(_number(sync))
    return [_course(config, policy, dream, past, period, seed) for seed in track(seeds, f"frames true: {sync}")]


def _course(
    config: TruthConfig, policy: AgentPolicy, dream: Dream, past: RealPast, period: int | None, seed: int
) -> Course:
    """Terminations are noted and passed over, until both worlds are over or time is."""
    dials = Dials(
        num_steps=config.num_steps or dream.world.num_steps,
        temperature=config.temperature,
        context_noise=config.context_noise,
    )
    policy.reset(np.random.default_rng([seed, 1]))
    past.warm_up(seed, dream.context_length)
    scene = dream.encode(**past.context())
    carry = _placed(dream, scene, np.asarray(jax.random.key_data(jax.random.key(seed))))
    shown: Any = scene.context[-1] if scene.frame is None else scene.frame
    dreamed: list[float] = []
    real: list[float] = []
    dreamed_end = real_end = None
    for step in range(1, config.max_episode_steps + 1):
        if period is not None and real_end is None and step > 1 and (step - 1) % period == 0:
            carry = _placed(dream, dream.encode(**past.context()), np.asarray(carry.key))
        action = policy.act_on(shown[None] if shown.dtype == np.uint8 else codes(shown[None]))
        shown, after = dream.advance(carry, action, dials)
        carry = after.state
        dreamed.append(float(after.reward))
        if dreamed_end is None and bool(after.terminated):
            dreamed_end = step
        if real_end is None:
            _, reward, terminated, truncated, _ = past.step(action)
            real.append(reward)
            real_end = step if terminated or truncated else None
        if dreamed_end is not None and real_end is not None:
            break
    return Course(np.array(dreamed), np.array(real), dreamed_end, real_end)


def _real_return(config: TruthConfig, policy: AgentPolicy, past: RealPast, context: int, seed: int) -> float:
    """What the agent gets in the real game alone, from the moment at which a dream of the same seed begins."""
    policy.reset(np.random.default_rng([seed, 1]))
    past.warm_up(seed, context)
    total = 0.0
    for _ in range(config.max_episode_steps):
        _, reward, terminated, truncated, _ = past.step(policy.act(past.frame, np.empty(0)))
        total += reward
        if terminated or truncated:
            break
    return total


def _placed(dream: Dream, scene: Scene, key: np.ndarray) -> Carry:
    return dream.place(Beginning(*scene, key))


def _rows(sync: str, courses: list[Course]) -> list[Scores]:
    """What each course comes to by either world's rewards and either world's ends.

    Real rewards end with the real game, whatever the dream says.
    """
    return [
        _row(sync, rewards, ends, [_score(course, rewards, ends) for course in courses])
        for rewards, ends in (("dreamed", "dreamed"), ("dreamed", "true"), ("true", "dreamed"), ("true", "true"))
    ]


def _score(course: Course, rewards: str, ends: str) -> float:
    paid = course.dreamed_rewards if rewards == "dreamed" else course.real_rewards
    end = course.dreamed_end if ends == "dreamed" else course.real_end
    return float(paid[:end].sum())


def _row(frames: str, rewards: str, ends: str, returns: list[float]) -> Scores:
    each = np.array(returns)
    swapped = {"frames_true": frames, "rewards": rewards, "terminations": ends}
    return {**swapped, "mean_return": float(each.mean()), "confidence_95": bootstrap(each), "returns": returns}


def table(scores: Scores) -> Table:
    """The scores as people read them; the last row is the real game."""
    grid = Table(title=f"{scores['checkpoint']}: {scores['agent']}", title_justify="left")
    for heading in ("frames true every", "rewards", "terminations", "return", "95 % of mean"):
        grid.add_column(heading, justify="right" if heading in ("return", "95 % of mean") else "left")
    for row in scores["rows"]:
        low, high = row["confidence_95"]
        told = (row["frames_true"], row["rewards"], row["terminations"])
        grid.add_row(*told, f"{row['mean_return']:.1f}", f"{low:.1f} to {high:.1f}")
    return grid
