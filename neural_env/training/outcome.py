"""The outcome model's training: every transition, its outcome aligned with the action that caused it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from neural_env.arrays import Key
from neural_env.evaluation.calibration import (
    Reliability,
    average_precision,
    expected_calibration_error,
    platt,
    reliability,
)
from neural_env.training.latents import LatentData, Windows
from neural_env.training.loop import Batch, DeviceBatch, Logs
from neural_env.world.outcome import BinnedOutcomes, Outcome, PointOutcomes, Truth
from neural_env.world.parameters import parameters, replaced

OutcomeModule: TypeAlias = PointOutcomes | BinnedOutcomes

ENDS_PER_BATCH = 0.25  # share of terminating transitions in a batch, corrected in the loss
EVENTS_PER_BATCH = 0.25  # share of those whose reward, or change of a variable, stands out; corrected likewise
LATENT_NOISE = 0.3  # largest deviation of the noise on latents: a dream's are never as clean as the encoder's
VALIDATION_WINDOWS = 8192  # at most, spread evenly: as rare as they are, terminations show up in so many
CALIBRATING_ENDS = 20  # of the validation data, below which a scale of log-odds would be chance
_CHUNK = 64  # windows at a time in validation


class OutcomeStage:
    """Reward, termination and variables, each with its own loss; the model has the losses, the stage the weights.

    Terminations and other events are drawn far more often than they happen. What is read off the transition is
    weighed down by as much. In what is foretold from the past, the classes keep the batch's balance and the log-odds
    are shifted by what separates it from the game's (Menon et al. 2021, arXiv 2007.07314, eq. 10): rare terminations
    count for as much as their absence, and the probability stays calibrated.
    """

    name = "outcome"

    def __init__(self, training: Windows, validation: Windows, seed: int):
        self._windows = training
        self._strata = strata_of(training)
        self._seed = seed
        self._validation = validation
        chosen = np.linspace(0, len(validation.index) - 1, VALIDATION_WINDOWS).astype(int)
        self._validated = validation.index[np.unique(chosen)]
        self._range = np.ptp(_alive(training.data), axis=0)

    def loss(self, module: OutcomeModule, batch: DeviceBatch, key: Key) -> tuple[jax.Array, Logs]:
        """The sum of the model's losses, each weighed as the batch says."""
        key_level, key_context, key_latent = jax.random.split(key, 3)
        level = LATENT_NOISE * jax.random.uniform(key_level, (len(batch["ends"]), 1, 1, 1))
        context = batch["context"] + level[:, None] * jax.random.normal(key_context, batch["context"].shape)
        latent = batch["latent"] + level * jax.random.normal(key_latent, batch["latent"].shape)
        truth = Truth(batch["reward"], batch["ends"], batch["variables"])
        each = module.losses(context, batch["actions"], latent, truth, batch["over_drawn"])
        read = ("reward", "variables")
        logs = {
            name: (batch["weight" if name in read else "class_weight"] * value).mean() for name, value in each.items()
        }
        return jnp.sum(jnp.stack(list(logs.values()))), logs

    def batch(self, step: int, size: int) -> Batch:
        """Random windows, rare ones over-drawn, with what undoes that.

        `weight` makes a mean over the batch an estimate of the mean over the data, `class_weight` one over the
        terminations and one over the rest; `over_drawn` is by how much the log-odds of the former exceed the data's.
        """
        rng = np.random.default_rng([self._seed, step, 1])
        counts = _shared(size, self._strata)
        chosen = [rng.choice(stratum, count) for stratum, count in zip(self._strata, counts, strict=True)]
        total = sum(len(stratum) for stratum in self._strata)
        repeated = [
            np.full(count, len(stratum) / total * size / max(count, 1))
            for stratum, count in zip(self._strata, counts, strict=True)
        ]
        batch, weight = self._windows.gather(np.concatenate(chosen)), np.concatenate(repeated)
        ends = batch["ends"] == 1
        class_weight, over_drawn = weight.copy(), 0.0
        if 0 < ends.sum() < size:
            class_weight[ends] /= weight[ends].mean()
            class_weight[~ends] /= weight[~ends].mean()
            over_drawn = _log_odds(ends.mean()) - _log_odds(len(self._strata.ends) / total)
        weights = {"weight": weight, "class_weight": class_weight, "over_drawn": over_drawn}
        return {**batch, **{name: np.asarray(value, np.float32) for name, value in weights.items()}}

    def validate(self, module: OutcomeModule) -> dict[str, float]:
        """Scores on the validation split as it is, nothing over-drawn.

        Errors of reward and variables are mean absolute ones in their own units, the variables' also as a share of
        their range. A reward is an event where it stands out; the expected reward's distance from the usual one ranks
        it, and it is recalled where that reward is nearer to the true one than to the usual one.
        """
        truth, foretold = self._outcomes(module, self._validated)
        ends, p = truth.ends == 1, _probability(foretold)
        expected = (1 - p) * foretold.reward + p * foretold.last_reward
        scores = {
            "reward_error": float(np.abs(expected - truth.reward).mean()),
            "termination_when_none": float(p[~ends].mean()),
            "termination_calibration_error": expected_calibration_error(p, ends),
        }
        if ends.any():
            scores["termination_when_due"] = float(p[ends].mean())
            scores["termination_average_precision"] = average_precision(p, ends)
        usual, events = np.median(truth.reward), unusual(truth.reward)
        if events.any():
            recalled = np.abs(expected - truth.reward) < np.abs(expected - usual)
            scores["reward_event_average_precision"] = average_precision(np.abs(expected - usual), events)
            scores["reward_event_recall"] = float(recalled[events].mean())
        errors = np.abs(foretold.variables - truth.variables)[~ends].mean(axis=0)
        for i, error in enumerate(errors):
            scores[f"variable_{i}_error"] = float(error)
            scores[f"variable_{i}_error_of_range"] = float(error / max(self._range[i], 1e-6))
        return scores

    def calibrated(self, module: OutcomeModule) -> tuple[OutcomeModule, Calibration | None]:
        """The module with terminations foretold as surely as validation data bear out; their order stays.

        Training fits rare terminations closely and so foretells them too surely. All validation windows that terminate
        are looked at, beside the validated others. With few of them, or where they aren't told from others, it stays
        as it is, and the calibration is None.
        """
        index = self._validation.index
        ends = index[self._validation.data.ends[index] == 1]
        if len(ends) < CALIBRATING_ENDS:
            return module, None
        others = self._validated[self._validation.data.ends[self._validated] == 0]
        truth, foretold = self._outcomes(module, np.concatenate([ends, others]))
        came, stands_for = truth.ends == 1, (len(index) - len(ends)) / len(others)
        scale, shift = platt(np.asarray(foretold.termination_logit), came, np.where(came, 1.0, stands_for))
        if not scale > 0:
            return module, None
        learned = parameters(module)
        kernel, bias = (learned[f"hazard.out.{name}"] for name in ("kernel", "bias"))
        scaled = {"hazard.out.kernel": scale * kernel, "hazard.out.bias": scale * bias + shift}
        return replaced(module, scaled), Calibration(scale, shift, len(ends))

    def reliability(self, module: OutcomeModule) -> Reliability:
        """Foretold against observed terminations on the validation split."""
        truth, foretold = self._outcomes(module, self._validated)
        return reliability(_probability(foretold), truth.ends == 1)

    def _outcomes(self, module: OutcomeModule, rows: np.ndarray) -> tuple[_Happened, Outcome]:
        """Of the validation windows whose present frames are at `rows`."""
        truths, outcomes = [], []
        for start in range(0, len(rows), _CHUNK):
            part = np.minimum(np.arange(start, start + _CHUNK), len(rows) - 1)  # one shape: the last row fills it up
            batch = self._validation.gather(rows[part])
            truths.append(_Happened(batch["reward"], batch["ends"], batch["variables"]))
            outcomes.append(_foretell(module, *(batch[n] for n in _INPUTS)))
        truth, foretold = (
            jax.tree.map(lambda *columns: np.concatenate(columns)[: len(rows)], *parts) for parts in (truths, outcomes)
        )
        return truth, foretold


_INPUTS = ("context", "actions", "latent")


class Calibration(NamedTuple):
    """What was done to the log-odds of terminations, and by how many that came."""

    scale: float
    shift: float
    ends: int


class _Happened(NamedTuple):
    """A `Truth` on the host."""

    reward: np.ndarray
    ends: np.ndarray
    variables: np.ndarray


@jax.jit
def _foretell(module: OutcomeModule, context: jax.Array, actions: jax.Array, latent: jax.Array) -> Outcome:
    return module(context, actions, latent)


def _probability(foretold: Outcome) -> np.ndarray:
    """Of termination."""
    return np.asarray(jax.nn.sigmoid(foretold.termination_logit))


class Strata(NamedTuple):
    """Windows by what their last transition holds."""

    ends: np.ndarray  # the episode's termination
    events: np.ndarray  # a reward or a change of a variable that stands out
    rest: np.ndarray


def strata_of(windows: Windows) -> Strata:
    """The windows, each in one stratum."""
    data, index = windows.data, windows.index
    ends = data.ends[index] == 1
    change = (data.variables[index + 1] - data.variables[index])[~ends]
    events = np.zeros(len(index), np.bool_)
    events[~ends] = unusual(data.rewards[index[~ends]]) | np.any([unusual(column) for column in change.T], axis=0)
    return Strata(index[ends], index[events], index[~ends & ~events])


def unusual(values: np.ndarray) -> np.ndarray:
    """Which values are further from the median than thrice the mean distance: at most a third of them, bool [m]."""
    distance = np.abs(values - np.median(values))
    return np.asarray(distance > 3 * distance.mean())


def _shared(size: int, strata: Strata) -> list[int]:
    """How many windows of each stratum make up a batch."""
    ends = round(size * ENDS_PER_BATCH) if len(strata.ends) else 0
    events = round(size * EVENTS_PER_BATCH) if len(strata.events) else 0
    return [ends, events, size - ends - events] if len(strata.rest) else [ends, size - ends, 0]


def _log_odds(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def measured(module: OutcomeModule, data: LatentData) -> OutcomeModule:
    """Sets what the model measures on its training data, such as the range of each variable.

    What the variables are after a termination isn't looked at: the game shows it to no one, and a health of -131 would
    stretch the range for nothing.
    """
    arrays = module.statistics(data.rewards, _alive(data))
    return replaced(module, {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()})


def _alive(data: LatentData) -> np.ndarray:
    """The variables [m, v] at all frames but those after a termination."""
    alive = np.ones(len(data.ends), np.bool_)
    alive[np.flatnonzero(data.ends) + 1] = False
    return data.variables[alive]
