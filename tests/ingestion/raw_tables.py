"""Raw tables filled through the real path (frame, judge, append), without Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.config import CellConfig, LakeConfig
from chassis.lake import Step, Table
from chassis.topics import Topic
from chassis.wire import BUILTIN_IDS, Schemas, frame
from services.ingestion.raw import RawTable
from services.ingestion.rows import Records

MESSAGE = "arterial.api.events.v1.TripEvent"
TOPIC = Topic("trip_events_v2", MESSAGE, "city_id", partitions=1)
# 2023-11-14T22:13:20Z.
KAFKA_US = 1_700_000_000_000_000


@dataclass
class RawFeeder:
    """One source partition of a raw table."""

    raw: RawTable
    source: str
    end: int = 0
    versions: list[int] = field(default_factory=list)

    @property
    def topic(self) -> Topic:
        """The table's topic."""
        return self.raw.topic

    @property
    def table(self) -> Table:
        """The table."""
        return self.raw.table

    def append(self, events: Sequence[tuple[bytes, int, int]]) -> int:
        """One commit of events (first byte of the id, event time, Kafka time; microseconds)."""
        values = []
        for name, time_us, _ in events:
            event = TripEvent(event_id=name * 16, city_id=1, sequence=1, trip_id=name.hex())
            event.event_time.FromMicroseconds(time_us)
            values.append(frame(BUILTIN_IDS[MESSAGE], event.SerializeToString()))
        return self._commit(values, [kafka_us for _, _, kafka_us in events])

    def append_trips(self, events: Sequence[tuple[int, int]]) -> int:
        """One commit of events (trip, sequence), each with an id and a time that follow from both."""
        values = []
        for trip, sequence in events:
            event = TripEvent(event_id=bytes([trip, sequence]) * 8, city_id=1, sequence=sequence, trip_id=f"trip-{trip}")
            event.event_time.FromMicroseconds(KAFKA_US + trip * 1000 + sequence)
            event.trip_requested_at.FromMicroseconds(KAFKA_US + trip * 1000)
            values.append(frame(BUILTIN_IDS[MESSAGE], event.SerializeToString()))
        return self._commit(values, [KAFKA_US] * len(values))

    def append_dead(self) -> int:
        """One commit of one record that cannot be decoded."""
        return self._commit([b"garbage"], [KAFKA_US])

    def _commit(self, values: Sequence[bytes], times_us: Sequence[int]) -> int:
        count = len(values)
        records = Records(
            source=self.source,
            incarnation=0,
            partitions=np.zeros(count, np.int32),
            offsets=np.arange(self.end, self.end + count),
            times_us=np.array(times_us, np.int64),
            keys=[None] * count,
            values=list(values),
            headers=[()] * count,
        )
        rows, _ = self.raw.rows_of(records, routed=False)
        version = self.raw.append(rows, self.source, 0, {0: Step(self.end or None, self.end + count)})
        self.end += count
        return version


def feeder(lake: LakeConfig, source: str = TOPIC.name) -> RawFeeder:
    """An empty raw table of trip events."""
    return RawFeeder(RawTable(CellConfig(kafka_cluster="k"), lake, TOPIC, Schemas()), source)


def rows_of(lake: LakeConfig, name: str) -> list[dict[str, Any]]:
    """All rows of a table."""
    table = Table.open(lake, name)
    return [] if table is None else pa.table(table.handle.to_pyarrow_table()).to_pylist()
