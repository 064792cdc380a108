"""The curated zone: each topic's events deduplicated by (event_id, event_time), and `trips`, one row per trip, kept current."""

import time
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from chassis.config import LakeConfig
from chassis.lake import Added, Step, Table
from chassis.lineage import JobDefinition
from chassis.lineage.tables import transformed
from chassis.topics import Topic
from services.ingestion.commits import good_files, take
from services.ingestion.dates import UNKNOWN_DATE, date_of, dated
from services.ingestion.raw import table_name
from services.ingestion.rebuild import Zone, rebuild, touched_dates
from services.ingestion.supersession import in_force, superseded_by
from services.ingestion.trips import PROPERTIES, TRIPS, latest_trips, merge_trips

PARTITION_BY = ("event_date", "region")
# Rows taken into one step: bounds the memory of the follower (about 1 KB per row while it works).
MAX_STEP_ROWS = 100_000
# A merge of trips costs the more the more trips a day has, so merges rest this many times as long as they took: a fifth of a core at most.
REST_FACTOR = 4.0
# Columns of raw that only dead rows have, or that are the raw table's own partitions.
_RAW_ONLY = {"_key", "_value", "_headers", "_error", "_crc", "_schema_id", "ingest_date", "dead"}
_KEY = ["event_id", "event_time"]


class Curated:
    """The curated tables of one topic; the only writer of them. Its progress is in each table's own transactions."""

    def __init__(self, lake: LakeConfig, topic: Topic, tell: Callable[[JobDefinition], None] | None = None) -> None:
        """`tell` is given what is made from what, at the start and when raw has other columns."""
        self._lake = lake
        self._topic = topic
        self._tell = tell
        self._told: pa.Schema | None = None
        self._app_id = table_name(topic.name)
        self._raw: Table | None = None
        self._targets: dict[str, Table] = {}
        # Version of raw that all targets have.
        self._seen = -1
        self._trips_rest_until = 0.0

    def step(self) -> bool:
        """Takes what raw has in addition; True if there may be more at once. Blocks: run it in a thread."""
        self._raw = self._raw or Table.open(self._lake, self._app_id)
        if self._raw is None:
            return False
        self._raw.refresh()
        if self._raw.version == self._seen:
            return False
        self._tell_jobs(pa.schema(self._raw.handle.schema()))
        more = self._follow(self._raw, f"curated/{self._topic.name}")
        resting = False
        if has_trips(self._topic):
            resting = time.monotonic() < self._trips_rest_until
            more |= not resting and self._follow_timed(self._raw)
        if not more and not resting:
            self._seen = self._raw.version
        return more

    def _tell_jobs(self, raw: pa.Schema) -> None:
        if self._tell is not None and raw != self._told:
            self._told = raw
            for job in jobs(self._topic, raw):
                self._tell(job)

    def _follow_timed(self, raw: Table) -> bool:
        began = time.monotonic()
        more = self._follow(raw, TRIPS)
        ended = time.monotonic()
        # A backlog is not delayed: its steps are as large as steps get.
        self._trips_rest_until = 0.0 if more else ended + REST_FACTOR * (ended - began)
        return more

    def _follow(self, raw: Table, name: str) -> bool:
        target = self._targets.get(name) or Table.open(self._lake, name)
        if target is not None:
            target.refresh()
        done = target.progress(self._app_id) if target is not None else None
        pending = raw.commits_after(-1 if done is None else done)
        if not pending:
            return False
        commits = take(pending, MAX_STEP_ROWS)
        step = Step(done, commits[-1].version)
        rows = in_force(raw, _read(raw, good_files(commits)))
        superseded = superseded_by(commits[0])
        if not (superseded and target is not None and self._corrected(raw, target, superseded, rows, step)):
            self._add(name, target, rows, step)
        return len(commits) < len(pending)

    def _corrected(self, raw: Table, target: Table, superseded: Sequence[str], added: pa.Table, step: Step) -> bool:
        """Applies a correction, whose rows are `added`; False if the table has nothing of what it supersedes."""
        columns = [column for column in raw.schema.names if column not in _RAW_ONLY]
        if target.name == TRIPS:
            zone = Zone(target, "trip_requested_at", columns, latest_trips, strays=False)
        else:
            zone = Zone(target, "event_time", columns, lambda rows: _first_of_each(dated(rows)), strays=True)
        dates = touched_dates(zone, superseded, added)
        if dates:
            rebuild(raw, zone, dates, self._app_id, step)
        return bool(dates)

    def _add(self, name: str, target: Table | None, rows: pa.Table, step: Step) -> None:
        rows = latest_trips(rows) if name == TRIPS else _first_of_each(dated(rows))
        if target is None:
            target = Table.open_or_create(self._lake, name, rows.schema, PARTITION_BY, PROPERTIES if name == TRIPS else {})
        self._targets[name] = target
        if name == TRIPS and rows.num_rows:
            merge_trips(target, rows, self._app_id, step)
        else:
            target.append(without(rows, _keys_near(target, rows)), {self._app_id: step})


def _keys_near(table: Table, rows: pa.Table) -> pa.Table:
    """Keys that the table has within the dates and times of these rows.

    A resend that arrives weeks later lies under "unknown" though its first arrival did not, and the reverse, so both places are looked up.
    """
    if not rows.num_rows:
        return rows.select(_KEY)
    dates = rows.select(["event_time"]).append_column("date", date_of(rows["event_time"]))
    spans = dates.group_by("date").aggregate([("event_time", "min"), ("event_time", "max")])
    near = [
        ds.field("event_date").isin([span["date"].as_py(), UNKNOWN_DATE])
        & (ds.field("event_time") >= span["event_time_min"])
        & (ds.field("event_time") <= span["event_time_max"])
        for span in _typed(spans)
    ]
    return table.handle.to_pyarrow_dataset().to_table(columns=_KEY, filter=reduce(or_, near))


def _typed(spans: pa.Table) -> list[dict[str, pa.Scalar]]:
    """Rows of scalars that keep their type: Python's datetime has neither all years nor Arrow's time zone."""
    return [{name: spans[name][row] for name in spans.column_names} for row in range(spans.num_rows)]


def has_trips(topic: Topic) -> bool:
    """True if `trips` is made of the topic's events."""
    return topic.message.endswith(".TripEvent")


def jobs(topic: Topic, raw: pa.Schema) -> list[JobDefinition]:
    """What the curated tables of a topic are made from, given the columns of raw."""
    source, given = f"lake/{table_name(topic.name)}", taken(raw)
    made = [(topic.name, transformed(f"lake/curated/{topic.name}", source, given, [dated], [_first_of_each]))]
    if has_trips(topic):
        made.append(("trips", transformed(f"lake/{TRIPS}", source, given, [], [latest_trips])))
    return [JobDefinition(f"ingestion.curated.{name}", (source,), (output,)) for name, output in made]


def taken(raw: pa.Schema) -> pa.Schema:
    """The columns of raw that are read."""
    known = [field for field in raw if field.name not in _RAW_ONLY and field.name != "region"]
    return pa.schema([*known, pa.field("region", pa.string())])


def _read(raw: Table, files: Sequence[Added]) -> pa.Table:
    """Rows of raw files, with the cell's region and without what only raw needs."""
    parts = [taken(pa.schema(raw.handle.schema())).empty_table()]
    for added in files:
        rows = raw.read_file(added)
        rows = rows.select([name for name in rows.column_names if name not in _RAW_ONLY])
        parts.append(rows.append_column("region", pa.repeat(pa.scalar(added.partition_values["region"]), rows.num_rows)))
    return pa.concat_tables(parts, promote_options="permissive")


def _first_of_each(rows: pa.Table) -> pa.Table:
    """One row per key: the first."""
    first = _numbered(rows).group_by(_KEY).aggregate([("row", "min")])["row_min"].combine_chunks()
    return rows if len(first) == rows.num_rows else rows.take(first.sort())


def _numbered(rows: pa.Table) -> pa.Table:
    return rows.select(_KEY).append_column("row", pa.array(np.arange(rows.num_rows), pa.int64()))


def without(rows: pa.Table, keys: pa.Table) -> pa.Table:
    """The rows whose key is not among `keys`."""
    if not keys.num_rows or not rows.num_rows:
        return rows
    numbered = _numbered(rows)
    left = numbered.join(keys.select(_KEY).cast(numbered.select(_KEY).schema), keys=_KEY, join_type="left anti")["row"]
    return rows if len(left) == rows.num_rows else rows.take(left.combine_chunks().sort())
