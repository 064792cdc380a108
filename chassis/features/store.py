"""Values of declared features in Redis: one hash per key, its fields decimal texts, written only by newer positions of the log."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan

from redis.asyncio import Redis

from chassis.features.windows import Feature, Values

# What a hash says besides the values: event time that they are up to date with (microseconds), and the position that they follow from.
AS_OF, VERSION = "_as_of", "_version"
# A key without events for longer than its windows is forgotten after this.
SPARE_SECONDS = 86_400
WRITE = """
local version = redis.call('HGET', KEYS[1], '_version')
if version and version > ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '_version', ARGV[1], '_as_of', ARGV[2])
if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


@dataclass(frozen=True)
class Position:
    """What values were computed from: all records of a partition below `offset`."""

    incarnation: int
    partition: int
    offset: int

    def version(self) -> str:
        """Sorts as (incarnation, offset) do."""
        return f"{self.incarnation:010d}/{self.offset:020d}"


class FeatureStore:
    """Writes and reads the values of features."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._write = redis.register_script(WRITE)

    async def write(self, feature: Feature, changed: Values, as_of_us: int, position: Position) -> None:
        """Writes values of keys, unless newer ones are there."""
        if not changed.keys:
            return
        expires = max(feature.spec.windows_seconds) + SPARE_SECONDS
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key, row in zip(changed.keys, changed.values.tolist(), strict=True):
                fields = [
                    text for pair in zip(feature.fields, row, strict=True) if not isnan(pair[1]) for text in (pair[0], _decimal(pair[1]))
                ]
                if fields:
                    arguments = [position.version(), as_of_us, expires, *fields]
                    await self._write(keys=[key_of(feature.name, key)], args=arguments, client=pipeline)
            await pipeline.execute()

    async def read(self, feature: str, key: str) -> Mapping[str, str]:
        """The hash of a key, empty if there is none."""
        found = await self._redis.hgetall(key_of(feature, key))
        return {name.decode(): value.decode() for name, value in found.items()}


def key_of(feature: str, key: str) -> str:
    """Redis key; the tag keeps what is read together in one slot."""
    return f"feature:{feature}:{{{key}}}"


def _decimal(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
