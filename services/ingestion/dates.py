"""The date that an event is filed under in the curated zone."""

import pyarrow as pa
import pyarrow.compute as pc

# An event of a live topic dated further from its Kafka time has a clock that cannot be trusted: it must not explode the partitions.
MAX_AHEAD_US = 86_400_000_000
MAX_BEHIND_US = 30 * MAX_AHEAD_US
UNKNOWN_DATE = "unknown"


def dated(rows: pa.Table) -> pa.Table:
    """Adds `event_date`: the date of the event, or "unknown" where a live event lies too far from its Kafka time. Files are exempt."""
    distance = pc.subtract(rows["event_time"].cast(pa.int64()), rows["_kafka_time"].cast(pa.int64()))
    sane = pc.and_(pc.less_equal(distance, MAX_AHEAD_US), pc.greater_equal(distance, -MAX_BEHIND_US))
    sane = pc.or_(sane, pc.starts_with(rows["_topic"], "file:"))
    return rows.append_column("event_date", pc.if_else(sane, date_of(rows["event_time"]), UNKNOWN_DATE))


def date_of(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Calendar dates (UTC) as text, null for null."""
    return times.cast(pa.timestamp("us")).cast(pa.date32(), safe=False).cast(pa.string())
