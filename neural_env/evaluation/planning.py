"""`neural-env evaluate planning`: the dream as foresight in the real game, beside two players that know nothing."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from neural_env import checkpoint as checkpoints
from neural_env.agents.dreams import DreamsConfig
from neural_env.agents.planning import Planner, PlanningPolicy
from neural_env.agents.shaping import Shaping
from neural_env.command import command_line
from neural_env.data.episode import Split
from neural_env.envs.dream import Dream
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.agent import Scores, beside_random, table, write_scores
from neural_env.evaluation.world import seeds_of
from neural_env.runtime import usable_cores
from neural_env.training.danger import load_danger


@dataclass(frozen=True, kw_only=True)
class EvaluatePlanningConfig:
    """Plan every move of real games in a dream, and score that on held-out seeds. Raises `ValueError`."""

    checkpoint: str = "take_cover"  # bundled world, or a checkpoint folder
    danger_from: Path = Path("runs/danger/take_cover")  # run in which `neural-env train danger` learned it
    ahead: int = 3  # steps for which every action is dreamed
    gamma: float = 0.95  # discount a step of what they pay
    dreams: DreamsConfig = field(default_factory=lambda: DreamsConfig(damage=1.0, danger=50.0))  # and what they pay
    runtime: str = "auto"  # by what dreams are stepped: auto, xla or openvino
    episodes: int = 100  # of as many seeds
    split: Split = "test"  # whose seeds are played; tune on validation, report on test
    first_seed: int = 0  # the first seeds of the split from here on
    max_episode_steps: int = 525  # an episode is cut off after so many steps
    json: Path | None = None  # file for the scores

    def __post_init__(self) -> None:
        for name in ("ahead", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma is a discount in [0, 1), got {self.gamma}")


def evaluate_planning(config: EvaluatePlanningConfig) -> Scores:
    """Plays, prints and, if asked, keeps the scores.

    Raises:
        CheckpointError: an unusable world.
        ValueError: the run knows no danger, or that of other latents than the world's.
    """
    began, seeds = time.monotonic(), seeds_of(config.split, config.episodes, config.first_seed)
    policy = planning_policy(config)
    game = checkpoints.read_game(config.checkpoint)
    with closing(RealDoom(game.scenario, game.resolution, game.frame_skip)) as env:
        players = beside_random(env, "planning", policy, seeds, config.max_episode_steps)
    scores: Scores = {
        "scenario": game.scenario,
        "split": config.split,
        "seeds": [seeds[0], seeds[-1]],
        "episodes": config.episodes,
        "actions": f"planned {config.ahead} steps ahead",
        "max_episode_tics": config.max_episode_steps * game.frame_skip,
        "command": command_of(config),
        "minutes": (time.monotonic() - began) / 60,
        "players": players,
    }
    Console().print(table(scores))
    if config.json is not None:
        write_scores(scores, config.json)
    return scores


def planning_policy(config: EvaluatePlanningConfig) -> PlanningPolicy:
    """The player that the settings describe."""
    world = checkpoints.load(config.checkpoint)
    config.dreams.check(world.game)
    shaping = Shaping(load_danger(config.danger_from, world), config.dreams.danger, config.gamma)
    dream = Dream(config.checkpoint, decodes=False, runtime=config.runtime, streams=usable_cores())
    return PlanningPolicy(Planner(dream, config.dreams, config.dreams.dials(world.world), shaping, config.ahead))


def command_of(config: EvaluatePlanningConfig) -> str:
    """The command line that measures the same again: what differs from the defaults."""
    given, usual = (_flat(each) for each in (config, EvaluatePlanningConfig()))
    return command_line("neural-env evaluate planning", given, usual=usual, left_out=("json",))


def _flat(config: EvaluatePlanningConfig) -> Scores:
    values = asdict(config)
    dreams = values.pop("dreams")
    return {**values, **dreams}
