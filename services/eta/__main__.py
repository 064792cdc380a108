"""Starts one role of eta."""

from collections.abc import Callable

import grpc

from arterial.api.eta.v1alpha1 import eta_service_pb2, eta_service_pb2_grpc
from chassis import kv, process
from chassis.desired import follow_desired
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.eta.config import EtaConfig
from services.eta.handler import EtaHandler, TravelTimes
from services.eta.legs import Floats
from services.eta.store import speed_store
from services.eta.stream import combine, eta_policy, stream


class NoModel:
    """Before any model: the declared rule answers."""

    def live(self) -> tuple[str, TravelTimes] | None:
        """None."""
        return None

    def compare(self, medians: Floats, ask: Callable[[TravelTimes], Floats]) -> None:
        """Nobody to compare with."""


async def serve(config: EtaConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    redis = kv.connect(config.kv)
    async with follow_desired(config, context) as feed:

        def register(server: grpc.aio.Server) -> list[str]:
            handler = EtaHandler(speed_store(redis), NoModel(), lambda: eta_policy(feed.current), context.clock)
            eta_service_pb2_grpc.add_EtaServiceServicer_to_server(handler, server)
            return [eta_service_pb2.DESCRIPTOR.services_by_name["EtaService"].full_name]

        try:
            await serve_rpc(config.rpc, register, context)
        finally:
            await redis.aclose()


def main() -> None:
    """Console script."""
    process.main("arterial-eta", EtaConfig, {"serve": serve, "combine": combine, "stream": stream})


if __name__ == "__main__":
    main()
