import numpy as np
import pytest

from neural_env.evaluation.bootstrap import RESAMPLES, exact, mean, statistic
from neural_env.evaluation.rows import Row


def test_the_interval_of_a_mean_is_as_wide_as_its_groups_say_not_as_its_rows():
    """Twenty groups of deviation 1, of fifty equal rows each: the mean's deviation is 1 / sqrt(20), not a seventh."""
    levels = np.random.default_rng(0).normal(size=20)
    estimate = mean(levels.repeat(50), np.arange(20).repeat(50))
    assert estimate.value == pytest.approx(levels.mean())
    expected = 2 * 1.96 * levels.std(ddof=1) / 20**0.5
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.15)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = [(e := mean(rng.normal(5, 1, 25), np.arange(25))).low <= 5 <= e.high for _ in range(300)]
    assert 0.87 < np.mean(held) < 0.98


def test_a_statistic_of_rows_is_drawn_as_the_mean_is():
    values, groups = np.random.default_rng(2).random(40), np.arange(40) // 5
    by_rows = statistic(lambda rows: values[rows].mean(), groups)
    np.testing.assert_allclose(by_rows.replicates, mean(values, groups).replicates)
    assert len(statistic(lambda rows: 0.0, groups, resamples=7).replicates) == 7


def test_a_difference_is_paired():
    groups = np.arange(30)
    level = np.random.default_rng(3).normal(0, 10, 30)
    gap = mean(level + 0.5, groups) - mean(level, groups)
    assert gap.value == pytest.approx(0.5) and gap.low == pytest.approx(0.5) and gap.high == pytest.approx(0.5)


def test_one_group_says_nothing_of_others():
    estimate = mean(np.array([1.0, 2.0]), np.zeros(2))
    assert estimate.value == 1.5 and np.isnan(estimate.low) and estimate.record() == {
        "value": 1.5, "low": None, "high": None,
    }  # fmt: skip


def test_draws_without_a_value_are_left_out_of_the_interval():
    estimate = statistic(lambda rows: 1.0 if 0 in rows else float("nan"), np.arange(3))
    assert np.isnan(estimate.replicates).any() and estimate.low == estimate.high == 1.0


def test_numbers_are_shown_with_their_interval_where_they_have_one():
    assert Row("s", "n", exact(3.14159)).show() == "3.14"
    assert exact(2.0).mapped(lambda x: 100 * x).value == 200 and len(exact(1.0).replicates) == RESAMPLES
    spread = mean(np.arange(10.0), np.arange(10))
    assert Row("s", "n", spread, digits=1).show().startswith("4.5 [2.")
    assert Row("s", "n", None).show() == "-"
