"""Rows of the raw zone: whatever the records are, every row is that of its own record."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.judge import judge
from chassis.partitioning import partition_of
from chassis.wire import BUILTIN_IDS, Schemas, frame
from services.ingestion.rows import Records, crc, raw_rows
from tests.ingestion.raw_tables import KAFKA_US, MESSAGE, TOPIC

SCHEMAS = Schemas()
HOME = partition_of(b"1", TOPIC.partitions)


def _event(number: int) -> bytes:
    event = TripEvent(event_id=number.to_bytes(16, "big"), city_id=1)
    event.event_time.FromMicroseconds(KAFKA_US + number)
    return event.SerializeToString()


def value(kind: str, number: int) -> bytes | None:
    """A record's value; each has bytes of its own, but the tombstones."""
    mark = number.to_bytes(4, "big")
    return {
        "good": frame(BUILTIN_IDS[MESSAGE], _event(number)),
        "unframed": b"\1" + mark,
        "malformed": frame(BUILTIN_IDS[MESSAGE], b"\xff\xff\xff" + mark),
        "unknown": frame(999_999, mark),
        "unidentified": frame(BUILTIN_IDS[MESSAGE], TripEvent(trip_id=str(number)).SerializeToString()),
        "tombstone": None,
    }[kind]


@given(st.lists(st.sampled_from(["good", "unframed", "malformed", "unknown", "unidentified", "tombstone"]), min_size=1, max_size=12))
def test_every_row_has_the_checksum_and_the_bytes_of_its_record(kinds: list[str]) -> None:
    """By the checksum a recreated topic is told: a wrong one would stop ingestion for nothing."""
    values = [value(kind, number) for number, kind in enumerate(kinds)]
    count = len(values)
    records = Records(
        source=TOPIC.name,
        incarnation=0,
        partitions=np.full(count, HOME, np.int32),
        offsets=np.arange(count, dtype=np.int64) + 7,
        times_us=np.full(count, KAFKA_US, np.int64),
        keys=[b"1"] * count,
        values=values,
        headers=[()] * count,
    )
    rows = raw_rows(records, judge(TOPIC, SCHEMAS, values, records.partitions), "local").to_pylist()
    assert sorted(row["_offset"] for row in rows) == records.offsets.tolist()
    for row in rows:
        own = values[row["_offset"] - 7]
        assert row["_crc"] == crc(own)
        assert not row["dead"] or row.get("_value") == own
