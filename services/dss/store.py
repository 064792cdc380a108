"""Series of statistics in ClickHouse: one row per dataset, partition, market, column and metric, of the newest profile only.

A profile is one INSERT, whose rows carry the table's version. The row of the row count (market "", column "", COUNT) is the note that the
partition is profiled at that version; it is in the last block of a profile, so what was cut off is as if never begun.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chassis.olap import Olap, quoted
from services.dss.pending import Note
from services.dss.statistics import METRICS

# One thread: the engine's time is shared with everybody who asks something. No machine code: compiling costs more than such a query.
_SETTINGS = "max_threads = 1, compile_expressions = 0, compile_aggregate_expressions = 0"
_NOTE = "market = '' AND column = '' AND metric = 'COUNT'"
_IS_DATE = r"match(partition_date, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$')"


@dataclass(frozen=True)
class SeriesQuery:
    """Which series; None for all. `first_date` is an ISO 8601 date or ""."""

    dataset: str
    market: str | None = None
    column: str | None = None
    metric: str | None = None
    first_date: str = ""


@dataclass(frozen=True)
class Series:
    """A series: dates, ascending, and as many values; NaN where there is none."""

    market: str
    column: str
    metric: str
    dates: list[str]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """How far a dataset is profiled: version, what waits, what there is; `at` in seconds since 1970, 0 before the first."""

    version: int = -1
    pending: int = 0
    partitions: int = 0
    series: int = 0
    at: float = 0.0


class SeriesStore:
    """Reads and writes series."""

    def __init__(self, olap: Olap) -> None:
        self._olap = olap
        self._series = f"`{olap.database}`.series"
        self._standings = f"`{olap.database}`.standings"
        self._created = False

    async def create(self) -> None:
        """Database and tables, if missing."""
        if self._created:
            return
        metrics = ", ".join(f"'{name}' = {number}" for number, name in enumerate(METRICS, 1))
        for statement in (
            f"CREATE DATABASE IF NOT EXISTS `{self._olap.database}`",
            f"CREATE TABLE IF NOT EXISTS {self._series} (dataset LowCardinality(String), partition_date LowCardinality(String), "
            f"market String, column LowCardinality(String), metric Enum8({metrics}), value Float64, table_version Int64, "
            "profiled_at DateTime64(3, 'UTC')) ENGINE = ReplacingMergeTree(table_version) "
            "ORDER BY (dataset, market, column, metric, partition_date)",
            f"CREATE TABLE IF NOT EXISTS {self._standings} (dataset String, version Int64, pending Int64, at DateTime64(3, 'UTC')) "
            "ENGINE = ReplacingMergeTree(at) ORDER BY dataset",
        ):
            await self._olap.run(statement)
        self._created = True

    def insert_sql(self, dataset: str, profile_sql: str, note: Note) -> str:
        """The statement that profiles: inserts what `profile_sql` selects."""
        return (
            f"INSERT INTO {self._series} (dataset, partition_date, market, column, metric, value, table_version, profiled_at) "
            f"SELECT {quoted(dataset)} AS dataset, partition_date, market, column, metric, ifNull(value, nan) AS value, "
            f"{note.version} AS table_version, {_time(note.at)} AS profiled_at FROM ({profile_sql}) SETTINGS {_SETTINGS}"
        )

    async def run(self, statement: str) -> None:
        """Runs a statement of `insert_sql` with its data in place."""
        await self._olap.run(statement)

    async def insert_empty(self, dataset: str, dates: Sequence[str], note: Note) -> None:
        """Notes partitions that have no row."""
        noted = f"'', '', 'COUNT', 0, {note.version}, {_time(note.at)}"
        rows = ", ".join(f"({quoted(dataset)}, {quoted(date)}, {noted})" for date in dates)
        await self._olap.run(f"INSERT INTO {self._series} VALUES {rows}")

    async def notes(self, dataset: str) -> dict[str, Note]:
        """Newest profile of each partition, by date."""
        await self.create()
        found = await self._olap.rows(
            "SELECT partition_date, max(table_version) AS version, "
            f"toUnixTimestamp64Milli(argMax(profiled_at, table_version)) / 1000 AS at "
            f"FROM {self._series} WHERE dataset = {{dataset:String}} AND {_NOTE} GROUP BY partition_date",
            {"dataset": dataset},
        )
        return {row["partition_date"]: Note(row["version"], row["at"]) for row in found.to_pylist()}

    async def put_standing(self, dataset: str, version: int, pending: int, at: float) -> None:
        """Tells how far a dataset is profiled."""
        await self._olap.run(f"INSERT INTO {self._standings} VALUES ({quoted(dataset)}, {version}, {pending}, {_time(at)})")

    async def forget(self, dataset: str) -> None:
        """Deletes all that is known of a dataset."""
        await self.create()
        for table in (self._series, self._standings):
            statement = f"ALTER TABLE {table} DELETE WHERE dataset = {{dataset:String}} SETTINGS mutations_sync = 2"
            await self._olap.run(statement, {"dataset": dataset})

    async def version(self, dataset: str) -> int:
        """Version up to which every partition was profiled; -1 before the first."""
        await self.create()
        found = await self._olap.rows(
            f"SELECT if(count() = 0, -1, argMax(version, (at, version))) AS told FROM {self._standings} WHERE dataset = {{dataset:String}}",
            {"dataset": dataset},
        )
        return int(found["told"][0].as_py())

    async def standings(self) -> dict[str, Standing]:
        """Standing of each dataset that was ever profiled."""
        await self.create()
        told = await self._olap.rows(
            "SELECT dataset, argMax(version, (at, version)) AS told, argMax(pending, (at, version)) AS waiting, "
            f"toUnixTimestamp64Milli(max(at)) / 1000 AS told_at FROM {self._standings} GROUP BY dataset"
        )
        counted = await self._olap.rows(
            "SELECT dataset, uniqExact(partition_date) AS partitions, uniqExact(market, column, metric) AS series "
            f"FROM {self._series} GROUP BY dataset"
        )
        counts = {row["dataset"]: (row["partitions"], row["series"]) for row in counted.to_pylist()}
        return {
            row["dataset"]: Standing(row["told"], row["waiting"], *counts.get(row["dataset"], (0, 0)), row["told_at"])
            for row in told.to_pylist()
        }

    async def partitions(self, query: SeriesQuery) -> tuple[list[str], list[int]]:
        """Dates of a dataset's profiled partitions, ascending, and the version that each is profiled at."""
        await self.create()
        found = await self._olap.rows(
            f"SELECT partition_date, max(table_version) AS version FROM {self._series} WHERE dataset = {{dataset:String}} AND {_NOTE} "
            f"AND {_IS_DATE} AND partition_date >= {{first:String}} GROUP BY partition_date ORDER BY partition_date",
            {"dataset": query.dataset, "first": query.first_date},
        )
        return found["partition_date"].to_pylist(), found["version"].to_pylist()

    async def series(self, query: SeriesQuery, start: int, count: int) -> list[Series]:
        """Series in the order of market, column, metric, from the `start`-th on."""
        await self.create()
        given = {"market": query.market, "column": query.column, "metric": query.metric}
        wanted = {name: value for name, value in given.items() if value is not None}
        found = await self._olap.rows(
            "SELECT market, column, toString(metric) AS metric_name, groupArray(partition_date) AS dates, groupArray(value) AS values "
            "FROM ("
            f"SELECT market, column, metric, partition_date, any(value) AS value FROM {self._series} "
            f"WHERE dataset = {{dataset:String}}{''.join(f' AND {name} = {{{name}:String}}' for name in wanted)} AND {_IS_DATE} "
            f"AND partition_date >= {{first:String}} AND {self._newest()} "
            "GROUP BY market, column, metric, partition_date ORDER BY market, column, metric, partition_date) "
            f"GROUP BY market, column, metric ORDER BY market, column, metric LIMIT {count} OFFSET {start}",
            {"dataset": query.dataset, "first": query.first_date, **wanted},
        )
        return [
            Series(*row)
            for row in zip(*(_column(found, name) for name in ("market", "column", "metric_name", "dates", "values")), strict=True)
        ]

    async def profile(self, dataset: str, date: str) -> list[tuple[str, str, Mapping[str, float]]]:
        """Newest profile of a partition: market, column and its metrics."""
        await self.create()
        found = await self._olap.rows(
            "SELECT market, column, groupArray(toString(metric)) AS metrics, groupArray(value) AS values FROM ("
            f"SELECT market, column, metric, any(value) AS value FROM {self._series} "
            f"WHERE dataset = {{dataset:String}} AND partition_date = {{date:String}} AND {self._newest()} "
            "GROUP BY market, column, metric) "
            "GROUP BY market, column ORDER BY market, column",
            {"dataset": dataset, "date": date},
        )
        return [(row["market"], row["column"], dict(zip(row["metrics"], row["values"], strict=True))) for row in found.to_pylist()]

    def _newest(self) -> str:
        """Rows of a dataset's newest profiles: an older one may have markets or columns that are gone."""
        return (
            f"(partition_date, table_version) IN (SELECT partition_date, max(table_version) FROM {self._series} "
            f"WHERE dataset = {{dataset:String}} AND {_NOTE} GROUP BY partition_date)"
        )


def _time(at: float) -> str:
    return f"toDateTime64({at:.3f}, 3, 'UTC')"


def _column(found: pa.Table, name: str) -> list[Any]:
    """Values of a column; lists of numbers as arrays, without a Python object for each number."""
    if name != "values":
        return list(found[name].to_pylist())
    return [row.values.to_numpy(zero_copy_only=False) for chunk in found[name].chunks for row in chunk]
