"""The audit over the wire's own readers: bounded in time, blind to nothing, unmoved by resends. And letters that would not fit."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from chassis.clock import SystemClock
from chassis.recordfiles import open_file, write_records
from chassis.testing import running
from services.ingestion.audit import audit
from services.ingestion.backfill import load
from services.ingestion.deadletters import MAX_LETTER_BYTES, fitting
from services.ingestion.follow import follow
from services.ingestion.raw import RawTable
from services.ingestion.stream import stream
from tests.events import ledger_entry, trip_event
from tests.ingestion.conftest import Ingestion
from tests.ingestion.test_to_the_lake import asked, caught_up


async def test_an_interval_looks_at_its_own_records_only(ingestion: Ingestion) -> None:
    """A resend within the interval whose curated row is from before it is no finding."""
    events = [trip_event(f"trip-{number}", number, city_id=number % 7) for number in range(60)]
    payloads = [event.SerializeToString() for event in events]
    async with running(stream, ingestion.config), running(follow, ingestion.config):
        await ingestion.publisher.publish(ingestion.topic.name, payloads[:40], 0)
        await asyncio.sleep(0.05)
        since = time.time()
        await ingestion.publisher.publish(ingestion.topic.name, payloads[30:], 0)
        await caught_up(ingestion, 70)

    async def requests() -> AsyncIterator[pb.AuditRequest]:
        request = pb.AuditRequest(topics=[ingestion.topic.name])
        request.interval.start_time.FromMilliseconds(int(since * 1000))
        yield request

    response = await audit(ingestion.config, ingestion.feed.current, requests())
    found = response.topics[0]
    assert response.exact, found
    assert (found.kafka, found.raw, found.curated_events, found.olap) == (30, 30, 20, 30)


async def test_an_acknowledged_record_that_is_nowhere_is_missing_everywhere(ingestion: Ingestion) -> None:
    """What only the ledger knows is named by its id in every store; what was never acknowledged still counts."""
    async with running(stream, ingestion.config), running(follow, ingestion.config):
        await ingestion.publisher.publish(ingestion.topic.name, [trip_event().SerializeToString()], 0)
        await caught_up(ingestion, 1)
    lost = trip_event()
    response = await asked(ingestion, ledger_entry(lost))
    assert not response.exact and response.topics[0].kafka == 1
    assert {(finding.place, finding.event_id) for finding in response.topics[0].missing} == {
        (place, lost.event_id) for place in ("raw", "curated", "olap")
    }


def test_a_letter_too_large_for_a_record_is_cut_and_says_so() -> None:
    """Coordinates and reason stay; letters that fit are left as they are."""
    small = pb.DeadLetter(source="t", value=b"x" * 1000)
    assert fitting(pb.DeadLetter.FromString(small.SerializeToString())) == small
    large = fitting(pb.DeadLetter(source="t", offset=7, reason="undecodable", key=b"k" * 500_000, value=b"x" * 1_000_000))
    assert large.ByteSize() <= MAX_LETTER_BYTES and large.offset == 7 and "cut from 15000" in large.message


async def test_superseded_rows_are_a_class_of_their_own(ingestion: Ingestion, tmp_path: Path) -> None:
    """Exact once the followers have applied the correction; until then each superseded row that is left is named, by store."""
    table = RawTable(ingestion.config.cell, ingestion.config.lake, ingestion.topic, ingestion.feed.schemas)
    events = [trip_event(f"trip-{number}").SerializeToString() for number in range(4)]

    async def loaded(name: str, values: list[bytes], supersedes: list[str]) -> str:
        write_records(tmp_path / name, ingestion.topic.name, values, supersedes)
        file = open_file(tmp_path / name)
        await load(table, file, SystemClock(), asyncio.Event())
        return file.source

    bad = await loaded("bad.parquet", [*events, b"\xff\xff"], [])
    async with running(follow, ingestion.config):
        await caught_up(ingestion, 5)
    good = await loaded("good.parquet", events[:3], [bad])
    late = await asked(ingestion)
    assert not late.exact
    found = {(finding.place, finding.source, finding.offset) for finding in late.topics[0].duplicated}
    assert found == {(place, bad, offset) for place in ("curated", "olap") for offset in range(4)}
    async with running(follow, ingestion.config):
        await caught_up(ingestion, 8)
    response = await asked(ingestion)
    assert response.exact, response
    files = {file.source: (file.rows, file.raw, file.dead_lettered, file.superseded) for file in response.files}
    assert files == {bad: (5, 0, 1, 4), good: (3, 3, 0, 0)}
    assert (response.topics[0].curated_events, response.topics[0].olap) == (3, 3)
