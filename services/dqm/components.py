"""Principal components of a market's series: what of a day is common movement, and what is not.

Common movement (a holiday, rain) moves many series together, as it did before; a fault moves some as they never did. After Jackson and
Mudholkar, "Control Procedures for Residuals Associated With Principal Component Analysis" (1979): the Q statistic is the squared length
of what the components do not explain. Projected twice: days whose first residual stands out are no model of a good day, and the second
model is made without them. Unlike in Uber's monitor, the residual stays attributed to its columns.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.dqm.deviations import MAD_TO_SIGMA, Judged
from services.dqm.frame import Floats

# Share of the variance that the components explain.
VARIANCE = 0.9
# A residual counts for so many standard deviations at most, so that one series does not hide all others.
LIMIT = 20.0
# Days that a model needs.
MIN_DAYS = 8
# Scores 1, 2, 3, 4 begin at so many robust standard deviations of the logarithm of the residual; its noise is at least LEAST_NOISE.
SCORES, LEAST_NOISE = (3.0, 6.0, 9.0, 12.0), 0.1


@dataclass(frozen=True)
class Residual:
    """What the components of a market leave unexplained of a day."""

    score: int
    """0 (as ever) to 4."""
    columns: tuple[str, ...]
    """Columns by their part in it, largest first; those that make up half of it."""


def residual(judged: Judged, market: str) -> Residual:
    """The residual of a judged partition in a market; score 0 where there is too little history for a model."""
    chosen = judged.judged & (judged.frame.markets == market)
    past = np.clip(judged.past[chosen], -LIMIT, LIMIT)
    days = np.mean(~np.isnan(past), axis=0) > 0.5 if chosen.any() else np.zeros(0, bool)
    history, today = np.nan_to_num(past[:, days]).T, np.clip(judged.deviations[chosen], -LIMIT, LIMIT)
    if len(history) < MIN_DAYS:
        return Residual(0, ())
    lengths = _left_out(history)
    good = lengths <= np.median(lengths) + 3 * _noise(lengths)
    if good.sum() >= MIN_DAYS:
        history, lengths = history[good], _left_out(history[good])
    rest = _unexplained(history, today)
    distance = (np.log(rest @ rest + 1e-12) - np.median(lengths)) / _noise(lengths)
    return Residual(int(np.sum(distance > np.array(SCORES))), _attributed(judged.frame.columns[chosen], rest**2))


def _unexplained(history: Floats, day: Floats) -> Floats:
    """What the components of `history` (days, series) do not explain of a day (series,)."""
    _, singular, directions = np.linalg.svd(history, full_matrices=False)
    explained = np.cumsum(singular**2) / max(float(np.sum(singular**2)), 1e-12)
    kept = directions[: int(np.searchsorted(explained, VARIANCE)) + 1]
    return np.asarray(day - kept.T @ (kept @ day))


def _left_out(history: Floats) -> Floats:
    """Logarithm of each day's Q under the model of the others, shape (days,): a day that helped to make the model would look too good."""
    rests = [_unexplained(np.delete(history, day, axis=0), history[day]) for day in range(len(history))]
    return np.log(np.array([rest @ rest for rest in rests]) + 1e-12)


def _noise(lengths: Floats) -> float:
    return max(MAD_TO_SIGMA * float(np.median(np.abs(lengths - np.median(lengths)))), LEAST_NOISE)


def _attributed(columns: NDArray[np.str_], parts: Floats) -> tuple[str, ...]:
    names, index = np.unique(columns, return_inverse=True)
    shares = np.bincount(index, parts)
    order = np.argsort(-shares)
    enough = int(np.searchsorted(np.cumsum(shares[order]), shares.sum() / 2)) + 1
    return tuple(str(name) for name in names[order[:enough]])
