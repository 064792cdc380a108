"""A raw table of trip events that is filled by files, corrections and a live topic, as ingestion does it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.config import CellConfig, LakeConfig
from chassis.lake import Step, Table
from chassis.recordfiles import open_file, write_records
from chassis.testing import ManualClock
from chassis.wire import BUILTIN_IDS, Schemas, frame
from services.ingestion.backfill import load
from services.ingestion.raw import RawTable
from services.ingestion.rows import Records
from tests.ingestion.raw_tables import KAFKA_US, MESSAGE, TOPIC

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Told:
    """What an event says: its trip, sequence, and the days of event and request after the first (None: the request is not told)."""

    trip: int
    sequence: int = 1
    day: int = 0
    requested: int | None = 0


def encoded(told: Told, telling: str) -> bytes:
    """The event, serialised; who tells it stands in `producer`. Identity follows from what is told except the request."""
    event = TripEvent(
        event_id=bytes([told.trip, told.sequence]) * 8, city_id=1, sequence=told.sequence, trip_id=f"trip-{told.trip}", producer=telling
    )
    event.event_time.FromMicroseconds(KAFKA_US + told.day * DAY_US + told.trip)
    if told.requested is not None:
        event.trip_requested_at.FromMicroseconds(KAFKA_US + told.requested * DAY_US)
    return event.SerializeToString()


@dataclass
class Filled:
    """Fills a raw table; each source tells its name in the events' `producer`."""

    lake: LakeConfig
    folder: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(KAFKA_US / 1e6))
    live_end: int = 0

    def __post_init__(self) -> None:
        self.raw = RawTable(CellConfig(), self.lake, TOPIC, Schemas())

    @property
    def table(self) -> Table:
        """The raw table."""
        return self.raw.table

    async def file(self, name: str, events: Sequence[Told], supersedes: Sequence[str] = ()) -> str:
        """Loads a file, or what it lacks of one that was loaded; its source."""
        path = self.folder / f"{name}.parquet"
        write_records(path, TOPIC.name, [encoded(told, name) for told in events], supersedes)
        file = open_file(path)
        await load(self.raw, file, self.clock, asyncio.Event())
        await self.clock.sleep(1)
        return file.source

    async def live(self, name: str, events: Sequence[Told]) -> None:
        """One commit of the live topic."""
        count = len(events)
        records = Records(
            source=TOPIC.name,
            incarnation=0,
            partitions=np.zeros(count, np.int32),
            offsets=np.arange(self.live_end, self.live_end + count),
            times_us=np.full(count, int(self.clock.now() * 1e6), np.int64),
            keys=[None] * count,
            values=[frame(BUILTIN_IDS[MESSAGE], encoded(told, name)) for told in events],
            headers=[()] * count,
        )
        rows, _ = self.raw.rows_of(records, routed=False)
        self.raw.append(rows, TOPIC.name, 0, {0: Step(self.live_end or None, self.live_end + count)})
        self.live_end += count
        await self.clock.sleep(1)
