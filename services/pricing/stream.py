"""Roles `combine` and `stream`: events to partials, partials to multipliers."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis.process import Context
from chassis.streaming.roles import combine_cells, stream_cells
from services.pricing.config import PricingConfig
from services.pricing.features import SOURCES
from services.pricing.policy import POLICY, surge_policy
from services.pricing.state import SurgeState
from services.pricing.store import OUTPUT


async def combine(config: PricingConfig, context: Context) -> None:
    """Role `combine`."""
    await combine_cells(
        config, context, OUTPUT, SOURCES, policy=surge_policy, declared=("PricingPolicy", POLICY), pipeline=specs_pb2.PIPELINE_ROLE_SURGE
    )


async def stream(config: PricingConfig, context: Context) -> None:
    """Role `stream`."""
    await stream_cells(config, context, OUTPUT, SurgeState)
