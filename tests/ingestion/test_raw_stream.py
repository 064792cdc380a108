"""The stream to raw while what is declared changes: one topic that cannot be keeps none of the others from being read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pyarrow as pa
import pytest
from aiokafka import TopicPartition

from arterial.api.controlplane.v1 import resource_pb2
from chassis import kafka, testing
from chassis.desired import Desired
from chassis.lake import Table
from chassis.lineage import Lineage
from chassis.testing import eventually, running
from services.ingestion import stream
from services.ingestion.rows import PARTITION_BY
from services.ingestion.serving import serve
from services.ingestion.stream import RawStream
from tests.events import trip_event
from tests.ingestion.conftest import Ingestion, seed
from tests.ingestion.test_standing import Heard, Said


@asynccontextmanager
async def streaming(ingestion: Ingestion) -> AsyncIterator[dict[str, Said]]:
    """The stream, which must not end by itself; what it says."""
    context = testing.context()
    heard = ingestion.feed.reports = Heard()
    task = asyncio.create_task(RawStream(ingestion.config, context, ingestion.feed, Lineage(None, "local", context.clock)).run())
    try:
        yield heard.said
    finally:
        context.stopping.set()
        await task


def declare(ingestion: Ingestion, *topics: str, change: Callable[[resource_pb2.Resource], None] = lambda _: None) -> None:
    """These topics, read by the pipelines of the seed, each changed so."""
    found = {name: seed(name) for name in topics or ("none",)}
    declared = [resource for resources in found.values() for resource in resources if resource.kind == "Topic" and topics]
    pipelines = [resource for resource in next(iter(found.values())) if resource.kind == "Pipeline"]
    for resource in declared:
        change(resource)
    for resource in pipelines:
        resource.pipeline.topics[:] = topics
    for resource in (*declared, *pipelines):
        resource.metadata.generation = 3
    ingestion.feed.replace(Desired((*declared, *pipelines), ingestion.feed.current.version + 1))


async def says(said: dict[str, Said], topic: str, *wanted: str) -> None:
    """Waits until this is said of the topic."""

    async def told() -> bool:
        standing = said.get(f"Topic/{topic}")
        return standing is not None and standing[1] in wanted

    await eventually(told, f"{topic}: {wanted}")


async def send(ingestion: Ingestion, topic: str) -> None:
    """A record, by a client that has no memory of the topic."""
    producer = kafka.producer(ingestion.config.kafka)
    await producer.start()
    await kafka.send_all(producer, TopicPartition(topic, 0), [(b"1", b"garbage")])
    await producer.stop()


async def in_raw(ingestion: Ingestion, rows: int, topic: str = "") -> None:
    """Waits until raw has so many rows of the topic of the test, or of another."""

    async def there() -> bool:
        table = await asyncio.to_thread(Table.open, ingestion.config.lake, f"raw/{topic or ingestion.topic.name}")
        return table is not None and sum(added.rows for added in table.files()) == rows

    await eventually(there, f"{rows} rows")


async def test_a_topic_that_kafka_refuses_keeps_no_other_from_being_read(ingestion: Ingestion) -> None:
    """Its name is told, and why; the stream lives on, and so does who takes records."""
    name = ingestion.topic.name
    declare(ingestion, "no/topic", name)
    async with streaming(ingestion) as said, running(serve, ingestion.config):
        await says(said, "no/topic", "TableFailed")
        await ingestion.publisher.publish(name, [trip_event().SerializeToString()], 0)
        await in_raw(ingestion, 1)
        await says(said, name, "Read")


async def test_a_change_that_cannot_be_is_no_fault_any_more_once_it_is_taken_back(
    ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table that is open goes on meanwhile."""
    monkeypatch.setattr(stream, "RETRY_SECONDS", 0.2)
    name = ingestion.topic.name

    def otherwise(resource: resource_pb2.Resource) -> None:
        resource.topic.message, resource.topic.schema = "", "nobody_knows_it"

    declare(ingestion, name)
    async with streaming(ingestion) as said:
        await says(said, name, "Read")
        declare(ingestion, name, change=otherwise)
        await says(said, name, "TableFailed")
        declare(ingestion, name)
        await says(said, name, "Read")


async def test_the_last_topic_may_go_and_come_back(ingestion: Ingestion) -> None:
    """Without any the stream waits for one, at its start, too."""
    name = ingestion.topic.name
    declare(ingestion)
    async with streaming(ingestion) as said:
        await asyncio.sleep(0.3)
        declare(ingestion, name)
        await says(said, name, "Read")
        declare(ingestion)
        await asyncio.sleep(0.3)
        said.clear()
        declare(ingestion, name)
        await says(said, name, "Read")
        await ingestion.publisher.publish(name, [trip_event().SerializeToString()], 0)
        await in_raw(ingestion, 1)


async def test_a_topic_that_was_recreated_keeps_no_other_from_being_read(ingestion: Ingestion) -> None:
    """It says so, until its incarnation is raised."""
    name, other = ingestion.topic.name, f"{ingestion.topic.name}_other"
    declare(ingestion, name, other)
    async with streaming(ingestion) as said:
        await says(said, name, "Read")
        await ingestion.publisher.publish(name, [trip_event().SerializeToString()], 0)
        await in_raw(ingestion, 1)
    await kafka.delete_topic(ingestion.config.kafka, name)
    async with streaming(ingestion) as said:
        await says(said, name, "TableFailed")
        await says(said, other, "Read")
        await ingestion.publisher.publish(other, [trip_event().SerializeToString()], 0)
        await in_raw(ingestion, 1, other)

        def raised(resource: resource_pb2.Resource) -> None:
            resource.topic.incarnation = 1

        declare(ingestion, name, other, change=raised)
        await says(said, name, "Read")
        await send(ingestion, name)
        await in_raw(ingestion, 2)


async def test_a_table_that_takes_no_rows_keeps_no_other_from_being_read(ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has another type in a column, say; that it is tried again makes it no better."""
    monkeypatch.setattr(stream, "RETRY_SECONDS", 0.2)
    name, other = ingestion.topic.name, f"{ingestion.topic.name}_other"
    schema = pa.schema(
        [("city_id", pa.struct([("name", pa.string())])), ("ingest_date", pa.string()), ("region", pa.string()), ("dead", pa.bool_())]
    )
    Table.open_or_create(ingestion.config.lake, f"raw/{name}", schema, PARTITION_BY)
    declare(ingestion, name, other)
    async with streaming(ingestion) as said:
        await says(said, name, "Read")
        for topic in (name, other):
            await ingestion.publisher.publish(topic, [trip_event().SerializeToString()], 0)
        await says(said, name, "TableFailed")
        await in_raw(ingestion, 1, other)
        await says(said, other, "Read")
        for _ in range(20):
            assert said[f"Topic/{name}"] == (False, "TableFailed")
            await asyncio.sleep(0.05)
