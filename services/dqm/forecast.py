"""Holt-Winters, additive and damped, one step ahead, for thousands of short daily series at once.

Holt (1957), Winters (1960), in the error-correction form of Hyndman et al., "Forecasting with Exponential Smoothing" (2008), section 3.
Two changes for histories of a few weeks: a gain is never below that of a running mean (1 over the observations so far), so that no
smoothing has to be spent on forgetting the first values; and errors are clipped before they move a state (Gelper, Fried, Croux 2010),
so that one bad day does not bend the days after it.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Smoothing that is tried on each series: level, season (none or slow), trend (none or damped).
LEVELS, SEASONS, TRENDS = (0.05, 0.2, 0.5), (None, 0.1), (None, 0.1)
DAMPING = 0.9
# An error moves the states by at most so many running mean absolute errors.
CLIP = 4.0
# A smoothing of more states must be better by this factor: on a few weeks, small differences are luck.
BETTER = 0.95
# After so many days in a row that leave the forecast so far it was no bad day, but another level: nothing is clipped.
LASTING = 3
# Errors that must be known before they are clipped.
LEARNING = 3


@dataclass(frozen=True)
class Forecast:
    """Of S series over T days: what was expected of the day after the last, and how far each day was from its own forecast."""

    expected: Floats
    """Shape (S,), NaN where no day was known."""
    errors: Floats
    """Observed minus expected, shape (S, T), NaN where either is unknown."""


@dataclass(frozen=True)
class _Grid:
    """The candidates, as columns of shape (G, 1)."""

    level: Floats
    season: Floats
    trend: Floats
    seasonal: NDArray[np.bool_]
    penalty: Floats


def _grid(season: int) -> _Grid:
    chosen = [(a, g, b) for a, g, b in product(LEVELS, SEASONS if season > 1 else (None,), TRENDS)]
    level = np.array([[a] for a, _, _ in chosen])
    gamma = np.array([[g or 0.0] for _, g, _ in chosen])
    trend = np.array([[b or 0.0] for _, _, b in chosen])
    seasonal = np.array([[g is not None] for _, g, _ in chosen])
    states = seasonal.astype(float) + (trend > 0)
    return _Grid(level, gamma, trend, seasonal, BETTER**-states)


def forecast(values: Floats, season: int) -> Forecast:
    """Forecasts the day after the last.

    Args:
        values: shape (S, T), a day per column without gaps, NaN where a day is missing.
        season: days of a season, for example 7; 1 for none.
    """
    grid, (series, days) = _grid(season), values.shape
    shape = (len(grid.level), series)
    level, trend, running = np.zeros(shape) + _mean(values[:, :season]), np.zeros(shape), np.zeros(shape)
    pattern, seen, count = np.zeros((season, *shape)), np.zeros((season, series)), np.zeros(series)
    streak = np.zeros(shape)
    errors = np.full((days, *shape), np.nan)
    for day in range(days):
        phase, known = day % season, ~np.isnan(values[:, day])
        # A day of the week that was never seen has no forecast yet: in the first week the pattern is learned, nothing is judged.
        judged = known & (seen[phase] > 0)
        drift = DAMPING * trend
        error = np.where(known, values[:, day] - (level + drift + pattern[phase]), 0.0)
        errors[day] = np.where(judged, error, np.nan)
        limit = np.where((count > season + LEARNING) & (streak < LASTING), CLIP * running, np.inf)
        moved = np.clip(error, -limit, limit)
        streak = np.where(np.abs(error) > CLIP * running, streak + 1, np.where(known, 0, streak))
        # The first level is the mean of the first season, which therefore does not move it again.
        gain = np.where(known & (day >= season), np.maximum(grid.level, 1.0 / (count + 1.0)), 0.0)
        pattern[phase] += np.where(grid.seasonal & known, np.maximum(grid.season, 1.0 / (seen[phase] + 1.0)) * (1.0 - gain), 0.0) * moved
        level += drift + gain * moved
        trend = drift + np.where(count > season, gain * grid.trend, 0.0) * moved
        share = np.maximum(1.0 / np.maximum(count - season + 1.0, 1.0), 0.1)
        running = np.where(judged, running + share * (np.abs(moved) - running), running)
        count, seen[phase] = count + known, seen[phase] + known
    expected = level + DAMPING * trend + np.where(seen[days % season] > 0, pattern[days % season], 0.0)
    return _best(expected, errors, grid, count)


def _mean(values: Floats) -> Floats:
    """Mean of the known values of each row, 0 where none is; shape (S,)."""
    known = ~np.isnan(values)
    return np.asarray(np.sum(np.where(known, values, 0.0), axis=1) / np.maximum(known.sum(axis=1), 1))


def _best(expected: Floats, errors: Floats, grid: _Grid, count: Floats) -> Forecast:
    """Of each series, the candidate with the smallest mean absolute error, each error counted up to CLIP medians of the series."""
    known = ~np.isnan(errors)
    size = np.where(known, np.abs(errors), np.inf)
    middle = np.median(size.min(axis=1), axis=0)
    limit = np.where(np.isfinite(middle) & (middle > 0), CLIP * middle, np.inf)
    cost = np.sum(np.where(known, np.minimum(size, limit), 0.0), axis=0) / np.maximum(known.sum(axis=0), 1)
    best = np.argmin(cost * grid.penalty, axis=0)
    rows = np.arange(len(best))
    return Forecast(np.where(count > 0, expected[best, rows], np.nan), errors[:, best, rows].T)
