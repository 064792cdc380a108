"""Role `serve`: the RPCs."""

import grpc

from arterial.api.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from chassis import kv
from chassis.desired import follow_desired
from chassis.learning.artefact import Artefact
from chassis.learning.serving import serving
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.pricing.config import PricingConfig
from services.pricing.handler import Demand, PricingHandler
from services.pricing.store import surge_store

# No city asks for a million rides an hour in one cell: what a shadow says beyond it is a failure.
POSSIBLE_REQUESTS = (0.0, 1_000_000.0)


def _demand(artefact: Artefact) -> Demand:
    """Imports what learned models need when there is one."""
    from services.pricing.demand import from_artefact

    return from_artefact(artefact)


async def serve(config: PricingConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    redis = kv.connect(config.kv)
    async with (
        follow_desired(config, context) as feed,
        serving("demand", config.models, _demand, config=config, feed=feed, possible=POSSIBLE_REQUESTS) as demand,
    ):

        def register(server: grpc.aio.Server) -> list[str]:
            handler = PricingHandler(surge_store(redis), demand, lambda: feed.current, context.clock)
            pricing_service_pb2_grpc.add_PricingServiceServicer_to_server(handler, server)
            return [pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"].full_name]

        try:
            await serve_rpc(config.rpc, register, context)
        finally:
            await redis.aclose()
