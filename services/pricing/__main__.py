"""Starts one role of pricing."""

import grpc

from arterial.api.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from chassis import kv, process
from chassis.desired import follow_desired
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.pricing.config import PricingConfig
from services.pricing.handler import PricingHandler
from services.pricing.store import surge_store
from services.pricing.stream import combine, stream, surge_policy


async def serve(config: PricingConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    redis = kv.connect(config.kv)
    async with follow_desired(config, context) as feed:

        def register(server: grpc.aio.Server) -> list[str]:
            handler = PricingHandler(surge_store(redis), lambda: surge_policy(feed.current), context.clock)
            pricing_service_pb2_grpc.add_PricingServiceServicer_to_server(handler, server)
            return [pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"].full_name]

        try:
            await serve_rpc(config.rpc, register, context)
        finally:
            await redis.aclose()


def main() -> None:
    """Console script."""
    process.main("arterial-pricing", PricingConfig, {"serve": serve, "combine": combine, "stream": stream})


if __name__ == "__main__":
    main()
