"""Several services on real engines: from Publish to the lake and to surge, one trace, a killed worker."""

import asyncio
import time
import uuid

from h3.api import basic_int

from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from arterial.api.types.v1.standing_pb2 import VALUE_SOURCE_LIVE
from arterial.channel import connect
from arterial.client import Client
from chassis.testing import eventually
from cli import audit
from deploy.local.supervisor import Stack
from tests.collector import Collector
from tests.events import ledger_entry, trip_event

CELL_9 = basic_int.latlng_to_cell(40.7559, -73.9870, 9)
CITY = 77


def request_at(cell: int, number: int) -> bytes:
    """A rider asks for a trip."""
    event = MarketplaceEvent(
        event_id=uuid.uuid4().bytes,
        city_id=CITY,
        kind=MarketplaceEvent.KIND_REQUEST,
        cell=cell,
        actor_id=f"rider-{number}",
        sequence=number,
    )
    event.event_time.FromMicroseconds(int(time.time() * 1e6))
    return event.SerializeToString()


async def test_demand_without_drivers_raises_surge_within_seconds(addresses: dict[str, str]) -> None:
    """Published requests raise the multiplier of their cell step by step, and its standing says that it is live."""
    async with Client(ingestion=addresses["ingestion"], pricing=addresses["pricing"]) as client, client.publisher() as publisher:

        async def surged() -> bool:
            await publisher.publish("marketplace_events_v1", [request_at(CELL_9, number) for number in range(20)])
            surge = (await client.get_surge(CITY, CELL_9)).surge
            return surge.multiplier_milli >= 1400 and surge.standing.source == VALUE_SOURCE_LIVE

        await eventually(surged, "a multiplier of at least 1.4")
        quote = await client.quote(CITY, "standard", (40.7559, -73.9870), distance_m=3000, duration_seconds=600)
        cells = await client.list_city_surge(CITY)
    assert quote.base_price.amount_minor == 255 + 327 + 350
    assert [cell.multiplier_milli for cell in cells] == sorted((cell.multiplier_milli for cell in cells), reverse=True)
    assert all(cell.standing.position.source == "pricing_partials_v1" and not cell.standing.stale for cell in cells)


async def test_a_killed_worker_loses_and_doubles_nothing(stack: Stack, addresses: dict[str, str]) -> None:
    """SIGKILL of the ingestion worker while events flow; afterwards every acknowledged id is in every table once."""
    topic, ledger = "trip_events_v2", b""
    async with Client(ingestion=addresses["ingestion"]) as client, client.publisher() as publisher:
        for batch in range(20):
            events = [trip_event(f"kill-{batch}-{number}", city_id=number % 9 + 1) for number in range(50)]
            reply = await publisher.publish(topic, [event.SerializeToString() for event in events])
            assert not reply.rejected
            ledger += b"".join(ledger_entry(event) for event in events)
            if batch in (5, 12):
                stack.kill("ingestion-stream")
            await asyncio.sleep(0.1)

    async def exact() -> bool:
        async with connect(addresses["ingestion"]) as channel:
            found: pb.AuditResponse = await audit.ask(channel, {topic: ledger}, topics=[topic])
        return found.exact and found.topics[0].acked_ids == 1000

    await eventually(exact, "an exact audit", 90)


async def test_one_trace_from_publish_over_kafka_to_lake_and_redis(addresses: dict[str, str], collector: Collector) -> None:
    """The lake's commit and the combiner link to the trace of Publish; the write to Redis continues the combiner's."""
    async with Client(ingestion=addresses["ingestion"]) as client, client.publisher() as publisher:
        for number in range(5):
            await publisher.publish("marketplace_events_v1", [request_at(CELL_9, number)])
            await asyncio.sleep(0.3)

    async def told() -> bool:
        publishes = {span.trace_id for span in collector.named("arterial.api.ingestion.v1.IngestionService/Publish")}
        commits = {link.trace_id for span in collector.named("lake commit") for link in span.links}
        combines = {span.trace_id for span in collector.named("combine") if publishes & {link.trace_id for link in span.links}}
        writes = {span.trace_id for span in collector.named("redis write")}
        return bool(publishes & commits) and bool(combines & writes)

    await eventually(told, "the whole way in one trace")
