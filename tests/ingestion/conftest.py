"""An ingestion service on the real engines, with topics of its own for every test."""

import dataclasses
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arterial.api.controlplane.v1 import resource_pb2
from chassis import kafka, resourcefiles
from chassis.config import KafkaConfig, LakeConfig, OlapConfig, RpcConfig
from chassis.desired import Desired, DesiredFeed
from chassis.topics import Topic
from services.ingestion.config import IngestionConfig
from services.ingestion.publish import Publisher
from tests.controlplane.conftest import plane

__all__ = ["plane"]

SEED = Path(__file__).parents[2] / "deploy" / "resources"


@dataclasses.dataclass(frozen=True)
class Ingestion:
    """What a test needs of the service."""

    config: IngestionConfig
    feed: DesiredFeed
    topic: Topic
    publisher: Publisher


def seed(topic: str) -> list[resource_pb2.Resource]:
    """Resources with one trip topic of that name, and fast pipelines over it."""
    chosen = []
    for resource in resourcefiles.read([SEED]):
        if resource.kind == "Topic" and resource.metadata.name == "trip_events_v2":
            resource.metadata.name = topic
            resource.topic.partitions = 4
            chosen.append(resource)
        if resource.kind == "Pipeline" and resource.metadata.name in ("raw", "curated", "live"):
            resource.pipeline.topics[:] = [topic]
            resource.pipeline.interval_ms = 200
            chosen.append(resource)
    return chosen


@pytest.fixture
async def ingestion(
    kafka_config: KafkaConfig, lake_config: LakeConfig, olap_config: OlapConfig, tmp_path: Path
) -> AsyncIterator[Ingestion]:
    """Configuration, desired state and a publisher."""
    topic = f"trips_{uuid.uuid4().hex[:8]}"
    config = IngestionConfig(state_dir=tmp_path / "state", kafka=kafka_config, lake=lake_config, olap=olap_config, rpc=RpcConfig(port=0))
    feed = DesiredFeed(Desired(tuple(seed(topic))), config.state_dir, None)
    feed.replace(feed.current)
    await kafka.ensure_topics(config.kafka, feed.current.topics.values())
    producer = kafka.producer(config.kafka)
    await producer.start()
    yield Ingestion(config, feed, feed.current.topics[topic], Publisher(producer, feed))
    await producer.stop()
