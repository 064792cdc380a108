"""The curated zone: each topic's events deduplicated by (event_id, event_time), and `trips`, one row per trip, kept current."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, Transaction

from chassis.config import LakeConfig
from chassis.lake import Added, Commit, Step, Superseded, Table
from chassis.topics import Topic
from services.ingestion.raw import table_name

TRIPS = "curated/trips"
PARTITION_BY = ("event_date", "region")
# An event of a live topic dated further from its Kafka time has a clock that cannot be trusted: it must not explode the partitions.
MAX_AHEAD_US = 86_400_000_000
MAX_BEHIND_US = 30 * MAX_AHEAD_US
UNKNOWN_DATE = "unknown"
# Rows taken into one step: bounds the memory of the follower.
MAX_STEP_ROWS = 1_000_000
# Columns of raw that only dead rows have, or that are the raw table's own partitions.
_RAW_ONLY = {"_key", "_value", "_headers", "_error", "_crc", "_schema_id", "ingest_date", "dead"}
_KEY = ["event_id", "event_time"]


class RemovalError(RuntimeError):
    """A commit of raw removed data without a declaration: the follower stops rather than guess."""


def good_files(commits: Sequence[Commit]) -> list[Added]:
    """Files of good rows that commits added; commits without data change are skipped.

    Raises:
        RemovalError: a commit removed data without a declared erasure or supersession.
    """
    files: list[Added] = []
    for commit in commits:
        if commit.removed and commit.data_change:
            raise RemovalError(f"version {commit.version} removed {len(commit.removed)} files without a declared erasure or supersession")
        if commit.data_change:
            files += [added for added in commit.added if added.partition_values.get("dead") == "false"]
    return files


def take(commits: Sequence[Commit], max_rows: int = MAX_STEP_ROWS) -> list[Commit]:
    """The first commits that together hold at most `max_rows` rows, but at least one."""
    rows = 0
    taken: list[Commit] = []
    for commit in commits:
        rows += sum(added.rows for added in commit.added)
        if taken and rows > max_rows:
            break
        taken.append(commit)
    return taken


class Curated:
    """The curated tables of one topic; the only writer of them."""

    def __init__(self, lake: LakeConfig, topic: Topic) -> None:
        self._lake = lake
        self._topic = topic
        self._app_id = table_name(topic.name)
        self._raw: Table | None = None
        self._events: Table | None = None
        self._trips: Table | None = None

    def step(self) -> bool:
        """Takes what raw has in addition; True if there may be more at once. Blocks: run it in a thread."""
        self._raw = self._raw or Table.open(self._lake, self._app_id)
        if self._raw is None:
            return False
        self._raw.refresh()
        more = self._follow_events(self._raw)
        if self._topic.message.endswith(".TripEvent"):
            more |= self._follow_trips(self._raw)
        return more

    def _pending(self, raw: Table, target: Table | None) -> tuple[int | None, list[Commit], bool]:
        done = target.progress(self._app_id) if target is not None else None
        pending = raw.commits_after(-1 if done is None else done)
        taken = take(pending)
        return done, taken, len(taken) < len(pending)

    def _follow_events(self, raw: Table) -> bool:
        if self._events is None:
            self._events = Table.open(self._lake, f"curated/{self._topic.name}")
        else:
            self._events.refresh()
        done, commits, more = self._pending(raw, self._events)
        files = good_files(commits)
        if not files:
            return more
        rows = dated(_read(raw, files))
        if self._events is None:
            self._events = Table.open_or_create(self._lake, f"curated/{self._topic.name}", rows.schema, PARTITION_BY)
        fresh = without(_first_of_each(rows), self._keys_near(rows))
        self._events.append(fresh, {self._app_id: Step(done, commits[-1].version)})
        return more

    def _keys_near(self, rows: pa.Table) -> pa.Table:
        """Keys that the curated table has within the dates and times of these rows."""
        assert self._events is not None
        dates = pc.unique(rows["event_date"]).to_pylist()
        bounds = pc.min_max(rows["event_time"])
        near = ds.field("event_date").isin(dates) & (ds.field("event_time") >= bounds["min"]) & (ds.field("event_time") <= bounds["max"])
        return self._events.handle.to_pyarrow_dataset().to_table(columns=_KEY, filter=near)

    def _follow_trips(self, raw: Table) -> bool:
        if self._trips is None:
            self._trips = Table.open(self._lake, TRIPS)
        else:
            self._trips.refresh()
        done, commits, more = self._pending(raw, self._trips)
        files = good_files(commits)
        if not files:
            return more
        trips = latest_trips(_read(raw, files))
        if self._trips is None:
            self._trips = Table.open_or_create(self._lake, TRIPS, trips.schema, PARTITION_BY)
        self._merge_trips(self._trips, trips, Step(done, commits[-1].version))
        return more

    def _merge_trips(self, table: Table, trips: pa.Table, step: Step) -> None:
        if table.progress(self._app_id) != step.start:
            raise Superseded(f"{TRIPS} is at {table.progress(self._app_id)}, not {step.start}: another writer")
        newer = " OR ".join(
            f"({' AND '.join([f's.{earlier} = t.{earlier}' for earlier in order[:-1]] + [f's.{order[-1]} > t.{order[-1]}'])})"
            for order in (["sequence"], ["sequence", "event_time"], ["sequence", "event_time", "event_id"])
        )
        dates = ", ".join(f"'{date}'" for date in pc.unique(trips["event_date"]).to_pylist())
        (
            table.handle.merge(
                trips,
                predicate=f"t.event_date IN ({dates}) AND t.event_date = s.event_date AND t.region = s.region AND t.trip_id = s.trip_id",
                source_alias="s",
                target_alias="t",
                commit_properties=CommitProperties(app_transactions=[Transaction(self._app_id, step.end)]),
            )
            .when_matched_update_all(predicate=newer)
            .when_not_matched_insert_all()
            .execute()
        )


def _read(raw: Table, files: Sequence[Added]) -> pa.Table:
    """Rows of raw files, with the cell's region and without what only raw needs."""
    parts = []
    for added in files:
        rows = raw.read_file(added)
        rows = rows.select([name for name in rows.column_names if name not in _RAW_ONLY])
        parts.append(rows.append_column("region", pa.repeat(pa.scalar(added.partition_values["region"]), rows.num_rows)))
    return pa.concat_tables(parts, promote_options="default")


def dated(rows: pa.Table) -> pa.Table:
    """Adds `event_date`: the date of the event, or "unknown" where a live event lies too far from its Kafka time. Files are exempt."""
    distance = pc.subtract(rows["event_time"].cast(pa.int64()), rows["_kafka_time"].cast(pa.int64()))
    sane = pc.and_(pc.less_equal(distance, MAX_AHEAD_US), pc.greater_equal(distance, -MAX_BEHIND_US))
    sane = pc.or_(sane, pc.starts_with(rows["_topic"], "file:"))
    return rows.append_column("event_date", pc.if_else(sane, _date(rows["event_time"]), UNKNOWN_DATE))


def _date(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.timestamp("us")).cast(pa.date32(), safe=False).cast(pa.string())


def _first_of_each(rows: pa.Table) -> pa.Table:
    """One row per key: the first."""
    numbered = _numbered(rows)
    first = numbered.group_by(_KEY).aggregate([("row", "min")])["row_min"].combine_chunks()
    return rows if len(first) == rows.num_rows else rows.take(first.sort())


def _numbered(rows: pa.Table) -> pa.Table:
    return rows.select(_KEY).append_column("row", pa.array(np.arange(rows.num_rows), pa.int64()))


def without(rows: pa.Table, keys: pa.Table) -> pa.Table:
    """The rows whose key is not among `keys`."""
    if not keys.num_rows:
        return rows
    numbered = _numbered(rows)
    left = numbered.join(keys.select(_KEY).cast(numbered.select(_KEY).schema), keys=_KEY, join_type="left anti")["row"]
    return rows.take(left.combine_chunks().sort())


def latest_trips(rows: pa.Table) -> pa.Table:
    """The latest event of each trip by (sequence, event_time, event_id), dated by its request; without trip_id there is no trip."""
    rows = rows.filter(pc.not_equal(rows["trip_id"], ""))
    rows = rows.sort_by([("trip_id", "ascending"), *((name, "descending") for name in ("sequence", "event_time", "event_id"))])
    trip = rows["trip_id"].combine_chunks()
    if len(trip):
        first = pc.not_equal(trip.slice(1), trip.slice(0, len(trip) - 1))
        rows = rows.filter(pa.concat_arrays([pa.array([True]), first if isinstance(first, pa.Array) else first.combine_chunks()]))
    requested = pc.coalesce(_date(rows["trip_requested_at"]), pa.scalar(UNKNOWN_DATE))
    return rows.append_column("event_date", requested)
