"""Declared curated tables: seconds (p50) of a step that takes one commit, of one date of 30, against making the whole table anew.

Both in the same run, turn about, over one source of 2,100,000 trips. The baseline runs the same SELECT once over all dates, on all cores,
and overwrites the table in one write; every row has a key of its own, so it has nothing to choose among. The value is of a table with as
many rows as its source; beside it stands one that counts them by city and day. Both ways must have made the same rows in the end.
"""

import asyncio
import datetime
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake

from bench.result import report
from chassis.config import CellConfig, LakeConfig, OlapConfig
from chassis.lake import Step, Table
from chassis.lakesql import resolved, source
from chassis.olap import Olap
from deploy.local import clickhouse
from deploy.local.child import free_port
from services.ingestion.derivation import Derivation
from services.ingestion.derived import Derived
from simulator.columns import names, times

DATES, ROWS_PER_DATE, CITIES = 30, 70_000, 40
ROUNDS, INCREMENT_ROWS, IDLE_STEPS = 9, 2_000, 20
FIRST, DAY_US = datetime.date(2026, 2, 1), 86_400_000_000
SOURCE = "curated/trips"
TRIPS = f"""
SELECT trip_id, city_id, requested_at, distance_m, fare_minor, intDiv(fare_minor * 1000, distance_m) AS fare_minor_per_km, product
FROM `lake/{SOURCE}`
"""
CITY_DAYS = f"""
SELECT city_id, toDate32(requested_at) AS day, count() AS trips, sum(distance_m) AS distance_m
FROM `lake/{SOURCE}` GROUP BY city_id, day
"""
# Compressed as the suite does; the row groups are the library's own, which here are no slower than those of the suite.
WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class Source:
    """The table that is read; commits that give it more trips of a date."""

    def __init__(self, lake: LakeConfig) -> None:
        self._random = np.random.default_rng(7)
        self._made = 0
        schema = self._trips(0, 0).schema
        self.table = Table.open_or_create(lake, SOURCE, schema, ["event_date", "region"])

    def commit(self, day: int, count: int) -> None:
        """One commit of so many trips."""
        done = self.table.progress("bench")
        self.table.append(self._trips(day, count), {"bench": Step(done, (done or 0) + 1)})

    def _trips(self, day: int, count: int) -> pa.Table:
        numbers = np.arange(self._made, self._made + count)
        self._made += count
        date = FIRST + datetime.timedelta(days=day)
        begin = (date - datetime.date(1970, 1, 1)).days * DAY_US
        columns = {
            "trip_id": names("trip", numbers),
            "rider_id": names("rider", self._random.integers(0, 100_000, count)),
            "driver_id": names("driver", self._random.integers(0, 20_000, count)),
            "city_id": pa.array(self._random.integers(1, CITIES + 1, count)),
            "requested_at": times(begin + self._random.integers(0, DAY_US, count)),
            "distance_m": pa.array(self._random.integers(500, 30_000, count)),
            "fare_minor": pa.array(self._random.integers(300, 9_000, count)),
            "product": pa.array(np.array(["standard", "comfort", "xl"])[self._random.integers(0, 3, count)]),
            "event_date": pa.repeat(date.isoformat(), count),
            "region": pa.repeat("local", count),
        }
        return pa.table(columns)


class Contest:
    """One declared table, followed, and its twin, made anew as a whole each time; seconds of each."""

    def __init__(self, lake: LakeConfig, olap: Olap, derivation: Derivation) -> None:
        self._lake = lake
        self._olap = olap
        self._derivation = derivation
        self._follower = Derived(derivation, lake, olap, cell=CellConfig(), stage="bench")
        self._whole = lake.table(f"whole/{derivation.name}")
        self.steps: list[float] = []
        self.idle: list[float] = []
        self.refreshes: list[float] = []

    async def begin(self, table: Table) -> float:
        """Makes both tables; how long the declared one took for its history."""
        began = time.perf_counter()
        while await self._follower.step() is not None:
            pass
        took = time.perf_counter() - began
        await self.refresh(table)
        self.refreshes.clear()
        return took

    async def follow(self) -> None:
        """Takes one commit; then has nothing to do for some steps."""
        began = time.perf_counter()
        work = await self._follower.step()
        self.steps.append(time.perf_counter() - began)
        assert work is not None and len(work.dates) == 1, work
        for _ in range(IDLE_STEPS):
            began = time.perf_counter()
            assert await self._follower.step() is None
            self.idle.append(time.perf_counter() - began)

    async def refresh(self, table: Table) -> None:
        """Makes the twin anew from all files of the source."""
        began = time.perf_counter()
        table.refresh()
        files = source(self._lake, SOURCE, table.files(), table.schema)
        given = resolved(self._derivation.sql, {f"lake/{SOURCE}": files})
        rows = await self._olap.rows(f"SELECT *, toString(toDate({self._derivation.time})) AS event_date FROM ({given})")
        await asyncio.to_thread(write_deltalake, self._whole, rows, mode="overwrite", partition_by=["event_date"], writer_properties=WRITER)
        self.refreshes.append(time.perf_counter() - began)

    def same_rows(self) -> int:
        """How many rows each has; that they are the same ones, column by column, was seen."""
        whole = pa.table(DeltaTable(self._whole).to_pyarrow_table())
        order = [(key, "ascending") for key in self._derivation.keys]
        followed = pa.table(DeltaTable(self._lake.table(self._derivation.table)).to_pyarrow_table(columns=whole.column_names))
        expected = whole.cast(followed.schema).sort_by(order)
        assert followed.sort_by(order).equals(expected), f"{self._derivation.name} differs from the SELECT over all rows"
        return int(expected.num_rows)


async def main() -> None:
    """History, then commits that both ways take, then the comparison."""
    with tempfile.TemporaryDirectory(prefix="arterial-bench-") as name:
        folder, port = Path(name), free_port()
        lake = LakeConfig(root=str(folder / "lake"))
        trips_source = Source(lake)
        for day in range(DATES):
            trips_source.commit(day, ROWS_PER_DATE)
        child = await clickhouse.start(folder / "clickhouse", port)
        olap = Olap(OlapConfig(port=port))
        try:
            trips = Contest(lake, olap, Derivation("bench_trips", TRIPS, ("trip_id",), "requested_at"))
            city_days = Contest(lake, olap, Derivation("bench_city_days", CITY_DAYS, ("city_id", "day"), "day"))
            history_seconds = await trips.begin(trips_source.table)
            await city_days.begin(trips_source.table)
            for day in np.random.default_rng(11).integers(0, DATES, ROUNDS).tolist():
                trips_source.commit(day, INCREMENT_ROWS)
                for contest in (trips, city_days):
                    await contest.follow()
                    await contest.refresh(trips_source.table)
            rows, counts = trips.same_rows(), city_days.same_rows()
        finally:
            await olap.close()
            await child.stop()
    report(
        "curated_table",
        float(np.median(trips.steps)),
        "s (p50, one commit of one date)",
        baseline=("the SELECT over all dates, the table overwritten, p50", float(np.median(trips.refreshes))),
        max_seconds=max(trips.steps),
        idle_step_seconds=float(np.median(trips.idle)),
        history_rows_per_second=DATES * ROWS_PER_DATE / history_seconds,
        city_days_seconds=float(np.median(city_days.steps)),
        city_days_baseline_seconds=float(np.median(city_days.refreshes)),
        rows=rows,
        city_days_rows=counts,
    )


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
