"""Surge per cell: what is kept online, and what is told of it."""

from dataclasses import dataclass

from redis.asyncio import Redis

from arterial.api.pricing.v1.late_bucket_pb2 import LateBucket
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from arterial.api.pricing.v1.surge_output_pb2 import SurgeOutput
from chassis.streaming.cells import CellOutput
from chassis.streaming.online import CellStore
from services.pricing.features import FEATURE_SET_VERSION


@dataclass(frozen=True)
class Value:
    """A cell's surge, thousandths; `tick_seconds` is the tick that it was last told at."""

    cell: int
    multiplier_milli: int
    raw_multiplier_milli: int
    demand_milli: int
    supply_milli: int
    tick_seconds: int


OUTPUT = CellOutput("pricing", FEATURE_SET_VERSION, "surge", "surge", PricingPartial, SurgeOutput, LateBucket, Value)
SurgeStore = CellStore[Value]


def surge_store(redis: Redis) -> SurgeStore:
    """Surge in Redis."""
    return CellStore(redis, OUTPUT.kind, Value)
