"""Roles `combine` and `stream`: events to partials, partials to multipliers."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason
from chassis.process import Context
from chassis.streaming.roles import combine_cells, stream_cells
from services.pricing.config import PricingConfig
from services.pricing.features import SOURCES
from services.pricing.state import SurgeState
from services.pricing.store import OUTPUT

POLICY = "surge"


def surge_policy(desired: Desired) -> specs_pb2.PricingPolicySpec:
    """The declared policy. Raises NOT_FOUND."""
    policy = desired.pricing_policies.get(POLICY)
    if policy is None:
        raise ArterialError(Reason.NOT_FOUND, f"PricingPolicy {POLICY} is not declared")
    return policy


async def combine(config: PricingConfig, context: Context) -> None:
    """Role `combine`."""
    await combine_cells(config, context, OUTPUT, SOURCES, policy=surge_policy, pipeline=specs_pb2.PIPELINE_ROLE_SURGE)


async def stream(config: PricingConfig, context: Context) -> None:
    """Role `stream`."""
    await stream_cells(config, context, OUTPUT, SurgeState)
