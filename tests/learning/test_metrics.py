"""Metrics against scikit-learn's, and card precision against its definition by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from chassis.learning import metrics

NUMBERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=40)


@given(NUMBERS, st.sampled_from([0.025, 0.1, 0.5, 0.9]))
def test_errors_are_those_of_scikit_learn(pairs: list[tuple[int, int]], quantile: float) -> None:
    """MAE and pinball loss agree on any values."""
    actual, predicted = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
    assert metrics.mean_absolute_error(actual, predicted) == pytest.approx(reference.mean_absolute_error(actual, predicted))
    expected = reference.mean_pinball_loss(actual, predicted, alpha=quantile)
    assert metrics.pinball_loss(actual, predicted, quantile) == pytest.approx(expected)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60).filter(lambda rows: any(label for label, _ in rows)))
def test_average_precision_is_that_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    """It agrees with many equal scores, too."""
    labels, scores = np.array([label for label, _ in rows]), np.array([score for _, score in rows], np.float64)
    assert metrics.average_precision(labels, scores) == pytest.approx(reference.average_precision_score(labels, scores))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 90)), min_size=1, max_size=40))
def test_poisson_deviance_is_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    """Zero counts included."""
    actual, predicted = np.array([a for a, _ in rows], np.float64), np.array([p / 10 for _, p in rows])
    assert metrics.poisson_deviance(actual, predicted) == pytest.approx(reference.mean_poisson_deviance(actual, predicted))


def test_card_precision_counts_cards_once_and_blocks_those_found() -> None:
    """By hand: day 1 finds card 1 of {1, 2}; on day 2 card 1 is blocked, so {3, 2} come first, and 3 is compromised."""
    days = np.array([1, 1, 1, 1, 2, 2, 2, 2])
    cards = np.array([1, 1, 2, 3, 1, 2, 3, 4])
    labels = np.array([False, True, False, True, True, False, True, False])
    scores = np.array([0.9, 0.2, 0.8, 0.1, 0.99, 0.5, 0.7, 0.1])
    assert metrics.card_precision(days, cards, labels, scores, k=2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert metrics.card_precision(days, cards, labels, scores, k=3) == pytest.approx((2 / 3 + 0 / 3) / 2)


def test_nothing_has_no_quality() -> None:
    """Empty data raise instead of giving a number."""
    with pytest.raises(ValueError, match="nothing to measure"):
        metrics.coverage(np.zeros(0), np.zeros(0), np.zeros(0))
