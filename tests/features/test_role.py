"""Declared features on real Kafka and Redis."""

import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from aiokafka import TopicPartition

from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from chassis import kafka, kv
from chassis.config import KafkaConfig, KvConfig, LakeConfig, RpcConfig
from chassis.features.store import AS_OF, VERSION, FeatureStore
from chassis.partitioning import partition_of
from chassis.testing import eventually, running
from chassis.topics import Topic
from chassis.wire import frame
from services.pricing.config import PricingConfig
from services.pricing.declared import features

SEED = Path(__file__).parents[2] / "deploy" / "resources"
MARKET = Topic("marketplace_events_v1", "arterial.api.events.v1.MarketplaceEvent", "city_id")
FEATURE = """
apiVersion: arterial.dev/v1
kind: Feature
metadata: {name: requests}
spec:
  topic: marketplace_events_v1
  filter: kind = 3
  key: city_id
  aggregates: [{name: requests, function: AGGREGATE_FUNCTION_COUNT}]
  windowsSeconds: [600, 3600]
  graceSeconds: 120
  service: pricing
"""


def request(city: int, seconds_ago: float = 0.0, kind: MarketplaceEvent.Kind.ValueType = MarketplaceEvent.KIND_REQUEST) -> bytes:
    """A framed event."""
    event = MarketplaceEvent(event_id=uuid.uuid4().bytes, city_id=city, kind=kind, actor_id="r")
    event.event_time.FromMicroseconds(int((time.time() - seconds_ago) * 1e6))
    return frame(4, event.SerializeToString())


def config(kafka_config: KafkaConfig, redis_url: str, folder: Path) -> PricingConfig:
    """The seed and a feature."""
    shutil.copytree(SEED, folder / "resources")
    (folder / "resources" / "feature.yaml").write_text(FEATURE.replace("kind = 3", f"kind = {int(MarketplaceEvent.KIND_REQUEST)}"))
    return PricingConfig(
        state_dir=folder / "state",
        resources_dir=folder / "resources",
        kafka=kafka_config,
        kv=KvConfig(url=redis_url),
        checkpoints=LakeConfig(root=str(folder / "checkpoints")),
        lake=LakeConfig(root=str(folder / "lake")),
        models=LakeConfig(root=str(folder / "models")),
        rpc=RpcConfig(port=0),
    )


async def test_values_are_in_redis_and_the_same_after_a_restart(kafka_config: KafkaConfig, redis_url: str, tmp_path: Path) -> None:
    """Repeats, events from the future, late ones, those that the filter leaves out and garbage do not count, whoever reads the log."""
    settings = config(kafka_config, redis_url, tmp_path)
    city = 777
    home = TopicPartition(MARKET.name, partition_of(str(city).encode(), MARKET.partitions))
    await kafka.ensure_topics(kafka_config, [MARKET])
    producer = kafka.producer(kafka_config)
    await producer.start()
    redis = kv.connect(settings.kv)
    store = FeatureStore(redis)
    repeated, other = request(city), request(city, kind=MarketplaceEvent.KIND_SESSION_OPENED)

    async def send(*values: bytes) -> None:
        await kafka.send_all(producer, home, [(str(city).encode(), value) for value in values])

    async def requests(recent: int, all_of_them: int) -> Mapping[str, str]:
        async def there() -> bool:
            found = await store.read("requests", str(city))
            return (found.get("requests_600s"), found.get("requests_3600s")) == (str(recent), str(all_of_them))

        await eventually(there, f"{recent} and {all_of_them} requests in Redis")
        return await store.read("requests", str(city))

    await send(*(request(city, 1000) for _ in range(4)), repeated, repeated, other, b"garbage", request(city, -900), request(city, 500))
    async with running(features, settings):
        first = await requests(1, 5)
        await send(request(city))
        second = await requests(2, 6)
    assert second[VERSION] > first[VERSION] and int(second[AS_OF]) >= int(first[AS_OF])
    await redis.flushall()
    async with running(features, settings):
        assert (await requests(2, 6))[VERSION] == second[VERSION]
    await redis.aclose()
    await producer.stop()
