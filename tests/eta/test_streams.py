"""Combiner, agents and RPCs on real Kafka and Redis: killed and restarted, every ping is counted once."""

import time
import uuid
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import TopicPartition
from google.protobuf.message import Message
from h3.api import basic_int

from arterial.api.eta.v1alpha1.eta_late_bucket_pb2 import EtaLateBucket
from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from arterial.api.eta.v1alpha1.speed_output_pb2 import SpeedOutput
from arterial.api.events.v1.gps_ping_pb2 import GpsPing
from chassis import kafka, kv
from chassis.config import KafkaConfig, KvConfig, LakeConfig, RpcConfig
from chassis.partitioning import partition_of
from chassis.testing import eventually, running
from chassis.topics import Topic
from chassis.wire import frame, split
from services.eta.config import EtaConfig
from services.eta.store import speed_store
from services.eta.stream import combine, stream

SEED = Path(__file__).parents[2] / "deploy" / "resources"
CELL = basic_int.latlng_to_cell(40.7559, -73.9870, 9)
PARENT = basic_int.cell_to_parent(CELL, 8)
PINGS = Topic("gps_pings_v1", "arterial.api.events.v1.GpsPing", "city_id")
CITY = 7171
HOME = partition_of(str(CITY).encode(), 16)
BAD = b"not a partial"
M = TypeVar("M", bound=Message)


def ping(ahead_seconds: float = 0.0, speed_mps: float = 4.0) -> bytes:
    """A framed ping of a driver on a trip."""
    event = GpsPing(event_id=uuid.uuid4().bytes, city_id=CITY, driver_id="d", cell=CELL, speed_mps=speed_mps)
    event.driver_state = GpsPing.DRIVER_STATE_ON_TRIP
    event.event_time.FromMicroseconds(int((time.time() + ahead_seconds) * 1e6))
    return frame(2, event.SerializeToString())


async def read(config: KafkaConfig, topic: str, parse: Callable[[bytes], M]) -> list[M]:
    """All committed records of the city's partition."""
    client = kafka.consumer(config)
    await client.start()
    tp = TopicPartition(topic, HOME)
    client.assign([tp])
    end, found = (await client.end_offsets([tp]))[tp], []
    client.seek(tp, 0)
    while await client.position(tp) < end:
        for records in (await client.getmany(timeout_ms=200)).values():
            found += [parse(record.value) for record in records]
    await client.stop()
    return found


def unframed(message: type[M]) -> Callable[[bytes], M]:
    """Parses a value."""
    return lambda value: message.FromString(split(value)[2])


def partial(value: bytes) -> EtaPartial:
    """A partial; the bad one counts for nothing."""
    return EtaPartial() if value == BAD else EtaPartial.FromString(split(value)[2])


async def test_each_ping_is_in_exactly_one_partial_across_restarts(kafka_config: KafkaConfig, redis_url: str, tmp_path: Path) -> None:
    """Pings + late + future + repeats + undecodable = what was sent, the combiner restarted meanwhile; a bad partial is dead-lettered."""
    config = EtaConfig(
        state_dir=tmp_path / "state",
        resources_dir=SEED,
        kafka=kafka_config,
        kv=KvConfig(url=redis_url),
        lake=LakeConfig(root=str(tmp_path / "lake")),
        checkpoints=LakeConfig(root=str(tmp_path / "checkpoints")),
        models=LakeConfig(root=str(tmp_path / "models")),
        rpc=RpcConfig(port=0),
    )
    await kafka.ensure_topics(kafka_config, [PINGS, Topic("eta_partials_v1", "arterial.api.eta.v1alpha1.EtaPartial", "partition")])
    producer = kafka.producer(kafka_config)
    await producer.start()
    sent = 0

    async def send(values: list[bytes]) -> None:
        nonlocal sent
        await kafka.send_all(producer, TopicPartition(PINGS.name, HOME), [(str(CITY).encode(), value) for value in values])
        sent += len(values)

    async def counted() -> bool:
        found = await read(kafka_config, "eta_partials_v1", partial)
        return sum(source.records for each in found for source in each.sources) >= sent

    redis = kv.connect(config.kv)
    store = speed_store(redis)

    async def observed() -> bool:
        return any(value.observations == 61 and value.speed_mmps == 4000 for value in (await store.city(CITY)).cells())

    async with running(stream, config):
        repeated = ping(-6)
        for turn in range(3):
            async with running(combine, config):
                if turn == 1:
                    await kafka.send_all(producer, TopicPartition("eta_partials_v1", HOME), [(None, BAD)])
                await send([ping(-6) for _ in range(20)] + [repeated, b"garbage", ping(900), ping(-3600)])
                await eventually(counted, "all records in partials")
                if turn == 2:
                    await eventually(observed, "speeds in Redis")
    await redis.aclose()
    await producer.stop()
    await _accounted(kafka_config, sent)


async def _accounted(config: KafkaConfig, sent: int) -> None:
    """Every record is in one class, offsets have no holes, outputs tell what Redis had."""
    totals: Counter[str] = Counter()
    offsets: list[tuple[int, int]] = []

    for each in await read(config, "eta_partials_v1", partial):
        totals["pings"] += sum(count for count, measure in zip(each.counts, each.measures, strict=True) if measure == 1)
        for source in each.sources:
            if source.topic == PINGS.name:
                offsets.append((source.start_offset, source.end_offset))
                for name in ("records", "duplicates", "future", "undecodable", "ignored"):
                    totals[name] += getattr(source, name)
    assert totals == {"pings": 64, "records": sent, "duplicates": 2, "future": 3, "undecodable": 3, "ignored": 0}
    assert all(before[1] == after[0] for before, after in pairwise(offsets))
    late: list[Any] = await read(config, "eta_late_v1", unframed(EtaLateBucket))
    assert sum(bucket.count for bucket in {bucket.event_id: bucket for bucket in late}.values() if bucket.measure == 1) == 3
    outputs = await read(config, "eta_outputs_v1", unframed(SpeedOutput))
    assert (outputs[-1].cell, outputs[-1].observations, outputs[-1].speed_mmps, outputs[-1].ratio_milli) == (PARENT, 61, 4000, 2000)
    assert await read(config, "eta_partials_dead_v1", lambda value: EtaPartial(producer=value.decode())) == [
        EtaPartial(producer="not a partial")
    ]
