"""Live speed per cell: what is kept online, and what is told of it."""

from dataclasses import dataclass

from redis.asyncio import Redis

from arterial.api.eta.v1alpha1.eta_late_bucket_pb2 import EtaLateBucket
from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from arterial.api.eta.v1alpha1.speed_output_pb2 import SpeedOutput
from chassis.streaming.cells import CellOutput
from chassis.streaming.online import CellStore
from services.eta.speeds import FEATURE_SET_VERSION


@dataclass(frozen=True)
class Value:
    """How a cell moves; `tick_seconds` is the tick that it was last told at."""

    cell: int
    ratio_milli: int
    speed_mmps: int
    observations: int
    tick_seconds: int


OUTPUT = CellOutput("eta", FEATURE_SET_VERSION, "speed", "live-speed", EtaPartial, SpeedOutput, EtaLateBucket, Value)
SpeedStore = CellStore[Value]


def speed_store(redis: Redis) -> SpeedStore:
    """Live speeds in Redis."""
    return CellStore(redis, OUTPUT.kind, Value)
