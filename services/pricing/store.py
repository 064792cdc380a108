"""The online store of surge: one Redis hash per city, written only by newer positions of the log."""

import asyncio
import struct
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chassis.errors import ArterialError, Reason

# multiplier, demand, supply (thousandths), tick (seconds), computed at (microseconds), partition, offset
_VALUE = struct.Struct(">iqqqqiq")
# watermark, computed at, oldest Kafka time taken in (microseconds), incarnation, partition, offset
_HEAD = struct.Struct(">qqqiiq")
HEAD = b"_head"
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


@dataclass(frozen=True)
class Value:
    """A cell's surge, thousandths; `tick_seconds` is the tick that it was last told at."""

    cell: int
    multiplier_milli: int
    demand_milli: int
    supply_milli: int
    tick_seconds: int
    computed_us: int
    partition: int
    offset: int


def key(city_id: int) -> str:
    """The hash of a city."""
    return f"surge:{{{city_id}}}"


class SurgeStore:
    """Reads and writes surge in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._write = redis.register_script(WRITE)

    async def write(self, city_id: int, head: Head, values: Sequence[Value], gone: Sequence[int]) -> bool:
        """Writes a city's changes unless newer ones are there; whether they were written."""
        arguments: list[bytes | int] = [head.version(), _HEAD.pack(*_fields(head)), len(values)]
        for value in values:
            arguments += [str(value.cell).encode(), _VALUE.pack(*_fields(value)[1:])]
        arguments += [str(cell).encode() for cell in gone]
        return bool(await self._write(keys=[key(city_id)], args=arguments))

    async def city(self, city_id: int) -> "City":
        """What is known of a city. Raises DEPENDENCY_UNAVAILABLE."""
        try:
            return City(await self._redis.hgetall(key(city_id)))
        except RedisError as error:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"the online store does not answer: {error}") from error


class City:
    """A city's values as they were read at one moment; each is decoded when it is asked for."""

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._fields = fields
        self.head = _head(fields.get(HEAD))

    def cell(self, cell: int) -> Value | None:
        """One cell."""
        found = self._fields.get(b"%d" % cell)
        return None if found is None else Value(cell, *_VALUE.unpack(found))

    def cells(self) -> list[Value]:
        """All cells."""
        return [Value(int(name), *_VALUE.unpack(value)) for name, value in self._fields.items() if name not in (HEAD, b"_version")]


class RecentCities:
    """Reads a city at most every MAX_AGE_SECONDS, for all who ask meanwhile: values change four times a second, requests are thousands."""

    def __init__(self, store: SurgeStore) -> None:
        self._store = store
        self._read: OrderedDict[int, tuple[float, asyncio.Task[City]]] = OrderedDict()

    async def get(self, city_id: int) -> City:
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


def _head(encoded: bytes | None) -> Head | None:
    return None if encoded is None else Head(*_HEAD.unpack(encoded))


def _fields(value: Head | Value) -> list[int]:
    return [getattr(value, name) for name in value.__dataclass_fields__]
