"""The online store of live speeds: one Redis hash per city."""

import struct
from dataclasses import dataclass

from redis.asyncio import Redis

from chassis.streaming.online import CellStore

# ratio (thousandths), speed (mm/s), observations, tick (seconds)
_VALUE = struct.Struct(">iqqq")


@dataclass(frozen=True)
class Value:
    """How a cell moves; `tick_seconds` is the tick that it was last told at."""

    cell: int
    ratio_milli: int
    speed_mmps: int
    observations: int
    tick_seconds: int

    def encode(self) -> bytes:
        """All but the cell, which is the field's name."""
        return _VALUE.pack(self.ratio_milli, self.speed_mmps, self.observations, self.tick_seconds)


SpeedStore = CellStore[Value]


def speed_store(redis: Redis) -> SpeedStore:
    """Live speeds in Redis."""
    return CellStore(redis, "speed", lambda cell, encoded: Value(cell, *_VALUE.unpack(encoded)))
