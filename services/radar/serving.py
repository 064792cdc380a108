"""Role `serve`: the RPCs."""

import grpc

from arterial.api.radar.v1alpha1 import radar_service_pb2 as pb
from arterial.api.radar.v1alpha1 import radar_service_pb2_grpc
from chassis.desired import follow_desired
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.radar.assessing import Assessor
from services.radar.combine import SOURCES
from services.radar.config import RadarConfig
from services.radar.handler import RadarHandler
from services.radar.parts import scoring, stores
from services.radar.policy import risk_policy
from services.radar.velocities import RecentHeads


async def serve(config: RadarConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    async with follow_desired(config, context) as feed, stores(config) as (velocities, store), scoring(config, feed) as scorer:
        assessor = Assessor(velocities, store, scorer, context.clock, config.cell.region)

        def register(server: grpc.aio.Server) -> list[str]:
            handler = RadarHandler(
                assessor,
                store,
                RecentHeads(velocities),
                lambda: risk_policy(feed.current),
                partitions=lambda: feed.current.topics[SOURCES[0]].partitions,
                clock=context.clock,
            )
            radar_service_pb2_grpc.add_RadarServiceServicer_to_server(handler, server)
            return [pb.DESCRIPTOR.services_by_name["RadarService"].full_name]

        await serve_rpc(config.rpc, register, context)
