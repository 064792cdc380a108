"""The online store of surge: one Redis hash per city, written only by newer positions of the log."""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chassis.errors import ArterialError, Reason

# multiplier, demand, supply (thousandths), tick (seconds), computed at (microseconds), partition, offset
_VALUE = struct.Struct(">iqqqqiq")
# watermark, computed at, oldest Kafka time taken in (microseconds), incarnation, partition, offset
_HEAD = struct.Struct(">qqqiiq")
HEAD = b"_head"
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


@dataclass(frozen=True)
class _Read:
    """A read of one cell that waits for its turn."""

    name: str
    cell: bytes
    found: "asyncio.Future[list[bytes | None]]"


def _settle(waiting: "asyncio.Future[list[bytes | None]]", found: list[bytes | None]) -> None:
    if not waiting.done():  # its caller may have given up
        waiting.set_result(found)


def key(city_id: int) -> str:
    """The hash of a city."""
    return f"surge:{{{city_id}}}"


class SurgeStore:
    """Reads and writes surge in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._write = redis.register_script(WRITE)
        self._reads: list[_Read] = []
        self._reading: asyncio.Task[None] | None = None

    async def write(self, city_id: int, head: Head, values: Sequence[Value], gone: Sequence[int]) -> bool:
        """Writes a city's changes unless newer ones are there; whether they were written."""
        arguments: list[bytes | int] = [head.version(), _HEAD.pack(*_fields(head)), len(values)]
        for value in values:
            arguments += [str(value.cell).encode(), _VALUE.pack(*_fields(value)[1:])]
        arguments += [str(cell).encode() for cell in gone]
        return bool(await self._write(keys=[key(city_id)], args=arguments))

    async def cell(self, city_id: int, cell: int) -> tuple[Head | None, Value | None]:
        """What is known of a cell. Raises DEPENDENCY_UNAVAILABLE."""
        read = _Read(key(city_id), str(cell).encode(), asyncio.get_running_loop().create_future())
        self._reads.append(read)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        try:
            head, value = await read.found
        except RedisError as error:
            raise _unavailable(error) from error
        return _head(head), None if value is None else Value(cell, *_VALUE.unpack(value))

    async def _read_all(self) -> None:
        """Reads that came while others were under way travel together: a busy server makes fewer, larger round trips."""
        while self._reads:
            reads, self._reads = self._reads, []
            try:
                pipeline = self._redis.pipeline(transaction=False)
                for read in reads:
                    pipeline.hmget(read.name, [HEAD, read.cell])
                for read, found in zip(reads, await pipeline.execute(), strict=True):
                    _settle(read.found, found)
            except RedisError as error:
                for read in reads:
                    if not read.found.done():
                        read.found.set_exception(error)
        self._reading = None

    async def city(self, city_id: int) -> tuple[Head | None, list[Value]]:
        """What is known of a city. Raises DEPENDENCY_UNAVAILABLE."""
        try:
            found = await self._redis.hgetall(key(city_id))
        except RedisError as error:
            raise _unavailable(error) from error
        values = [Value(int(name), *_VALUE.unpack(value)) for name, value in found.items() if name not in (HEAD, b"_version")]
        return _head(found.get(HEAD)), values


def _head(encoded: bytes | None) -> Head | None:
    return None if encoded is None else Head(*_HEAD.unpack(encoded))


def _fields(value: Head | Value) -> list[int]:
    return [getattr(value, name) for name in value.__dataclass_fields__]


def _unavailable(error: RedisError) -> ArterialError:
    return ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"the online store does not answer: {error}")
