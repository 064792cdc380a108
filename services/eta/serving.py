"""Role `serve`: the RPCs."""

from collections.abc import Callable

import grpc

from arterial.api.eta.v1alpha1 import eta_service_pb2, eta_service_pb2_grpc
from chassis import kv
from chassis.desired import follow_desired
from chassis.learning.artefact import Artefact
from chassis.learning.serving import serving
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.eta.answers import POSSIBLE_SECONDS
from services.eta.config import EtaConfig
from services.eta.handler import EtaHandler, TravelTimes
from services.eta.model import from_artefact
from services.eta.policy import eta_policy
from services.eta.store import speed_store


async def serve(config: EtaConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    build: Callable[[Artefact], TravelTimes] = from_artefact
    redis = kv.connect(config.kv)
    async with (
        follow_desired(config, context) as feed,
        serving("eta", config.models, build, config=config, feed=feed, possible=POSSIBLE_SECONDS) as model,
    ):

        def register(server: grpc.aio.Server) -> list[str]:
            handler = EtaHandler(speed_store(redis), model, lambda: eta_policy(feed.current), context.clock)
            eta_service_pb2_grpc.add_EtaServiceServicer_to_server(handler, server)
            return [eta_service_pb2.DESCRIPTOR.services_by_name["EtaService"].full_name]

        try:
            await serve_rpc(config.rpc, register, context)
        finally:
            await redis.aclose()
