"""Combiner and agents on real Kafka and Redis: killed and restarted, every event is counted once."""

import time
import uuid
from collections import Counter
from itertools import pairwise
from pathlib import Path

from aiokafka import TopicPartition
from h3.api import basic_int

from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis import kafka, kv
from chassis.config import KafkaConfig, KvConfig, LakeConfig, RpcConfig
from chassis.partitioning import partition_of
from chassis.testing import eventually, running
from chassis.topics import Topic
from chassis.wire import frame, split
from services.pricing.config import PricingConfig
from services.pricing.store import surge_store
from services.pricing.stream import combine, stream

SEED = Path(__file__).parents[2] / "deploy" / "resources"
CELL = basic_int.latlng_to_cell(40.7559, -73.9870, 9)
MARKET = Topic("marketplace_events_v1", "arterial.api.events.v1.MarketplaceEvent", "city_id")
PARTIALS = Topic("pricing_partials_v1", "arterial.api.pricing.v1.PricingPartial", "partition")


def request(city: int, ahead_seconds: float = 0.0) -> bytes:
    """A framed request."""
    event = MarketplaceEvent(event_id=uuid.uuid4().bytes, city_id=city, kind=MarketplaceEvent.KIND_REQUEST, cell=CELL, actor_id="r")
    event.event_time.FromMicroseconds(int((time.time() + ahead_seconds) * 1e6))
    return frame(4, event.SerializeToString())


async def partials(config: KafkaConfig, partition: int) -> list[PricingPartial]:
    """All committed partials of a partition."""
    client = kafka.consumer(config)
    await client.start()
    tp = TopicPartition(PARTIALS.name, partition)
    client.assign([tp])
    end, found = (await client.end_offsets([tp]))[tp], []
    client.seek(tp, 0)
    while await client.position(tp) < end:
        for records in (await client.getmany(timeout_ms=200)).values():
            found += [PricingPartial.FromString(split(record.value)[2]) for record in records]
    await client.stop()
    return found


async def test_each_record_is_in_exactly_one_partial_across_restarts(kafka_config: KafkaConfig, redis_url: str, tmp_path: Path) -> None:
    """Stream + future + repeats + undecodable = what was sent, with the combiner stopped and started meanwhile; Redis has the price."""
    config = PricingConfig(
        state_dir=tmp_path / "state",
        resources_dir=SEED,
        kafka=kafka_config,
        kv=KvConfig(url=redis_url),
        checkpoints=LakeConfig(root=str(tmp_path / "checkpoints")),
        lake=LakeConfig(root=str(tmp_path / "lake")),
        models=LakeConfig(root=str(tmp_path / "models")),
        rpc=RpcConfig(port=0),
    )
    city = 4242
    home = partition_of(str(city).encode(), 16)
    await kafka.ensure_topics(kafka_config, [MARKET])
    producer = kafka.producer(kafka_config)
    await producer.start()
    sent = 0

    async def send(values: list[bytes]) -> None:
        nonlocal sent
        await kafka.send_all(producer, TopicPartition(MARKET.name, home), [(str(city).encode(), value) for value in values])
        sent += len(values)

    async def counted() -> bool:
        if not any(True for _ in await partials(kafka_config, home)):
            return False
        return sum(source.records for each in await partials(kafka_config, home) for source in each.sources) >= sent

    await kafka.ensure_topics(kafka_config, [PARTIALS])
    async with running(stream, config):
        repeated = request(city)
        for _ in range(3):
            async with running(combine, config):
                await send([request(city) for _ in range(40)] + [repeated, b"garbage", request(city, ahead_seconds=900)])
                await eventually(counted, "all records in partials")
        redis = kv.connect(config.kv)
        store = surge_store(redis)

        async def priced() -> bool:
            values = (await store.city(city)).cells()
            return any(value.demand_milli == 121_000 and value.multiplier_milli > 1000 for value in values)

        await eventually(priced, "the demand of all requests in Redis")
        await redis.aclose()
    await producer.stop()
    totals: Counter[str] = Counter()
    offsets: list[tuple[int, int]] = []
    for each in await partials(kafka_config, home):
        totals["counted"] += sum(each.counts)
        for source in each.sources:
            if source.topic == MARKET.name:
                offsets.append((source.start_offset, source.end_offset))
                for name in ("records", "duplicates", "future", "undecodable"):
                    totals[name] += getattr(source, name)
    assert totals == {"counted": 121, "records": sent, "duplicates": 2, "future": 3, "undecodable": 3}
    assert all(before[1] == after[0] for before, after in pairwise(offsets))
