"""Topics whose number of partitions is not the declared one: told, read whole, and nothing lost or misplaced."""

import asyncio
import dataclasses
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from aiokafka import TopicPartition
from deltalake import DeltaTable

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis import kafka, testing
from chassis.config import KafkaConfig, LakeConfig, OlapConfig, RpcConfig
from chassis.desired import Desired, DesiredFeed
from chassis.errors import ArterialError, Reason
from chassis.lake import Table
from chassis.lineage import Lineage
from chassis.partitioning import partition_of
from chassis.testing import eventually
from chassis.topics import Topic
from chassis.wire import frame
from services.ingestion import status
from services.ingestion.audit_readers import Bounds, read_kafka
from services.ingestion.config import IngestionConfig
from services.ingestion.publish import Publisher
from services.ingestion.stream import RawStream
from tests.events import trip_event
from tests.ingestion.test_standing import Heard, Said

DECLARED = 4
Records = Sequence[tuple[int, bytes, bytes]]


@dataclasses.dataclass(frozen=True)
class Log:
    """A topic that has another number of partitions than the DECLARED one, and what ingestion is told of it."""

    config: IngestionConfig
    feed: DesiredFeed
    said: dict[str, Said]
    topic: Topic

    async def send(self, records: Records) -> None:
        """Sends partition, key and value of each."""
        producer = kafka.producer(self.config.kafka)
        await producer.start()
        for partition, key, value in records:
            await kafka.send_all(producer, TopicPartition(self.topic.name, partition), [(key, value)])
        await producer.stop()

    async def rows(self, count: int) -> pa.Table:
        """Runs the stream until raw has so many rows; these."""
        context = testing.context()
        stream = RawStream(self.config, context, self.feed, Lineage(None, "local", context.clock))
        running = asyncio.create_task(stream.run())
        try:
            await eventually(lambda: self._has(count), f"{count} rows of raw")
        finally:
            context.stopping.set()
            await running
        handle = await asyncio.to_thread(self._read)
        assert handle is not None
        return handle.to_pyarrow_table()

    def _read(self) -> DeltaTable | None:
        table = Table.open(self.config.lake, f"raw/{self.topic.name}")
        return None if table is None else table.handle

    async def _has(self, count: int) -> bool:
        handle = await asyncio.to_thread(self._read)
        return handle is not None and handle.to_pyarrow_table().num_rows == count


def spec(*, adopted: bool) -> specs_pb2.TopicSpec:
    """Trips, routed by the city; as ours, or as others made them."""
    message = TripEvent.DESCRIPTOR.full_name
    adoption = specs_pb2.Adoption(format=specs_pb2.RECORD_FORMAT_FRAMED, id="trip_id", time="event_time") if adopted else None
    return specs_pb2.TopicSpec(message=message, key_field="city_id", partitions=DECLARED, adoption=adoption)


async def log(kafka_config: KafkaConfig, folder: Path, partitions: int, *, adopted: bool) -> Log:
    """The topic, with so many partitions."""
    name = f"differs_{uuid.uuid4().hex[:8]}"
    pipeline = specs_pb2.PipelineSpec(role=specs_pb2.PIPELINE_ROLE_RAW, topics=[name], interval_ms=100, max_batch_rows=1000)
    topic = resource_pb2.Resource(kind="Topic", metadata=resource_pb2.Metadata(name=name, generation=3), topic=spec(adopted=adopted))
    raw = resource_pb2.Resource(kind="Pipeline", metadata=resource_pb2.Metadata(name="raw", generation=3), pipeline=pipeline)
    feed = DesiredFeed(Desired((topic, raw), 9), folder / "state", None)
    heard = feed.reports = Heard()
    config = IngestionConfig(
        state_dir=folder / "state",
        kafka=kafka_config,
        lake=LakeConfig(root=str(folder / "lake")),
        olap=OlapConfig(port=1),
        rpc=RpcConfig(port=0),
    )
    declared = feed.current.topics[name]
    await kafka.ensure_topics(kafka_config, [dataclasses.replace(declared, partitions=partitions)])
    return Log(config, feed, heard.said, declared)


@pytest.mark.parametrize("partitions", [2, 7])
async def test_an_adopted_topic_is_read_as_its_producers_made_it(kafka_config: KafkaConfig, tmp_path: Path, partitions: int) -> None:
    """Keys are spread over the partitions that there are: every record of every partition is good; the status has both numbers."""
    found = await log(kafka_config, tmp_path, partitions, adopted=True)
    cities = range(30)
    events = [trip_event(f"t{city}", city_id=city).SerializeToString() for city in cities]
    routes = [partition_of(str(city).encode(), partitions) for city in cities]
    assert set(routes) == set(range(partitions))
    await found.send([(routes[city], str(city).encode(), frame(1, events[city])) for city in cities])
    rows = await found.rows(30)
    assert not [error for error in rows["_error"].to_pylist() if error] and sorted(rows["city_id"].to_pylist()) == list(cities)
    assert found.said[f"Topic/{found.topic.name}"] == (False, "PartitionsDiffer") and found.said["Pipeline/raw"] == (True, "Running")
    assert {row.partition for row, _ in await status.lag(found.config, [found.topic])} == set(range(partitions))
    producer = kafka.producer(kafka_config)
    await producer.start()
    try:
        placed = await Publisher(producer, found.feed).publish(found.topic.name, events, 0)
    finally:
        await producer.stop()
    assert placed.partitions == routes


async def test_ours_stays_as_it_is_declared_when_it_has_more(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    """The partition of a key is among those declared; what lies beyond is read, kept as a dead letter, and audited."""
    found = await log(kafka_config, tmp_path, 6, adopted=False)
    right = partition_of(b"1", DECLARED)
    values = [frame(1, trip_event(f"t{number}").SerializeToString()) for number in range(2)]
    await found.send([(right, b"1", values[0]), (5, b"1", values[1])])
    rows = await found.rows(2)
    by_partition = dict(zip(rows["_partition"].to_pylist(), rows["_error"].to_pylist(), strict=True))
    assert by_partition[right] is None and by_partition[5].startswith("misrouted")
    assert found.said[f"Topic/{found.topic.name}"] == (False, "PartitionsDiffer")
    assert [end for row, end in await status.lag(found.config, [found.topic]) if row.partition == 5] == [1]
    assert (await read_kafka(kafka_config, found.topic, TripEvent.DESCRIPTOR, Bounds())).ends[5] == 1
    progress = dict.fromkeys(kafka.partitions(dataclasses.replace(found.topic, partitions=9)))
    waiting = await kafka.backlog(kafka_config, progress, [])
    assert len(waiting) == 9 and waiting[TopicPartition(found.topic.name, 8)] == [0]


async def test_ours_with_fewer_is_read_and_takes_only_what_has_a_place(kafka_config: KafkaConfig, tmp_path: Path) -> None:
    """Publish refuses at once, with both numbers, what belongs in a partition that does not exist."""
    found = await log(kafka_config, tmp_path, 2, adopted=False)
    there = next(city for city in range(50) if partition_of(str(city).encode(), DECLARED) < 2)
    nowhere = next(city for city in range(50) if partition_of(str(city).encode(), DECLARED) > 1)
    producer = kafka.producer(kafka_config)
    await producer.start()
    try:
        publisher = Publisher(producer, found.feed)
        assert (await publisher.publish(found.topic.name, [trip_event(city_id=there).SerializeToString()], 0)).offsets == [0]
        with pytest.raises(ArterialError, match="has 2 partitions in Kafka, 4 are declared") as caught:
            await publisher.publish(found.topic.name, [trip_event(city_id=nowhere).SerializeToString()], 0)
        assert caught.value.reason is Reason.REFUSED
    finally:
        await producer.stop()
    assert (await found.rows(1))["_error"].to_pylist() == [None]
    assert found.said[f"Topic/{found.topic.name}"] == (False, "PartitionsDiffer")
    assert len(await status.lag(found.config, [found.topic])) == 2
