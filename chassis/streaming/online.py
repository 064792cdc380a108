"""The online store of values per cell: one Redis hash per city, written only by newer positions of the log."""

import asyncio
import struct
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis
from redis.exceptions import RedisError

from arterial.api.types.v1 import standing_pb2
from chassis.errors import ArterialError, Reason

# watermark, computed at, oldest Kafka time taken in (microseconds), incarnation, partition, offset
_HEAD = struct.Struct(">qqqiiq")
HEAD, VERSION = b"_head", b"_version"
# A tenth of a second is below what the stream itself takes, and spares the store a read per request.
MAX_AGE_SECONDS = 0.1
# Cities that a server remembers: bounds its memory.
MAX_CITIES = 1000
# Compare-and-set on the version (incarnation, offset): an older worker cannot overwrite newer values. The tag keeps a city's keys together.
WRITE = """
local version = redis.call('HGET', KEYS[1], '_version')
if version and version >= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], '_version', ARGV[1], '_head', ARGV[2])
local sets = tonumber(ARGV[3])
for index = 4, 3 + 2 * sets, 2 do redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1]) end
for index = 4 + 2 * sets, #ARGV do redis.call('HDEL', KEYS[1], ARGV[index]) end
return 1
"""
V = TypeVar("V")


@dataclass(frozen=True)
class Head:
    """What a city's values are up to date with; times in microseconds."""

    watermark_us: int
    computed_us: int
    kafka_us: int
    incarnation: int
    partition: int
    offset: int

    def version(self) -> bytes:
        """Sorts as (incarnation, offset) do."""
        return f"{self.incarnation:010d}/{self.offset:020d}".encode()


def standing(head: Head | None, *, known: bool, partials: str, max_age_seconds: float, now: float) -> standing_pb2.Standing:
    """How far a city's value can be trusted: live or last good where it is known, by the age of the city's watermark at `now` (seconds).

    Every cell is evaluated with every partial, so a city's watermark is that of all its values.
    """
    found = standing_pb2.Standing(source=standing_pb2.VALUE_SOURCE_NONE, max_age_seconds=max_age_seconds)
    if head is None:
        return found
    found.stale = now - head.watermark_us / 1e6 > max_age_seconds
    found.as_of.FromMicroseconds(head.watermark_us)
    found.computed_at.FromMicroseconds(head.computed_us)
    found.position.CopyFrom(
        standing_pb2.SourcePosition(source=partials, incarnation=head.incarnation, partition=head.partition, offset=head.offset + 1)
    )
    if known:
        found.source = standing_pb2.VALUE_SOURCE_LAST_GOOD if found.stale else standing_pb2.VALUE_SOURCE_LIVE
    return found


class CellStore(Generic[V]):
    """Reads and writes the values of one kind in Redis.

    `prefix` names the kind. `value` is a dataclass of integers whose first field is the cell; the others are kept, 8 bytes each.
    """

    def __init__(self, redis: Redis, prefix: str, value: type[V]) -> None:
        self._redis = redis
        self._prefix = prefix
        self._value = value
        self._write = redis.register_script(WRITE)

    async def write(self, city_id: int, head: Head, values: Mapping[int, bytes], gone: Sequence[int]) -> bool:
        """Writes a city's changes by cell unless newer ones are there; whether they were written."""
        arguments: list[bytes | int] = [head.version(), _HEAD.pack(*vars(head).values()), len(values)]
        for cell, value in values.items():
            arguments += [b"%d" % cell, value]
        arguments += [b"%d" % cell for cell in gone]
        return bool(await self._write(keys=[self._key(city_id)], args=arguments))

    async def write_cells(self, head: Head, cells: NDArray[np.int64], values: NDArray[np.int64], gone: NDArray[np.int64]) -> bool:
        """Writes the changes of all cities; whether any were written.

        `cells` and `gone` (what to forget) have rows (city, cell), `values` a row of `value`'s further fields for each of `cells`.
        """
        changed: dict[int, dict[int, bytes]] = defaultdict(dict)
        for (city, cell), value in zip(cells.tolist(), values.astype(">i8"), strict=True):
            changed[city][cell] = value.tobytes()
        forgotten: dict[int, list[int]] = defaultdict(list)
        for city, cell in gone.tolist():
            forgotten[city].append(cell)
        cities = changed.keys() | forgotten.keys()
        return any([await self.write(city, head, changed[city], forgotten[city]) for city in sorted(cities)])

    async def city(self, city_id: int) -> "City[V]":
        """What is known of a city. Raises DEPENDENCY_UNAVAILABLE."""
        try:
            return City(await self._redis.hgetall(self._key(city_id)), self._value)
        except RedisError as error:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"the online store does not answer: {error}") from error

    def _key(self, city_id: int) -> str:
        return f"{self._prefix}:{{{city_id}}}"


class City(Generic[V]):
    """A city's values as they were read at one moment; each is decoded when it is asked for."""

    def __init__(self, fields: Mapping[bytes, bytes], value: type[V]) -> None:
        self._fields = fields
        self._value = value
        encoded = fields.get(HEAD)
        self.head = None if encoded is None else Head(*_HEAD.unpack(encoded))

    def cell(self, cell: int) -> V | None:
        """One cell."""
        found = self._fields.get(b"%d" % cell)
        return None if found is None else self._decoded(cell, found)

    def cells(self) -> list[V]:
        """All cells."""
        return [self._decoded(int(name), value) for name, value in self._fields.items() if name not in (HEAD, VERSION)]

    def _decoded(self, cell: int, encoded: bytes) -> V:
        make: Callable[..., V] = self._value
        return make(cell, *struct.unpack(f">{len(encoded) // 8}q", encoded))


class RecentCities(Generic[V]):
    """Reads a city at most every MAX_AGE_SECONDS, for all who ask meanwhile: values change four times a second, requests are thousands."""

    def __init__(self, store: CellStore[V]) -> None:
        self._store = store
        self._read: OrderedDict[int, tuple[float, asyncio.Task[City[V]]]] = OrderedDict()

    async def get(self, city_id: int) -> City[V]:
        """A city as of at most MAX_AGE_SECONDS ago. Raises DEPENDENCY_UNAVAILABLE."""
        now = time.monotonic()
        began, reading = self._read.get(city_id, (0.0, None))
        if reading is None or now - began > MAX_AGE_SECONDS:
            reading = asyncio.create_task(self._store.city(city_id))
            self._read[city_id] = now, reading
            self._read.move_to_end(city_id)
            if len(self._read) > MAX_CITIES:
                self._read.popitem(last=False)
        # A caller that gives up must not take the others' read with it.
        return await asyncio.shield(reading)
