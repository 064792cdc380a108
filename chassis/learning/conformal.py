"""Intervals that hold what they promise: split-conformal calibration of quantile predictions (Romano, Patterson and Candes 2019).

A model's quantiles are widened, or narrowed, by one number per interval, taken from data that neither fitting nor testing sees: the
interval then covers new values with the promised probability if they are exchangeable with those, whatever the model is like.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Intervals in percent, narrowest first, and the quantiles that they lie between: with the median, all that one model predicts.
COVERAGES = (50, 80, 95)
QUANTILES = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
MEDIAN = QUANTILES.index(0.5)


@dataclass(frozen=True)
class Intervals:
    """Medians (n,) and, for each of COVERAGES, lower and upper ends; shapes (n, 3). Each interval lies within the next."""

    median: Floats
    low: Floats
    high: Floats


def margins(actual: Floats, predicted: Floats) -> tuple[float, ...]:
    """By how much each interval must be widened on both sides, in the unit of `actual`; negative narrows. Shapes (n,), (n, 7).

    The margin is the ceil((n + 1) coverage)-th smallest of max(low - actual, actual - high), theorem 1 of the paper.

    Raises:
        ValueError: there are too few values to calibrate the widest interval by.
    """
    count = len(actual)
    found = []
    for coverage, (low, high) in zip(COVERAGES, _ends(), strict=True):
        rank = int(np.ceil((count + 1) * coverage / 100))
        if rank > count:
            raise ValueError(f"{count} values are too few to calibrate an interval of {coverage} % by")
        scores = np.maximum(predicted[:, low] - actual, actual - predicted[:, high])
        found.append(float(np.partition(scores, rank - 1)[rank - 1]))
    return tuple(found)


def intervals(predicted: Floats, widths: tuple[float, ...]) -> Intervals:
    """The calibrated intervals of predictions, shape (n, 7): around the median, and each within the next."""
    median = predicted[:, MEDIAN]
    lows, highs = [], []
    low = high = median
    for (lower, upper), width in zip(_ends(), widths, strict=True):
        low = np.minimum(low, predicted[:, lower] - width)
        high = np.maximum(high, predicted[:, upper] + width)
        lows.append(low)
        highs.append(high)
    return Intervals(median, np.stack(lows, axis=1), np.stack(highs, axis=1))


def _ends() -> list[tuple[int, int]]:
    """Places among QUANTILES of the ends of each interval."""
    return [(MEDIAN - place, MEDIAN + place) for place in range(1, len(COVERAGES) + 1)]
