"""The series of a dataset as one matrix over a calendar without gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.dqm.metrics import IN_UNITS_OF_VALUES, ROWS, WHOLE, Metric

Floats = NDArray[np.float64]
Dates = NDArray[np.datetime64]
# A column whose values lie within so many seconds of its partition's date, on nearly all days, tells times.
NEAR_SECONDS, NEAR_SHARE = 40 * 86_400.0, 0.9
# The lake's own columns begin with it.
COORDINATE_PREFIX = "_"


@dataclass(frozen=True)
class Frame:
    """S series over T days."""

    dataset: str
    dates: Dates
    """Shape (T,), every day from the first to the last."""
    versions: NDArray[np.int64]
    """Version of the table that each partition was profiled at, shape (T,); -1 where there is no partition."""
    markets: NDArray[np.str_]
    """Shape (S,), "" for all markets together."""
    columns: NDArray[np.str_]
    """Shape (S,), "" for the row itself."""
    metrics: NDArray[np.int64]
    """Shape (S,), numbers of `Metric`."""
    values: Floats
    """Shape (S, T), NaN where unknown."""

    def where(self, market: str | None = None, column: str | None = None, metric: Metric | None = None) -> NDArray[np.bool_]:
        """Which series are so; shape (S,)."""
        chosen = np.ones(len(self.metrics), bool)
        if market is not None:
            chosen &= self.markets == market
        if column is not None:
            chosen &= self.columns == column
        if metric is not None:
            chosen &= self.metrics == metric
        return chosen

    def day(self, date: np.datetime64) -> int:
        """Index of a date; may lie outside the frame."""
        return int((date - self.dates[0]).astype(int))

    def market_names(self) -> list[str]:
        """Markets, without the whole."""
        return sorted({str(market) for market in self.markets} - {WHOLE})

    def until(self, date: np.datetime64) -> "Frame":
        """The frame from its first day to `date`, that included; days that it lacks are unknown."""
        days = self.day(date) + 1
        lacking = max(days - len(self.dates), 0)
        dates = np.arange(self.dates[0], date + np.timedelta64(1, "D"), dtype="datetime64[D]")
        versions = np.concatenate([self.versions[:days], np.full(lacking, -1)])
        values = np.concatenate([self.values[:, :days], np.full((len(self.values), lacking), np.nan)], axis=1)
        return replace(self, dates=dates, versions=versions, values=values)


@dataclass(frozen=True)
class Points:
    """One series as it is told: values at some dates, ISO 8601."""

    market: str
    column: str
    metric: int
    dates: Sequence[str]
    values: Sequence[float]


def frame(dataset: str, partitions: dict[str, int], series: Sequence[Points]) -> Frame:
    """Aligns series on the days from the first to the last partition (date -> table version; at least one)."""
    known = np.array(sorted(partitions), dtype="datetime64[D]")
    dates = np.arange(known[0], known[-1] + np.timedelta64(1, "D"), dtype="datetime64[D]")
    versions = np.full(len(dates), -1, np.int64)
    versions[(known - known[0]).astype(int)] = [partitions[date] for date in sorted(partitions)]
    index = {str(date): day for day, date in enumerate(dates)}
    values = np.full((len(series), len(dates)), np.nan)
    for row, points in enumerate(series):
        within = [(index[date], value) for date, value in zip(points.dates, points.values, strict=True) if date in index]
        for day, value in within:
            values[row, day] = value
    return Frame(
        dataset,
        dates,
        versions,
        np.array([points.market for points in series], dtype=np.str_),
        np.array([points.column for points in series], dtype=np.str_),
        np.array([points.metric for points in series], dtype=np.int64),
        values,
    )


def prepared(told: Frame, entity_column: str) -> Frame:
    """The frame as it is judged: without coordinates, missing markets have zero rows, times are told from midnight, and rows per entity
    are a series too.
    """
    return _with_rows_per_entity(_with_times_of_day(_with_absent_markets(_without_coordinates(told))), entity_column)


def _without_coordinates(told: Frame) -> Frame:
    """Columns like `_offset` and `_topic` tell how a row arrived: another source, or a correction, moves them and nothing is wrong."""
    kept = ~np.char.startswith(told.columns, COORDINATE_PREFIX)
    return replace(told, markets=told.markets[kept], columns=told.columns[kept], metrics=told.metrics[kept], values=told.values[kept])


def _with_absent_markets(told: Frame) -> Frame:
    """A market without rows in a partition that exists has zero of them, from the day on that it first had any."""
    rows = told.where(column=ROWS, metric=Metric.COUNT)
    values = told.values.copy()
    ever = np.maximum.accumulate(~np.isnan(values), axis=1)
    absent = rows[:, None] & np.isnan(values) & ever & (told.versions >= 0)[None, :]
    values[absent] = 0.0
    return replace(told, values=values)


def _with_times_of_day(told: Frame) -> Frame:
    """Times, which come as seconds since 1970, grow by a day each day; seconds since the partition's midnight compare."""
    midnight = told.dates.astype("datetime64[s]").astype(np.float64)
    of_values = np.isin(told.metrics, IN_UNITS_OF_VALUES)
    with np.errstate(invalid="ignore"):
        near = np.abs(told.values - midnight) < NEAR_SECONDS
    known = ~np.isnan(told.values)
    times = of_values & (near.sum(axis=1) >= NEAR_SHARE * np.maximum(known.sum(axis=1), 1)) & (known.sum(axis=1) > 0)
    return replace(told, values=np.where(times[:, None], told.values - midnight, told.values))


def _with_rows_per_entity(told: Frame, entity_column: str) -> Frame:
    rows, distinct = told.where(column=ROWS, metric=Metric.COUNT), told.where(column=entity_column, metric=Metric.DISTINCT)
    markets = [market for market in np.unique(told.markets[distinct]) if (rows & (told.markets == market)).any()]
    if not entity_column or not markets:
        return told
    entities = np.stack([told.values[distinct & (told.markets == market)][0] for market in markets])
    counted = np.stack([told.values[rows & (told.markets == market)][0] for market in markets])
    ratio = np.where(entities > 0, counted / np.where(entities > 0, entities, 1.0), np.nan)
    return replace(
        told,
        markets=np.concatenate([told.markets, np.array(markets, dtype=np.str_)]),
        columns=np.concatenate([told.columns, np.full(len(markets), entity_column)]),
        metrics=np.concatenate([told.metrics, np.full(len(markets), int(Metric.ROWS_PER_ENTITY))]),
        values=np.concatenate([told.values, ratio]),
    )
