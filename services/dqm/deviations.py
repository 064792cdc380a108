"""Which series of a partition left their forecast: by enough of their own noise, and by enough of themselves."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.dqm.forecast import forecast
from services.dqm.frame import Floats, Frame
from services.dqm.metrics import CAUSES, ROWS, Metric

# Median absolute deviation, and 90th percentile of the absolute, of a normal distribution with deviation 1.
MAD_TO_SIGMA, P90_TO_SIGMA = 1.4826, 1 / 1.645
# A share is compared with at least so many points: from 0 to 0.1 % is infinitely more, but no matter.
MIN_SHARE_POINTS = 10.0
# Medians of columns with fewer distinct values jump from one to the next.
MIN_DISTINCT_OF_MEDIAN = 30
# Noise of distinct values when they become fewer, of their square root: less than Poisson's, for most values come every day.
FEWER_DISTINCT_NOISE = 0.3
# Least noise of values and ratios, of their own size: rounding, and what a few weeks did not show.
MIN_RELATIVE_NOISE = 0.005


@dataclass(frozen=True)
class Thresholds:
    """When a series counts as having left its forecast; see QualityPolicySpec."""

    deviations: float
    min_change_percent: float
    min_history: int
    season: int


@dataclass(frozen=True)
class Judged:
    """A partition, the last day of its frame, against the forecasts of S series."""

    frame: Frame
    expected: Floats
    """Shape (S,); of means those without the day's largest and smallest value, so is what was observed."""
    observed: Floats
    deviations: Floats
    """Signed distance from the forecast in robust standard deviations of the series' own errors, shape (S,); NaN where not judged."""
    left: NDArray[np.bool_]
    """Series that left their forecast, and may be a cause; shape (S,)."""
    beside: NDArray[np.bool_]
    """Series that left their forecast, but are evidence only; shape (S,)."""
    past: Floats
    """Errors of the days before in the same standard deviations, shape (S, T - 1), NaN where unknown."""

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Series with history enough, and a value; shape (S,)."""
        return ~np.isnan(self.deviations) & np.isin(self.frame.metrics, CAUSES)


def judge(frame: Frame, excluded: NDArray[np.bool_], thresholds: Thresholds) -> Judged:
    """Judges the last day of a prepared frame.

    Args:
        excluded: points that are no history, because an incident is open on them; shape (S, T).
    """
    if len(frame.dates) < 2:
        return _first_day(frame)
    filled = _values_per_point(frame)
    values = _without_extremes(frame, filled)
    history = np.where(excluded, np.nan, values)[:, :-1]
    told = forecast(history, thresholds.season)
    observed, expected = values[:, -1], told.expected
    scale = _scale(frame, told.errors, filled, expected, observed)
    enough = np.sum(~np.isnan(history), axis=1) >= thresholds.min_history
    distance = np.where(enough, observed - expected, np.nan)
    deviations = distance / scale
    with np.errstate(invalid="ignore"):
        change = 100 * np.abs(distance) / _size(frame, history, expected)
        far = (np.abs(deviations) > thresholds.deviations) & (change > thresholds.min_change_percent)
    cause = np.isin(frame.metrics, CAUSES) & ~((frame.metrics == Metric.MEDIAN) & (_distinct(frame, history) < MIN_DISTINCT_OF_MEDIAN))
    return Judged(frame, expected, observed, deviations, far & cause, far & ~cause, told.errors / scale[:, None])


def _first_day(frame: Frame) -> Judged:
    """A table's first day: there is nothing that it could differ from."""
    nothing, none = np.full(len(frame.values), np.nan), np.zeros(len(frame.values), bool)
    return Judged(frame, nothing, frame.values[:, -1], nothing, none, none, np.empty((len(frame.values), 0)))


def history_of(told: Frame, date: np.datetime64, days: int) -> Frame:
    """The last `days` days before a date, and the date."""
    until = told.until(date)
    first = max(len(until.dates) - days - 1, 0)
    return replace(until, dates=until.dates[first:], versions=until.versions[first:], values=until.values[:, first:])


def _beside(frame: Frame, metric: Metric, values: Floats, column: str | None = None) -> Floats:
    """Of each series, the values of another metric of its market and column; same shape as `values`, NaN where there is none."""
    rows = {(frame.markets[row], frame.columns[row]): row for row in np.flatnonzero(frame.metrics == metric)}
    index = np.array(
        [rows.get((market, name if column is None else column), -1) for market, name in zip(frame.markets, frame.columns, strict=True)]
    )
    found: Floats = values[index]
    found[index < 0] = np.nan
    return found


def _values_per_point(frame: Frame) -> Floats:
    """Rows that have a value, of each point; shape (S, T), at least 1."""
    rows = _beside(frame, Metric.COUNT, frame.values, ROWS)
    missing = np.nan_to_num(_beside(frame, Metric.MISSING_PERCENT, frame.values))
    return np.fmax(rows * (1 - missing / 100), 1.0)


def robust(errors: Floats) -> Floats:
    """Standard deviation of errors by their median, or by their tail where that is heavier; shape (S,), NaN without errors."""
    known = ~np.isnan(errors)
    size = np.sort(np.where(known, np.abs(errors), np.inf), axis=1)
    count = known.sum(axis=1)
    rows = np.arange(len(size))
    last = np.maximum(count - 1, 0)
    middle = (size[rows, last // 2] + size[rows, (last + 1) // 2]) / 2
    tail = size[rows, np.round(last * 0.9).astype(int)]
    return np.where(count > 0, np.maximum(MAD_TO_SIGMA * middle, P90_TO_SIGMA * tail), np.nan)


def _scale(frame: Frame, errors: Floats, filled: Floats, expected: Floats, observed: Floats) -> Floats:
    """Noise of each series on the day, shape (S,): that of its own errors, and at least what its kind of number must have."""
    own, now = robust(errors), filled[:, -1]
    # The standard error of a mean goes with the root of how many values it is of: a day with few of them tells less.
    by_count = robust(errors * np.sqrt(filled[:, :-1])) / np.sqrt(now)
    size, metrics = np.abs(np.nan_to_num(expected)), frame.metrics
    share = (np.clip(size / 100, 0, 1) * now + 1) / (now + 2)
    poisson = np.sqrt(np.maximum(size, 1.0))
    floors = [
        (metrics == Metric.COUNT, poisson),
        (metrics == Metric.NULLS, poisson),
        (metrics == Metric.MISSING_PERCENT, 100 * np.sqrt(share * (1 - share) / now)),
        (metrics == Metric.DISTINCT, np.where(observed < expected, np.maximum(FEWER_DISTINCT_NOISE * poisson, 1.0), poisson)),
    ]
    values = np.fmax(np.where(np.isin(metrics, (Metric.MEAN, Metric.MEDIAN)), by_count, 0.0), np.maximum(MIN_RELATIVE_NOISE * size, 1e-9))
    floor = np.select([chosen for chosen, _ in floors], [value for _, value in floors], values)
    return np.asarray(np.fmax(own, floor))


def _without_extremes(frame: Frame, filled: Floats) -> Floats:
    """The frame's values, means told without the largest and the smallest value of the day: one value of a heavy tail is no shift."""
    largest, smallest = (_beside(frame, metric, frame.values) for metric in (Metric.MAX, Metric.MIN))
    rest = (frame.values * filled - largest - smallest) / np.maximum(filled - 2, 1)
    return np.where((frame.metrics == Metric.MEAN)[:, None] & ~np.isnan(rest) & (filled > 2), rest, frame.values)


def _size(frame: Frame, history: Floats, expected: Floats) -> Floats:
    """What a change is compared with, shape (S,): the forecast; of values that lie within a range far from zero, that range."""
    size = np.abs(expected)
    largest, smallest = (_beside(frame, metric, history) for metric in (Metric.MAX, Metric.MIN))
    span = _median(largest - smallest)
    of_values = np.isin(frame.metrics, (Metric.MIN, Metric.MAX, Metric.MEAN, Metric.MEDIAN))
    size = np.where(of_values & (span > 0), np.fmin(size, span), size)
    size = np.where(frame.metrics == Metric.MISSING_PERCENT, np.fmax(size, MIN_SHARE_POINTS), size)
    counted = np.isin(frame.metrics, (Metric.COUNT, Metric.NULLS, Metric.DISTINCT))
    return np.fmax(np.where(counted, np.fmax(size, 1.0), size), 1e-9)


def _distinct(frame: Frame, history: Floats) -> Floats:
    """Usual number of distinct values of each series' column, shape (S,)."""
    return _median(_beside(frame, Metric.DISTINCT, history))


def _median(values: Floats) -> Floats:
    """Median of the known values of each row, NaN where none is."""
    count = np.sum(~np.isnan(values), axis=1)
    ordered = np.sort(values, axis=1)
    rows, last = np.arange(len(values)), np.maximum(count - 1, 0)
    return np.where(count > 0, (ordered[rows, last // 2] + ordered[rows, (last + 1) // 2]) / 2, np.nan)
