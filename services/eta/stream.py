"""Roles `combine` and `stream`: events to partials, partials to live speeds."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis.process import Context
from chassis.streaming.roles import combine_cells, stream_cells
from services.eta.config import EtaConfig
from services.eta.policy import POLICY, eta_policy
from services.eta.speeds import SOURCES
from services.eta.state import SpeedState
from services.eta.store import OUTPUT


async def combine(config: EtaConfig, context: Context) -> None:
    """Role `combine`."""
    await combine_cells(
        config, context, OUTPUT, SOURCES, policy=eta_policy, declared=("EtaPolicy", POLICY), pipeline=specs_pb2.PIPELINE_ROLE_SPEED
    )


async def stream(config: EtaConfig, context: Context) -> None:
    """Role `stream`."""
    await stream_cells(config, context, OUTPUT, SpeedState)
