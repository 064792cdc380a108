"""The online store of surge: one Redis hash per city."""

import struct
from dataclasses import dataclass

from redis.asyncio import Redis

from chassis.streaming.online import CellStore

# multiplier, demand, supply (thousandths), tick (seconds), computed at (microseconds), partition, offset
_VALUE = struct.Struct(">iqqqqiq")


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

    def encode(self) -> bytes:
        """All but the cell, which is the field's name."""
        return _VALUE.pack(*list(vars(self).values())[1:])


SurgeStore = CellStore[Value]


def surge_store(redis: Redis) -> SurgeStore:
    """Surge in Redis."""
    return CellStore(redis, "surge", lambda cell, encoded: Value(cell, *_VALUE.unpack(encoded)))
