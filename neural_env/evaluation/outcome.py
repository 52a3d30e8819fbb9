"""Reward, termination and game variables, as foretold from the true past."""

from __future__ import annotations

import numpy as np

from neural_env.evaluation.bootstrap import exact, mean, statistic
from neural_env.evaluation.calibration import average_precision, expected_calibration_error
from neural_env.evaluation.rows import Row, percent
from neural_env.evaluation.world import Forced

SECTION = "outcome"
TERMINATION = "termination: average precision"
OF_RANGE = ": mean error, % of its range"  # how the names of variables' rows end
_UNUSUAL = 0.5  # a reward further than this from the usual one is an event


def outcome_rows(forced: Forced, variable_names: tuple[str, ...]) -> list[Row]:
    """All rows of the section."""
    return [*reward_rows(forced), *termination_rows(forced), *variable_rows(forced, variable_names)]


def reward_rows(forced: Forced) -> list[Row]:
    """Whether unusual rewards are told from the usual one, and the error."""
    windows, foretold = forced.windows, forced.outcomes.rewards
    usual = usual_reward(windows.rewards)
    events = np.abs(windows.rewards - usual) > _UNUSUAL
    error = np.abs(foretold - windows.rewards)
    rows = [
        _precision("reward: average precision", np.abs(foretold - usual), events, windows.episode, f"{usual:g}"),
        Row(SECTION, "reward: mean error", mean(error, windows.episode), "", 3),
        Row(SECTION, f"reward: within {_UNUSUAL}", percent(mean(error < _UNUSUAL, windows.episode)), "%", 1),
        Row(
            SECTION,
            "reward: mean foretold",
            mean(foretold, windows.episode),
            "",
            3,
            {"real": mean(windows.rewards, windows.episode)},
        ),
    ]
    if events.any():
        recalled = error[events] < np.abs(foretold - usual)[events]
        note = f"of such rewards, foretold nearer to what came than to {usual:g}"
        rows.insert(
            1, Row(SECTION, "reward: recall", percent(mean(recalled, windows.episode[events])), "%", 0, note=note)
        )
    return rows


def usual_reward(rewards: np.ndarray) -> float:
    """The most frequent one."""
    values, counts = np.unique(rewards, return_counts=True)
    return float(values[counts.argmax()])


def termination_rows(forced: Forced) -> list[Row]:
    """Whether ends are told from other steps, and whether the probabilities mean what they say."""
    windows, p = forced.windows, forced.outcomes.termination
    groups, ends = windows.episode, windows.ends
    calibration = statistic(lambda rows: expected_calibration_error(p[rows], ends[rows]), groups)
    never = statistic(lambda rows: float(ends[rows].mean()), groups)
    rows = [
        _precision(TERMINATION, p, ends, groups, None),
        Row(SECTION, "termination: calibration error (ECE)", calibration, "", 4, {"never terminate": never}),
        Row(
            SECTION,
            "termination: false alarms per 1000 steps",
            mean(p[~ends], groups[~ends]).mapped(lambda x: 1000 * x),
        ),
    ]
    if ends.any():
        recall = percent(mean(p[ends], groups[ends]))
        note = "mean probability at the step of the end"
        rows.insert(1, Row(SECTION, "termination: recall", recall, "%", 0, note=note))
    return rows


def _precision(name: str, scores: np.ndarray, events: np.ndarray, groups: np.ndarray, usual: str | None) -> Row:
    if not events.any():
        return Row(SECTION, name, None, note="no such event in these episodes")

    def of_rows(rows: np.ndarray) -> float:
        return average_precision(scores[rows], events[rows]) if events[rows].any() else float("nan")

    share = mean(events, groups)
    note = f"{events.sum()} events of {len(events)} steps" + (f": rewards unlike {usual}" if usual else "")
    return Row(SECTION, name, statistic(of_rows, groups), "", 3, {"say nothing": share}, note)


def variable_rows(forced: Forced, names: tuple[str, ...]) -> list[Row]:
    """The mean error of each variable in % of the range that it has in these episodes."""
    windows = forced.windows[~forced.windows.ends]
    foretold = forced.outcomes.variables[~forced.windows.ends]
    rows = []
    for i, name in enumerate(names):
        true = windows.variables[:, i]
        spread = float(np.ptp(true))
        title = name + OF_RANGE
        if spread == 0:
            rows.append(Row(SECTION, title, None, note=f"it is {true[0]:g} throughout these episodes"))
            continue
        error = mean(100 * np.abs(foretold[:, i] - true) / spread, windows.episode)
        constant = exact(100 * float(np.abs(true - np.median(true)).mean()) / spread)
        note = f"from {true.min():g} to {true.max():g}"
        rows.append(Row(SECTION, title, error, "%", 2, {"always say the median": constant}, note))
    return rows
