"""What the demo does to the platform on purpose: records that no reader can take."""

import os
import time

from aiokafka import AIOKafkaProducer

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.partitioning import partition_of
from chassis.wire import BUILTIN_IDS, frame

TOPIC, PARTITIONS = "trip_events_v2", 16


async def send_malformed(bootstrap: str) -> int:
    """Sends records that must become dead letters, straight to Kafka; returns how many."""
    schema_id = BUILTIN_IDS["arterial.api.events.v1.TripEvent"]
    home = partition_of(b"1", PARTITIONS)
    event = TripEvent(event_id=os.urandom(16), city_id=1)
    event.event_time.FromMicroseconds(int(time.time() * 1e6))
    good = frame(schema_id, event.SerializeToString())
    nameless = frame(schema_id, TripEvent(city_id=1).SerializeToString())
    records: list[tuple[int, bytes | None]] = [
        *((home, os.urandom(40)) for _ in range(3)),  # no frame
        *((home, frame(schema_id, b"\xff" * 20)) for _ in range(3)),  # no message
        *((home, frame(1_000_000, good[6:])) for _ in range(2)),  # a schema that nobody registered
        *((home, nameless) for _ in range(2)),  # no identity
        ((home + 1) % PARTITIONS, good),  # misrouted
        (home, None),  # a tombstone
    ]
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for partition, value in records:
            await producer.send_and_wait(TOPIC, value, key=b"1", partition=partition)
    finally:
        await producer.stop()
    return len(records)
