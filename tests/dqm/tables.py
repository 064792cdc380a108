"""Generated series as the Data Stats Service would tell them: tables with weekly rhythm and honest noise, and faults.

Rows are Poisson with a weekday's factor; a mean of n values has its standard error; distinct values follow from how many of a pool are
drawn; shares are binomial. Statistics are drawn, not rows, so that a table costs milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.dqm.frame import Frame
from services.dqm.metrics import Metric

Floats = NDArray[np.float64]
MARKETS = ("1", "2", "3")
ROWS_PER_DAY = np.array([2500.0, 2300.0, 2800.0])
WEEKDAYS = np.array([0.9, 0.92, 0.95, 1.0, 1.2, 1.3, 1.05])
FIRST = np.datetime64("2026-10-26")
SEED_RESOURCES = Path(__file__).parents[2] / "deploy" / "resources"


@dataclass(frozen=True)
class Shape:
    """How many columns of each kind a table has; 9 + 2 series a column and market."""

    identifiers: int = 10
    measures: int = 24
    coordinates: int = 4
    labels: int = 8


@dataclass(frozen=True)
class Table:
    """Statistics per market (M), column (C) and day (T), from which a frame is made; whole-table series are made of the markets'."""

    names: tuple[str, ...]
    rows: Floats
    """Shape (M, T)."""
    missing: Floats
    """Share of nulls, shape (M, C, T)."""
    mean: Floats
    """Shape (M, C, T); NaN for columns of text, so are median and extremes."""
    median: Floats
    low: Floats
    high: Floats
    distinct: Floats


def table(random: np.random.Generator, days: int = 28, shape: Shape | None = None) -> Table:
    """A clean table of that many days. Its first column is the entity, a new one in each row."""
    shape = shape or Shape()
    phase = (np.arange(days) + int(random.integers(7))) % 7
    rows = random.poisson(ROWS_PER_DAY[:, None] * WEEKDAYS[phase]).astype(float)
    names = [f"{kind}{number}" for kind in ("identifiers", "measures", "coordinates", "labels") for number in range(getattr(shape, kind))]
    columns = len(names)
    kinds = np.repeat(np.arange(4), [shape.identifiers, shape.measures, shape.coordinates, shape.labels])
    size = (len(MARKETS), columns, days)
    share = np.where(random.random(columns) < 0.3, random.uniform(0, 0.4, columns), 0.0) * (kinds != 0)
    missing = random.binomial(rows[:, None].astype(int), share[None, :, None], size) / rows[:, None]
    filled = rows[:, None] * (1 - missing)
    level = np.exp(random.uniform(0, 9, (len(MARKETS), columns, 1)))
    spread = np.where(kinds == 2, 0.002, random.uniform(0.1, 1.5, columns))[None, :, None]
    # Measures have a weekly rhythm of their own, and a tail: now and then a value far above all others.
    rhythm = 1 + np.where(kinds == 1, random.uniform(0, 0.1, columns), 0.0)[None, :, None] * np.sin(2 * np.pi * phase / 7)
    tail = np.where(kinds[None, :, None] == 1, random.pareto(2.0, size), 0.0) * level * spread
    mean = level * rhythm * (1 + spread * random.standard_normal(size) / np.sqrt(filled)) + 5 * tail / filled
    median = 0.8 * level * rhythm * (1 + 1.25 * spread * random.standard_normal(size) / np.sqrt(filled))
    high = level * (1 + 4 * spread) + 5 * tail
    low = level * np.maximum(1 - 4 * spread, 0.0) * np.ones(size)
    text = np.isin(kinds, (0, 3))[None, :, None]
    pool = np.where(kinds == 0, np.exp(random.uniform(5.5, 9, columns)), np.where(kinds == 3, random.integers(2, 40, columns), np.inf))
    distinct = _distinct(random, filled, pool[None, :, None])
    distinct[:, 0] = rows
    mean, median, low, high = (np.where(text, np.nan, part) for part in (mean, median, low, high))
    return Table(tuple(names), rows, missing, mean, median, low, high, distinct)


def _distinct(random: np.random.Generator, filled: Floats, pool: Floats) -> Floats:
    """How many of a pool are drawn by that many rows: mean and variance of occupancy (Feller, volume I); all if the pool is endless."""
    with np.errstate(invalid="ignore", over="ignore"):
        empty = np.exp(-filled / pool)
        drawn = pool * (1 - empty)
        noise = np.sqrt(np.maximum(pool * empty * (1 - (1 + filled / pool) * empty), 0.0))
    drawn = np.where(np.isfinite(pool), np.round(drawn + noise * random.standard_normal(drawn.shape)), filled)
    return np.clip(drawn, 1, filled)


def frame(made: Table, dataset: str = "lake/curated/table") -> Frame:
    """The frame of a table, with the series of all markets together."""
    markets: list[str] = []
    columns: list[str] = []
    metrics: list[int] = []
    values: list[Floats] = []

    def add(market: str, column: str, metric: Metric, points: Floats) -> None:
        markets.append(market)
        columns.append(column)
        metrics.append(metric)
        values.append(points)

    for index, market in enumerate((*MARKETS, "")):
        chosen = slice(index, index + 1) if market else slice(None)
        rows = made.rows[chosen]
        add(market, "", Metric.COUNT, rows.sum(axis=0))
        for number, name in enumerate(made.names):
            nulls = rows * made.missing[chosen, number]
            filled = np.maximum((rows - nulls).sum(axis=0), 1)
            add(market, name, Metric.COUNT, rows.sum(axis=0))
            add(market, name, Metric.NULLS, nulls.sum(axis=0))
            add(market, name, Metric.MISSING_PERCENT, 100 * nulls.sum(axis=0) / np.maximum(rows.sum(axis=0), 1))
            add(market, name, Metric.MIN, made.low[chosen, number].min(axis=0))
            add(market, name, Metric.MAX, made.high[chosen, number].max(axis=0))
            add(market, name, Metric.MEAN, (made.mean[chosen, number] * (rows - nulls)).sum(axis=0) / filled)
            add(market, name, Metric.MEDIAN, (made.median[chosen, number] * (rows - nulls)).sum(axis=0) / filled)
            add(market, name, Metric.DISTINCT, made.distinct[chosen, number].sum(axis=0))
    dates = FIRST + np.arange(made.rows.shape[1])
    matrix = np.array(values)
    matrix[(np.array(metrics) != Metric.COUNT) & (np.array(columns) == ""), :] = np.nan
    return Frame(dataset, dates, np.arange(len(dates)), np.array(markets), np.array(columns), np.array(metrics), matrix)


def with_fault(made: Table, kind: str, column: int, market: int) -> Table:
    """The table with a fault on its last day, in a column and market; the kinds are those of the simulator."""
    parts = {name: getattr(made, name).copy() for name in ("rows", "missing", "mean", "median", "low", "high", "distinct")}
    here = (market, column, -1)
    if kind == "nulls":
        parts["missing"][here] = 0.3 + 0.7 * parts["missing"][here]
        parts["distinct"][here] *= 0.7
    elif kind == "shifted_mean":
        for name in ("mean", "median", "low", "high"):
            parts[name][here] *= 1.35
    elif kind == "distinct_collapse":
        parts["distinct"][here] = 25
    elif kind == "halved_volume":
        parts["rows"][market, -1] = np.round(parts["rows"][market, -1] / 2)
        parts["distinct"][market, :, -1] = np.minimum(parts["distinct"][market, :, -1], parts["rows"][market, -1])
    elif kind == "doubled_rows":
        parts["rows"][market, -1] *= 2
    elif kind == "stale":
        parts["rows"][market, -1] = np.nan
        for name in ("missing", "mean", "median", "low", "high", "distinct"):
            parts[name][market, :, -1] = np.nan
    return replace(made, **parts)


def indices(made: Table, kind: str) -> Sequence[int]:
    """Columns of a kind ("identifiers", "measures", "coordinates", "labels")."""
    return [number for number, name in enumerate(made.names) if name.startswith(kind)]
