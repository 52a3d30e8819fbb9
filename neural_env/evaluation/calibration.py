"""How good foretold probabilities are: whether they rank events first, and whether they mean what they say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit


def average_precision(scores: Float[np.ndarray, " m"], events: Bool[np.ndarray, " m"]) -> float:
    """Area under the precision-recall curve: the sum of (R_i - R_(i-1)) P_i over thresholds, ties taken together.

    1 if every event outranks all else; the share of events for scores that say nothing. At least one event.

    Raises:
        ValueError: there are no events, so there is no recall.
    """
    if not events.any():
        raise ValueError("average precision needs at least one event: score more episodes")
    order = np.argsort(-scores, kind="stable")
    hits, ranked = np.cumsum(events[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


class Reliability(NamedTuple):
    """Foretold against observed, by bin of the foretold probability; empty bins are left out."""

    foretold: np.ndarray  # [k] mean probability
    observed: np.ndarray  # [k] share of events
    steps: np.ndarray  # [k] how many fell into the bin


def reliability(probabilities: Float[np.ndarray, " m"], events: Bool[np.ndarray, " m"], bins: int = 15) -> Reliability:
    """The reliability diagram with bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2)."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    full = count > 0
    sums = (np.bincount(index, weights=values, minlength=bins)[full] for values in (probabilities, events))
    foretold, observed = (total / count[full] for total in sums)
    return Reliability(foretold, observed, count[full])


def expected_calibration_error(
    probabilities: Float[np.ndarray, " m"], events: Bool[np.ndarray, " m"], bins: int = 15
) -> float:
    """ECE: the mean distance between foretold and observed over the bins, by their size (Guo et al. 2017, eq. 3)."""
    foretold, observed, count = reliability(probabilities, events, bins)
    return float((count * np.abs(foretold - observed)).sum() / count.sum())


def platt(
    log_odds: Float[np.ndarray, " m"], events: Bool[np.ndarray, " m"], weights: Float[np.ndarray, " m"]
) -> tuple[float, float]:
    """Scale and shift of the log-odds at which they fit the events best (Platt 1999).

    The targets are Platt's, drawn in from 0 and 1 as if one more of each kind had been seen, so that few events, all of
    them foretold, don't make it certain.

    Args:
        log_odds: foretold.
        events: what came.
        weights: how many steps each row stands for.
    """
    came, stayed = weights[events].sum(), weights[~events].sum()
    targets = np.where(events, (came + 1) / (came + 2), 1 / (stayed + 2))
    foretold, shares = log_odds.astype(np.float64), weights / weights.sum()

    def loss(line: Float[np.ndarray, " 2"]) -> tuple[float, Float[np.ndarray, " 2"]]:
        fitted = line[0] * foretold + line[1]
        wrong = shares * (expit(fitted) - targets)
        return float(shares @ (np.logaddexp(0, fitted) - targets * fitted)), np.array([wrong @ foretold, wrong.sum()])

    scale, shift = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x.tolist()
    return scale, shift


def plot_reliability(diagram: Reliability, path: Path, *, title: str) -> None:
    """Draws observed against foretold, each bin with the number of steps in it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", label="as foretold")
    axes.plot(diagram.foretold, diagram.observed, marker="o", color="tab:blue", label="observed")
    for x, y, n in zip(diagram.foretold, diagram.observed, diagram.steps.tolist(), strict=True):
        axes.annotate(str(n), (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xlabel="foretold probability", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1), title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
