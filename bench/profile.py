"""Profiles: cells (rows x columns) measured per second and core, against a loop over columns with pyarrow and numpy.

Four weeks of a table with three markets, every partition and market of it, all metrics; the engine's process and ours are charged. The
baseline is the obvious loop in one process. Both figures must agree on the medians.
"""

import asyncio
import datetime
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.publish import cpu_of
from bench.result import cpu_seconds, report
from chassis.clock import SystemClock
from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Step, Table
from chassis.olap import Olap
from deploy.local import clickhouse
from deploy.local.child import free_port
from services.dss.profiler import Profiler, Target
from services.dss.store import SeriesQuery, SeriesStore

DAYS, ROWS_PER_DAY, MARKETS = 28, 7_500, 3
NUMBERS, TEXTS, TIMES = 20, 6, 4
COLUMNS = NUMBERS + TEXTS + TIMES
DATASET = "lake/curated/bench"
FIRST = datetime.date(2026, 2, 1)


async def main() -> None:
    """Runs both over one table."""
    with tempfile.TemporaryDirectory(prefix="arterial-bench-") as name:
        folder, port = Path(name), free_port()
        table = lake_table(LakeConfig(root=str(folder / "lake")))
        child = await clickhouse.start(folder / "clickhouse", port)
        try:
            olap = Olap(OlapConfig(port=port, database="dss"))
            store = SeriesStore(olap)
            await store.create()
            profiler = Profiler(LakeConfig(root=str(folder / "lake")), store, SystemClock())
            began, used = time.monotonic(), cpu_seconds() + cpu_of(child.pid)
            await profiler.profile(Target(DATASET, "city_id"), table, dates())
            wall, cores = time.monotonic() - began, cpu_seconds() + cpu_of(child.pid) - used
            asked = time.monotonic()
            series = await store.series(SeriesQuery(DATASET), 0, 1_000)
            read_ms = (time.monotonic() - asked) * 1000
            (median,) = await store.series(SeriesQuery(DATASET, "1", "n0", "MEDIAN"), 0, 1)
            await olap.close()
        finally:
            await child.stop()
        used = cpu_seconds()
        plain = recount(table)
        baseline = cpu_seconds() - used
        assert np.allclose(median.values, plain), "engine and loop differ"
    cells = DAYS * ROWS_PER_DAY * COLUMNS
    report(
        "profile",
        cells / cores,
        "cells/s per core",
        baseline=("pyarrow and numpy, column by column", cells / baseline),
        wall_seconds=wall,
        cells=float(cells),
        series_read=float(len(series)),
        series_read_ms=read_ms,
    )


def dates() -> list[str]:
    """Dates of the partitions."""
    return [(FIRST + datetime.timedelta(days=day)).isoformat() for day in range(DAYS)]


def lake_table(lake: LakeConfig) -> Table:
    """The table: numbers, texts and times, a tenth of them null."""
    rows, random = DAYS * ROWS_PER_DAY, np.random.default_rng(7)

    def some(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=random.random(rows) < 0.1)

    columns = {f"n{number}": some(random.normal(10, 3, rows)) for number in range(NUMBERS)}
    columns |= {f"s{number}": some(random.integers(0, 10 ** (number + 1), rows).astype(str)) for number in range(TEXTS)}
    instants = [random.integers(1_700_000_000_000_000, 1_800_000_000_000_000, rows) for _ in range(TIMES)]
    columns |= {f"t{number}": some(instant).cast(pa.timestamp("us", "UTC")) for number, instant in enumerate(instants)}
    columns["city_id"] = pa.array(random.integers(1, MARKETS + 1, rows), pa.int32())
    columns["event_date"] = pa.array(np.repeat(dates(), ROWS_PER_DAY))
    columns["region"] = pa.repeat(pa.scalar("local"), rows)
    data = pa.table(columns)
    table = Table.open_or_create(lake, "curated/bench", data.schema, ["event_date", "region"])
    table.append(data, {"bench": Step(None, 1)})
    return table


def recount(table: Table) -> list[float]:
    """The baseline: every partition, market and column one after another; medians of column n0 in market 1, by date."""
    medians = []
    for added in sorted(table.files(), key=lambda added: added.path):
        rows = table.read_file(added)
        for market in (0, *range(1, MARKETS + 1)):
            chosen = rows.filter(pc.equal(rows["city_id"], market)) if market else rows
            found = {name: measured(chosen[name]) for name in chosen.column_names if name != "city_id"}
            if market == 1:
                medians.append(found["n0"][5])
    return medians


def measured(column: pa.ChunkedArray) -> list[float]:
    """Count, nulls, min, max, mean, median and distinct of a column; of texts, of their lengths."""
    present = column.drop_null()
    distinct = len(np.unique(present.to_numpy()))
    if pa.types.is_string(column.type):
        lengths = pc.utf8_length(present).to_numpy()
        return [len(column), column.null_count, lengths.min(), lengths.max(), 0.0, 0.0, distinct]
    numbers = (present.cast(pa.int64()) if pa.types.is_timestamp(column.type) else present).to_numpy()
    return [len(column), column.null_count, numbers.min(), numbers.max(), numbers.mean(), float(np.median(numbers)), distinct]


if __name__ == "__main__":
    asyncio.run(main())
