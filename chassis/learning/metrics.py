"""How good predictions are, on data that training did not see. All vectorised; empty data raise ValueError, they have no quality."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mean_absolute_error(actual: Floats, predicted: Floats) -> float:
    """Mean of |actual - predicted|, in their unit; shapes (n,)."""
    return float(np.mean(np.abs(_some(actual) - predicted)))


def pinball_loss(actual: Floats, predicted: Floats, quantile: float) -> float:
    """Mean pinball (quantile) loss, in the unit of `actual` (Koenker and Bassett 1978); least at the true quantile. Shapes (n,)."""
    above = _some(actual) - predicted
    return float(np.mean(np.maximum(quantile * above, (quantile - 1) * above)))


def coverage(actual: Floats, low: Floats, high: Floats) -> float:
    """Share of values within [low, high]; shapes (n,)."""
    return float(np.mean((_some(actual) >= low) & (actual <= high)))


def poisson_deviance(actual: Floats, predicted: Floats) -> float:
    """Mean Poisson deviance of counts (McCullagh and Nelder 1989, 2.3); `predicted` > 0. Shapes (n,)."""
    actual = _some(actual)
    logarithm = np.where(actual > 0, actual * np.log(np.where(actual > 0, actual, 1.0) / predicted), 0.0)
    return float(2 * np.mean(logarithm - actual + predicted))


def average_precision(labels: NDArray[np.bool_], scores: Floats) -> float:
    """Sum of precision times gain in recall over all distinct thresholds, highest first (equal scores share one); shapes (n,).

    Raises:
        ValueError: no label is true.
    """
    order = np.argsort(-_some(scores), kind="stable")
    hits = np.cumsum(labels[order])
    if hits[-1] == 0:
        raise ValueError("average precision needs a true label")
    ordered = scores[order]
    last_of_score = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    precision, recall = hits[last_of_score] / (last_of_score + 1), hits[last_of_score] / hits[-1]
    return float(np.sum(precision * np.diff(recall, prepend=0.0)))


def card_precision(days: NDArray[np.int64], cards: NDArray[np.int64], labels: NDArray[np.bool_], scores: Floats, k: int) -> float:
    """Card precision at k: mean over days of the share of compromised cards among the k of highest score; shapes (n,).

    A card's score of a day is the highest of its transactions; it is compromised that day if one of them is a fraud. A compromised card
    that was among the k is blocked, hence left out on later days; a day with fewer than k cards is divided by k all the same. As in
    Le Borgne et al. 2022, "Reproducible Machine Learning for Credit Card Fraud Detection", section 4.4.2.
    """
    blocked: NDArray[np.int64] = np.zeros(0, np.int64)
    precisions = []
    for day in np.unique(_some(days)):
        rows = np.flatnonzero((days == day) & ~np.isin(cards, blocked))
        found, card = np.unique(cards[rows], return_inverse=True)
        score = np.full(len(found), -np.inf)
        np.maximum.at(score, card, scores[rows])
        fraud = np.zeros(len(found), bool)
        np.logical_or.at(fraud, card, labels[rows])
        top = np.argsort(-score, kind="stable")[:k]
        detected = found[top[fraud[top]]]
        precisions.append(len(detected) / k)
        blocked = np.concatenate([blocked, detected])
    return float(np.mean(precisions))


def _some(values: NDArray[np.generic]) -> Floats:
    if not len(values):
        raise ValueError("there is nothing to measure on")
    return np.asarray(values, np.float64)
