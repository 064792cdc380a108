"""Declared features while what is declared changes, on real Kafka and Redis."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from aiokafka import TopicPartition
from redis.asyncio import Redis

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from chassis import kafka, kv, testing
from chassis.config import KafkaConfig, KvConfig
from chassis.desired import Desired, DesiredFeed
from chassis.features import role
from chassis.features.role import FeatureWorker, Setup
from chassis.features.store import FeatureStore, Position
from chassis.features.windows import Feature, Values
from chassis.lineage import Lineage
from chassis.testing import eventually
from chassis.wire import frame
from tests.events import trip_event
from tests.ingestion.test_standing import Heard, Said

MARKET = MarketplaceEvent.DESCRIPTOR.full_name


def topic(name: str, schema: str = "") -> resource_pb2.Resource:
    """A topic of one partition, of marketplace events or of another schema."""
    spec = specs_pb2.TopicSpec(key_field="city_id", partitions=1, schema=schema, message="" if schema else MARKET)
    return resource_pb2.Resource(kind="Topic", metadata=resource_pb2.Metadata(name=name, generation=3), topic=spec)


def feature(name: str, of: str, service: str = "pricing", windows: tuple[int, ...] = (600,), column: str = "") -> resource_pb2.Resource:
    """The number of events of a city, or the sum of a column of theirs."""
    function = specs_pb2.AGGREGATE_FUNCTION_SUM if column else specs_pb2.AGGREGATE_FUNCTION_COUNT
    aggregates = [specs_pb2.FeatureAggregate(name="n", function=function, column=column)]
    spec = specs_pb2.FeatureSpec(topic=of, key="city_id", aggregates=aggregates, windows_seconds=windows, service=service)
    return resource_pb2.Resource(kind="Feature", metadata=resource_pb2.Metadata(name=name, generation=3), feature=spec)


def event(city: int, text: str = "r") -> bytes:
    """A framed event of now."""
    made = MarketplaceEvent(event_id=uuid.uuid4().bytes, city_id=city, kind=MarketplaceEvent.KIND_REQUEST, actor_id=text)
    made.event_time.FromMicroseconds(int(time.time() * 1e6))
    return frame(4, made.SerializeToString())


@dataclass(frozen=True)
class Computing:
    """A worker, what is declared to it, and what it says."""

    kafka: KafkaConfig
    feed: DesiredFeed
    said: dict[str, Said]
    store: FeatureStore

    def declare(self, *resources: resource_pb2.Resource) -> None:
        """These, and no others."""
        self.feed.replace(Desired(resources, self.feed.current.version + 1))

    async def says(self, name: str, reason: str | None) -> None:
        """Waits until this is said of a feature; None: taken back."""

        async def told() -> bool:
            standing = self.said.get(f"Feature/{name}", (None, ""))
            return (standing[1] if standing is not None else None) == reason

        await eventually(told, f"{name}: {reason}")

    async def send(self, name: str, *values: bytes) -> None:
        """Records of the one partition."""
        producer = kafka.producer(self.kafka)
        await producer.start()
        await kafka.send_all(producer, TopicPartition(name, 0), [(b"1", value) for value in values])
        await producer.stop()

    async def has(self, name: str, city: int, **values: str) -> None:
        """Waits until the online store has these values."""

        async def there() -> bool:
            return values.items() <= (await self.store.read(name, str(city))).items()

        await eventually(there, f"{name} of {city}: {values}")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client."""
    client = kv.connect(KvConfig(url=redis_url))
    yield client
    await client.aclose()


@asynccontextmanager
async def computing(kafka_config: KafkaConfig, redis: Redis, folder: Path) -> AsyncIterator[Computing]:
    """The role of a service, which must not end by itself."""
    context = testing.context()
    feed = DesiredFeed(Desired(()), folder / "state", None)
    heard = feed.reports = Heard()
    # A group of its own: nobody waits for a former test's member.
    setup = Setup("pricing", kafka_config, FeatureStore(redis))
    running = asyncio.create_task(FeatureWorker(setup, context, feed, Lineage(None, "local", context.clock)).run())
    try:
        yield Computing(kafka_config, feed, heard.said, setup.store)
    finally:
        context.stopping.set()
        await running


async def test_a_topic_that_cannot_be_read_keeps_no_other_feature_from_being_computed(
    kafka_config: KafkaConfig, redis: Redis, tmp_path: Path
) -> None:
    """A schema that is not known here, a name that Kafka refuses: both are told."""
    name = f"market_{uuid.uuid4().hex[:8]}"
    unknown, refused = topic(f"{name}_unknown", schema="nobody_knows_it"), topic("no/topic")
    async with computing(kafka_config, redis, tmp_path) as found:
        features = [feature(name, name), feature("f1", unknown.metadata.name), feature("f2", "no/topic")]
        found.declare(topic(name), unknown, refused, *features)
        await found.says(name, "Computing")
        await found.says("f1", "TopicFailed")
        await found.says("f2", "TopicFailed")
        await found.send(name, event(1))
        await found.has(name, 1, n_600s="1")
        found.declare(topic(name, schema="nobody_knows_it"), feature(name, name))
        await found.says(name, "TopicFailed")
        await found.send(name, event(1))
        await found.has(name, 1, n_600s="2")


async def test_a_feature_of_another_service_is_not_spoken_of_any_more(kafka_config: KafkaConfig, redis: Redis, tmp_path: Path) -> None:
    """Whoever waits for its new version would wait for this one, too."""
    name = f"market_{uuid.uuid4().hex[:8]}"
    async with computing(kafka_config, redis, tmp_path) as found:
        found.declare(topic(name), feature(name, name))
        await found.says(name, "Computing")
        found.declare(topic(name), feature(name, name, service="radar"))
        await found.says(name, None)


async def test_records_that_do_not_fit_are_a_misfit_as_long_as_they_come(kafka_config: KafkaConfig, redis: Redis, tmp_path: Path) -> None:
    """A topic has records of several schemas, and gets others."""
    name = f"market_{uuid.uuid4().hex[:8]}"
    async with computing(kafka_config, redis, tmp_path) as found:
        found.declare(topic(name), feature(name, name, column="cell"))
        await found.says(name, "Computing")
        await found.send(name, frame(1, trip_event(city_id=1).SerializeToString()))
        await found.says(name, "Misfit")
        await found.send(name, event(1))
        await found.says(name, "Computing")


async def test_a_changed_feature_is_told_whole_of_keys_without_news(
    kafka_config: KafkaConfig, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several fetches to read again what was there, and the store refuses values of positions that it has passed."""
    monkeypatch.setattr(role, "TICK_SECONDS", 0.0)
    name = f"market_{uuid.uuid4().hex[:8]}"
    noise = random.Random(1)
    async with computing(kafka_config, redis, tmp_path) as found:
        found.declare(topic(name), feature(name, name))
        await found.says(name, "Computing")
        await found.send(name, event(1))
        for _ in range(3):
            await found.send(name, *(event(2, noise.randbytes(6000).hex()) for _ in range(150)))
        await found.has(name, 2, n_600s="450")
        # As told by a worker that took over at the end.
        former = Feature(name, feature(name, name).feature)
        await found.store.write(former, Values(["1"], np.ones((1, 1))), 0, Position(0, 0, 451))
        found.declare(topic(name), feature(name, name, windows=(600, 3600)))
        await found.has(name, 2, n_3600s="450")
        await found.has(name, 1, n_3600s="1")
