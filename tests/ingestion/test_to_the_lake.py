"""From Publish through Kafka to raw, curated, OLAP and the dead-letter topic, on the real engines."""

import asyncio
from collections.abc import AsyncIterator

import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from chassis import kafka
from chassis.desired import Desired
from chassis.errors import ArterialError
from chassis.lake import Table
from chassis.partitioning import partition_of
from chassis.testing import eventually, running
from chassis.wire import frame
from services.ingestion import status
from services.ingestion.audit import audit
from services.ingestion.deadletters import DEAD_LETTERS
from services.ingestion.follow import follow
from services.ingestion.followers import follower_versions
from services.ingestion.stream import stream
from tests.events import ledger_entry, trip_event
from tests.ingestion.conftest import Ingestion


async def asked(ingestion: Ingestion, ledger: bytes = b"") -> pb.AuditResponse:
    """The audit of the test's topic."""

    async def requests() -> AsyncIterator[pb.AuditRequest]:
        yield pb.AuditRequest(topics=[ingestion.topic.name], ledger_topic=ingestion.topic.name, acknowledged_ids=ledger)

    return await audit(ingestion.config, ingestion.feed.current, requests())


async def caught_up(ingestion: Ingestion, records: int) -> None:
    """Waits until raw has so many records and its followers have all of raw."""

    async def probe() -> bool:
        table = await asyncio.to_thread(Table.open, ingestion.config.lake, f"raw/{ingestion.topic.name}")
        if table is None or sum(file.rows for file in table.files()) < records:
            return False
        versions = (await follower_versions(ingestion.config, [ingestion.topic]))[ingestion.topic.name]
        trips = await asyncio.to_thread(Table.open, ingestion.config.lake, "curated/trips")
        merged = trips.progress(f"raw/{ingestion.topic.name}") if trips is not None else None
        return versions.curated == versions.live == merged == table.version

    await eventually(probe, f"{records} records in raw, curated and OLAP")


async def send_raw(ingestion: Ingestion, partition: int, values: list[bytes | None]) -> None:
    """Sends values as they are, like a producer that bypasses Publish."""
    producer: AIOKafkaProducer = kafka.producer(ingestion.config.kafka)
    await producer.start()
    for value in values:
        await producer.send_and_wait(ingestion.topic.name, value, key=b"1", partition=partition)
    await producer.stop()


async def test_a_topic_that_was_declared_a_moment_ago_takes_records(ingestion: Ingestion) -> None:
    """Another process may know it before this one; what is not declared at all is refused."""
    declared = ingestion.feed.current
    ingestion.feed.replace(Desired((), 1))
    publishing = asyncio.create_task(ingestion.publisher.publish(ingestion.topic.name, [trip_event().SerializeToString()], 0))
    await asyncio.sleep(0)
    ingestion.feed.replace(declared)
    assert (await publishing).rejected == []
    with pytest.raises(ArterialError, match="nowhere is not a declared topic"):
        await ingestion.publisher.publish("nowhere", [b"x"], 0)


async def test_published_events_are_in_every_table_once(ingestion: Ingestion) -> None:
    """Acknowledged ids = raw = curated = OLAP; a resend is a second record of raw and OLAP and one row of curated."""
    events = [trip_event(f"trip-{number % 50}", number, city_id=number % 7 + 1) for number in range(500)]
    payloads = [event.SerializeToString() for event in events]
    async with running(stream, ingestion.config), running(follow, ingestion.config):
        first = await ingestion.publisher.publish(ingestion.topic.name, payloads, 0)
        again = await ingestion.publisher.publish(ingestion.topic.name, payloads[:10], 0)
        await caught_up(ingestion, 510)
    assert not first.rejected and len(set(zip(first.partitions, first.offsets, strict=True))) == 500
    assert first.partitions == [partition_of(str(event.city_id).encode(), 4) for event in events]
    assert set(zip(again.partitions, again.offsets, strict=True)).isdisjoint(zip(first.partitions, first.offsets, strict=True))
    ledger = b"".join(ledger_entry(event) for event in events + events[:10])
    response = await asked(ingestion, ledger)
    found = response.topics[0]
    assert response.exact, found
    assert (found.acked_ids, found.acked_records, found.kafka, found.raw, found.curated_events, found.olap) == (
        500,
        510,
        510,
        510,
        500,
        510,
    )


async def test_trips_keep_the_latest_event_of_each_trip(ingestion: Ingestion) -> None:
    """One row per trip, by (sequence, event_time, event_id), whatever the order of arrival."""
    events = [trip_event("a", 1), trip_event("a", 3, status=TripEvent.STATUS_COMPLETED), trip_event("b", 1)]
    late = trip_event("a", 2, status=TripEvent.STATUS_STARTED)
    async with running(stream, ingestion.config), running(follow, ingestion.config):
        await ingestion.publisher.publish(ingestion.topic.name, [event.SerializeToString() for event in events], 0)
        await caught_up(ingestion, 3)
        await ingestion.publisher.publish(ingestion.topic.name, [late.SerializeToString()], 0)
        await caught_up(ingestion, 4)
    table = Table.open(ingestion.config.lake, "curated/trips")
    assert table is not None
    trips = pa.table(table.handle.to_pyarrow_table()).sort_by("trip_id").to_pylist()
    assert [(trip["trip_id"], trip["sequence"], trip["status"]) for trip in trips] == [("a", 3, 5), ("b", 1, 1)]


async def test_bad_records_become_dead_letters_with_coordinates(ingestion: Ingestion) -> None:
    """Every bad record is a dead row with reason and original bytes, and a letter in the dead-letter topic."""
    home = partition_of(b"1", 4)
    good = frame(1, trip_event().SerializeToString())
    bad: list[bytes | None] = [
        b"garbage",
        None,
        frame(1, b"\xff\xff"),
        frame(9999, b"x"),
        frame(1, TripEvent(city_id=1).SerializeToString()),
    ]
    async with running(stream, ingestion.config), running(follow, ingestion.config):
        await send_raw(ingestion, home, [*bad, good])
        await send_raw(ingestion, (home + 1) % 4, [good])
        await caught_up(ingestion, 7)
        letters = await read_letters(ingestion, 6)
    reasons = ["undecodable", "tombstone", "undecodable", "unknown_schema", "unidentified", "misrouted"]
    rows = status.dead_letters(ingestion.config, [ingestion.topic], "")
    by_place = {(row["_partition"], row["_offset"]): row for row in rows}
    assert [by_place[home, offset]["_error"].split(":")[0] for offset in range(5)] == reasons[:5]
    assert [by_place[home, offset]["_value"] for offset in range(5)] == bad
    assert sorted(letter.reason for letter in letters) == sorted(reasons)
    assert {letter.offset for letter in letters if letter.partition == home} == set(range(5))
    response = await asked(ingestion)
    assert response.exact, response
    assert (response.topics[0].kafka, response.topics[0].raw, response.topics[0].dead_lettered) == (7, 1, 6)


async def read_letters(ingestion: Ingestion, count: int) -> list[pb.DeadLetter]:
    """The dead letters of the test's topic."""
    consumer = kafka.consumer(ingestion.config.kafka, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(DEAD_LETTERS.name, 0)])
    letters: list[pb.DeadLetter] = []
    async with asyncio.timeout(60):
        while len(letters) < count:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found = [pb.DeadLetter.FromString(record.value[6:]) for record in records]
                letters += [letter for letter in found if letter.source == ingestion.topic.name]
    await consumer.stop()
    return letters


async def test_publish_rejects_what_cannot_be_decoded_or_identified(ingestion: Ingestion) -> None:
    """Rejected records are named with a reason and not written; the others of the frame are."""
    records = [b"\xff\xff", TripEvent(city_id=1).SerializeToString(), trip_event().SerializeToString()]
    done = await ingestion.publisher.publish(ingestion.topic.name, records, 0)
    assert [(dead.index, dead.reason) for dead in done.rejected] == [(0, "undecodable"), (1, "unidentified")]
    assert [offset >= 0 for offset in done.offsets] == [False, False, True]


async def test_a_restart_goes_on_at_the_tables_progress(ingestion: Ingestion) -> None:
    """A worker that is stopped and started again neither loses nor doubles."""
    for _ in range(3):
        async with running(stream, ingestion.config), running(follow, ingestion.config):
            payloads = [trip_event(f"t{number}", number, city_id=number % 5 + 1).SerializeToString() for number in range(100)]
            await ingestion.publisher.publish(ingestion.topic.name, payloads, 0)
            await asyncio.sleep(0.5)
    async with running(stream, ingestion.config), running(follow, ingestion.config):
        await caught_up(ingestion, 300)
    response = await asked(ingestion)
    assert response.exact and response.topics[0].raw == 300
