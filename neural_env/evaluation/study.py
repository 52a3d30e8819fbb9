"""All metrics of one world on one set of real episodes: what the report, the comparison and the card are made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from neural_env.checkpoint import Checkpoint
from neural_env.data.episode import Episode
from neural_env.evaluation import classifier, controllability, drift, fidelity, outcome, speed, stability
from neural_env.evaluation.bars import Bar, bars_of
from neural_env.evaluation.report import kept_scores
from neural_env.evaluation.rows import Row
from neural_env.evaluation.weights import Net, require_weights
from neural_env.evaluation.world import Dials, Dreamer, Forced, Rollouts, RolloutScores, force, roll, windows_of
from neural_env.evaluation.world import drift as drift_of

BudgetName: TypeAlias = Literal["quick", "full"]


@dataclass(frozen=True)
class Budget:
    """How much is measured."""

    episodes: int  # real episodes, of as many seeds
    pictures: int  # next frames that are compared
    costly: int  # of these, those for SSIM, LPIPS and JPEG
    nets: tuple[Net, ...]  # LPIPS by these networks
    rollouts: int  # dreams of `horizon` steps
    dreams: int  # dreams left to themselves
    many_steps: tuple[int, ...]  # denoising steps to compare, as far as the world can make them
    windows: int  # that they are compared on
    taught: int  # windows that the inverse model learns from
    probe_steps: int  # updates of the inverse model and of each classifier
    horizon: int = 64  # fewer where no episode is that long
    length: int = 1000  # steps of the dreams left to themselves


BUDGETS: dict[BudgetName, Budget] = {
    "quick": Budget(12, 320, 64, ("alexnet",), 24, 4, (1, 4), 64, 600, 100),
    "full": Budget(50, 5000, 512, ("alexnet", "vgg16"), 128, 16, (1, 2, 4, 8), 512, 4000, 500),
}


@dataclass(frozen=True, eq=False)
class Study:
    """What was found, with the material that it was found in."""

    rows: list[Row]
    bars: list[Bar]
    scores: dict[str, Any]  # what the checkpoint keeps of itself with `--write`
    forced: Forced
    rollouts: Rollouts
    drift: RolloutScores
    long: stability.LongDreams
    seconds: dict[str, float] = field(default_factory=dict)  # that each part took


def study(checkpoint: Checkpoint, dials: Dials, episodes: Sequence[Episode], budget: Budget) -> Study:
    """Measures everything.

    Raises:
        ValueError: the episodes are too short, as `world.windows_of` and `world.roll`.
    """
    world, game = checkpoint.world, checkpoint.game
    clock = _Clock()
    nets = available(budget.nets)
    dreamer = Dreamer(world, dials)
    with clock.of("dreams"):
        forced = force(dreamer, windows_of(episodes, dreamer.context), budget.pictures)
        rollouts = roll(dreamer, episodes, horizon_of(episodes, dreamer.context, budget), budget.rollouts)
        scores = drift_of(rollouts)
        long = stability.dream_long(dreamer, episodes, len(game.action_names), budget.dreams, budget.length)
    some = forced.shown[_evenly(len(forced.shown), budget.windows)]
    parts: dict[str, Callable[[], list[Row]]] = {
        "next frame": lambda: _next_frame(forced, budget, nets, [episode.policy for episode in episodes]),
        "steps": lambda: speed.step_rows(world, dreamer, some, dials, budget.many_steps),
        "autoregressive": lambda: drift.drift_rows(rollouts, scores),
        "left to itself": lambda: stability.stability_rows(long, vgg=bool(nets)),
        "outcome": lambda: outcome.outcome_rows(forced, game.variable_names),
        "controllability": lambda: [
            *controllability.swap_rows(forced),
            *controllability.inverse_rows(
                forced.windows, rollouts, len(game.action_names), budget.taught, budget.probe_steps
            ),
        ],
        "classifier": lambda: classifier.classifier_rows(rollouts, budget.probe_steps),
        "speed": lambda: speed.speed_rows(checkpoint, dials),
    }
    rows: list[Row] = []
    for name, part in parts.items():
        with clock.of(name):
            rows += part()
    kept = kept_scores(episodes, dials, forced, scores)
    return Study(rows, bars_of(rows), kept, forced, rollouts, scores, long, clock.seconds)


def horizon_of(episodes: Sequence[Episode], context: int, budget: Budget) -> int:
    """Steps of a roll-out: the budget's, or as many as the longest episode allows, at least 1."""
    return max(min(budget.horizon, max(map(len, episodes)) - context), 1)


def available(nets: tuple[Net, ...]) -> tuple[Net, ...]:
    """These networks, or none if the package with their weights isn't installed."""
    try:
        require_weights()
    except ImportError:
        return ()
    return nets


def _next_frame(forced: Forced, budget: Budget, nets: tuple[Net, ...], players: Sequence[str]) -> list[Row]:
    rows = fidelity.frame_rows(forced, budget.costly, nets)
    if not nets:
        rows.append(Row(fidelity.SECTION, "LPIPS", None, note='needs pip install "neural-env[metrics]"'))
    return [*rows, *fidelity.policy_rows(forced, players)]


def _evenly(total: int, count: int) -> np.ndarray:
    return np.linspace(0, total - 1, min(count, total)).astype(int)


class _Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Times what is inside."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 1)
