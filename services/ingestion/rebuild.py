"""Rebuilds dates of a curated table from raw after a correction, without the superseded rows and before deduplication."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from chassis.lake import Step, Table
from services.ingestion.dates import UNKNOWN_DATE, date_of
from services.ingestion.supersession import in_force, rows_of_sources

# Dates are rebuilt together until so many rows of them are superseded or added: bounds the memory of the follower.
MAX_GROUP_ROWS = 50_000
# Which of several rows with one key is the first: commits do not tell it any more once raw is compacted.
_ARRIVAL = [(name, "ascending") for name in ("_kafka_time", "_topic", "_incarnation", "_partition", "_offset")]


@dataclass(frozen=True)
class Zone:
    """A curated table as a function of raw.

    Rows with different dates of the column `time` never compete with one another. `curate` makes all rows of raw of some dates (the columns
    `columns`, in order of arrival) into rows of the table. `strays`: a row may be filed under "unknown" though its time has a date.
    """

    table: Table
    time: str
    columns: Sequence[str]
    curate: Callable[[pa.Table], pa.Table]
    strays: bool


def touched_dates(zone: Zone, superseded: Sequence[str], added: pa.Table) -> Mapping[str, int]:
    """Dates of the rows that the table has of superseded sources and of the rows that the correction adds, with the number of these rows.

    Rows without a time are of date "unknown". Empty if the table has no row of a superseded source: then nothing has to be rebuilt.
    """
    filed = rows_of_sources(zone.table, zone.time, superseded)
    return _dates(filed) + _dates(added[zone.time]) if len(filed) else {}


def rebuild(raw: Table, zone: Zone, dates: Mapping[str, int], app_id: str, step: Step) -> None:
    """Replaces these dates of the table by what raw has of them now, in one commit that moves the progress.

    What raw gained after `step.end` is in it already, and is dropped as a repeat when its turn comes.
    """
    groups = _groups(dates)
    zone.table.replace(_rebuilt(raw, zone, groups), " OR ".join(_predicate(zone, group) for group in groups), {app_id: step})


def _dates(times: pa.ChunkedArray) -> Counter[str]:
    counted = pc.value_counts(pc.coalesce(date_of(times), pa.scalar(UNKNOWN_DATE)))
    return Counter(dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))


def _groups(dates: Mapping[str, int]) -> list[list[str]]:
    groups: list[list[str]] = []
    rows = 0
    for date in sorted(dates):
        rows += dates[date]
        # Rows without a time are a group of their own: they are found in another way.
        if not groups or rows > MAX_GROUP_ROWS or date == UNKNOWN_DATE:
            groups.append([])
            rows = dates[date]
        groups[-1].append(date)
    return groups


def _rebuilt(raw: Table, zone: Zone, groups: Sequence[Sequence[str]]) -> Iterator[pa.Table]:
    dataset = raw.handle.to_pyarrow_dataset()
    for group in groups:
        rows = dataset.to_table(columns=list(zone.columns), filter=(ds.field("dead") == ds.scalar(False)) & _condition(zone, group))
        yield zone.curate(in_force(raw, rows).sort_by(_ARRIVAL))


def _condition(zone: Zone, group: Sequence[str]) -> ds.Expression:
    """Rows of raw of these dates; the span lets files be skipped by their statistics."""
    time = ds.field(zone.time)
    if group == [UNKNOWN_DATE]:
        return time.is_null()
    dates = pa.array(group).cast(pa.date32())
    first, last = (date.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC")) for date in (dates[0], dates[-1]))
    # The last microsecond of the last date: the year 9999 has no date after it.
    end = pa.scalar(last.cast(pa.int64()).as_py() + 86_400_000_000 - 1).cast(pa.timestamp("us", "UTC"))
    return (time >= first) & (time <= end) & time.cast(pa.timestamp("us")).cast(pa.date32(), safe=False).isin(dates)


def _predicate(zone: Zone, group: Sequence[str]) -> str:
    listed = ", ".join(f"'{date}'" for date in group)
    filed = f"event_date IN ({listed})"
    if not zone.strays:
        return filed
    return f"{filed} OR (event_date = '{UNKNOWN_DATE}' AND CAST({zone.time} AS DATE) IN ({listed}))"
