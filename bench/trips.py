"""Trip events of 20 fields and real size (230 bytes) for benchmarks."""

import numpy as np
import pyarrow as pa

from chassis.partitioning import partitions_of
from chassis.topics import Topic
from chassis.wire import BUILTIN_IDS, prefix
from simulator.columns import event_ids, money, names, positions, schema_of, times

TOPIC = Topic("trip_events_v2", "arterial.api.events.v1.TripEvent", "city_id", partitions=4)
START_US = 1_767_225_600_000_000


def payloads(count: int, seed: int = 1) -> tuple[list[bytes], np.typing.NDArray[np.int32], list[bytes]]:
    """Serialised events, the partition and the key of each."""
    random = np.random.default_rng(seed)
    numbers = np.arange(count)
    city = random.integers(1, 40, count)
    micros = START_US + numbers * 1000
    place = np.column_stack([random.uniform(40.5, 40.9, count), random.uniform(-74.1, -73.7, count)])
    columns = {
        "event_id": event_ids(micros, random),
        "event_time": times(micros),
        "region": pa.repeat("us-east", count),
        "city_id": pa.array(city),
        "sequence": pa.array(numbers),
        "producer": pa.repeat("simulator", count),
        "producer_version": pa.repeat("1.0.0", count),
        "trip_id": names("trip", numbers),
        "rider_id": names("rider", numbers % 100_000),
        "driver_id": names("driver", numbers % 20_000),
        "status": pa.array((numbers % 5 + 1).astype(np.int32)),
        "product": pa.repeat("standard", count),
        "trip_requested_at": times(micros),
        "pickup_position": positions(place),
        "pickup_cell": pa.array(random.integers(0x892A00000000000, 0x892B00000000000, count)),
        "dropoff_position": positions(place),
        "dropoff_cell": pa.array(random.integers(0x892A00000000000, 0x892B00000000000, count)),
        "pickup_time": times(micros),
        "route_id": names("route", numbers % 5000),
        "promised_eta_seconds": pa.repeat(pa.scalar(300, pa.int32()), count),
        "distance_m": pa.array(random.integers(500, 20_000, count)),
        "duration_seconds": pa.array(random.integers(60, 4000, count)),
        "fare": money(random.integers(500, 9000, count)),
    }
    encoded = schema_of(TOPIC.name).encode(columns, count)
    return encoded, partitions_of(pa.array(city), TOPIC.partitions), [str(key).encode() for key in city.tolist()]


def framed(records: list[bytes]) -> list[bytes]:
    """As Kafka values."""
    head = prefix(BUILTIN_IDS[TOPIC.message])
    return [head + record for record in records]
