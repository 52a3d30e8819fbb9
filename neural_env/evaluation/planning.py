"""`neural-env evaluate planning`: the dream as foresight in the real game, beside two players that know nothing."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from neural_env import checkpoint as checkpoints
from neural_env.agents.dreams import DreamsConfig
from neural_env.agents.planning import Planner, PlanningPolicy
from neural_env.agents.shaping import Shaping
from neural_env.command import command_line
from neural_env.envs.dream import Dream
from neural_env.envs.real_doom import RealDoom
from neural_env.evaluation.agent import RealGames, Scores
from neural_env.runtime import usable_cores
from neural_env.training.danger import load_danger


@dataclass(frozen=True, kw_only=True)
class EvaluatePlanningConfig(RealGames):
    """Plan every move of real games in a dream, and score that on held-out seeds. Raises `ValueError`."""

    checkpoint: str = "take_cover"  # bundled world, a checkpoint folder, or hf://owner/name
    danger_from: Path = Path("runs/danger/take_cover")  # run in which `neural-env train danger` learned it
    ahead: int = 3  # steps for which every action is dreamed
    gamma: float = 0.95  # discount a step of what they pay
    dreams: DreamsConfig = field(default_factory=lambda: DreamsConfig(damage=1.0, danger=50.0))  # and what they pay
    runtime: str = "auto"  # by what dreams are stepped: auto, xla or openvino

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ahead < 1:
            raise ValueError(f"ahead must be at least 1, got {self.ahead}")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma is a discount in [0, 1), got {self.gamma}")


def evaluate_planning(config: EvaluatePlanningConfig) -> Scores:
    """Plays, prints and, if asked, keeps the scores.

    Raises:
        CheckpointError: an unusable world.
        ValueError: the run knows no danger, or that of other latents than the world's.
    """
    began, policy = time.monotonic(), planning_policy(config)
    game = checkpoints.read_game(config.checkpoint)
    actions = f"planned {config.ahead} steps ahead"
    with closing(RealDoom(game.scenario, game.resolution, game.frame_skip)) as env:
        scores = config.scores(env, "planning", policy, actions, command_of(config))
    scores["minutes"] = (time.monotonic() - began) / 60
    config.tell(scores)
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
