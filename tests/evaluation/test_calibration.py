import numpy as np
import pytest

from neural_env.evaluation.calibration import (
    average_precision,
    expected_calibration_error,
    platt,
    plot_reliability,
    reliability,
)


def test_average_precision_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    events = np.array([True, False, True, False, False])
    assert average_precision(scores, events) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_events_that_outrank_all_else_are_perfect_and_the_reverse_is_worse_than_chance():
    events = np.array([True, True, False, False, False, False])
    assert average_precision(events.astype(float), events) == 1
    assert average_precision(1 - events.astype(float), events) == pytest.approx(2 / 6)
    assert average_precision(-np.arange(6.0)[::-1], events) < 0.45


def test_scores_that_say_nothing_are_worth_the_share_of_events():
    events = np.arange(40) % 10 == 3
    assert average_precision(np.full(40, 0.5), events) == pytest.approx(0.1)


def test_order_does_not_matter_among_equal_scores():
    scores, events = np.array([0.5, 0.5, 0.1]), np.array([True, False, False])
    assert average_precision(scores, events) == average_precision(scores[[1, 0, 2]], events[[1, 0, 2]]) == 0.5


def test_without_events_there_is_no_average_precision():
    with pytest.raises(ValueError, match="needs at least one event: score more episodes"):
        average_precision(np.ones(3), np.zeros(3, bool))


def test_probabilities_that_come_true_as_often_as_they_say_have_no_calibration_error():
    probabilities = np.repeat([0.25, 0.75], 4)
    events = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)
    assert expected_calibration_error(probabilities, events) == pytest.approx(0)
    foretold, observed, steps = reliability(probabilities, events)
    assert foretold.tolist() == observed.tolist() == [0.25, 0.75] and steps.tolist() == [4, 4]


def test_calibration_error_is_the_distance_weighed_by_size():
    probabilities = np.array([0.0] * 6 + [1.0] * 4)
    events = np.array([True] * 3 + [False] * 7)  # 0 foretold, a half seen; 1 foretold, none seen
    assert expected_calibration_error(probabilities, events) == pytest.approx(0.6 * 0.5 + 0.4 * 1.0)


def drawn(log_odds, count=20_000):
    rng = np.random.default_rng(0)
    true = rng.normal(-2, 1.5, count)
    return log_odds(true), rng.random(count) < 1 / (1 + np.exp(-true))


def test_log_odds_that_were_stretched_and_shifted_are_brought_back():
    foretold, events = drawn(lambda true: 2.5 * true + 1)  # so true = 0.4 foretold - 0.4
    assert platt(foretold, events, np.ones(len(events))) == pytest.approx((0.4, -0.4), abs=0.03)


def test_a_row_that_stands_for_many_counts_for_as_many():
    foretold, events = drawn(lambda true: 3 * true, 500)
    times = 1 + np.arange(500) % 4
    whole = platt(np.repeat(foretold, times), np.repeat(events, times), np.ones(times.sum()))
    assert platt(foretold, events, times) == pytest.approx(whole, abs=1e-4)


def test_few_events_that_were_all_foretold_are_no_certainty():
    foretold, events = np.array([-4.0] * 20 + [4.0] * 5), np.arange(25) >= 20
    scale, shift = platt(foretold, events, np.ones(25))
    p = 1 / (1 + np.exp(-(scale * np.array([-4.0, 4.0]) + shift)))
    assert p == pytest.approx([1 / 22, 6 / 7], abs=1e-3)


def test_the_diagram_is_a_picture(tmp_path):
    plot_reliability(reliability(np.linspace(0, 1, 50), np.arange(50) > 25), tmp_path / "r.png", title="termination")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
