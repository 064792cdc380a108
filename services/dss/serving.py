"""Role `serve`: the RPCs."""

import grpc

from arterial.api.dss.v1alpha1 import dss_service_pb2, dss_service_pb2_grpc
from chassis.desired import follow_desired
from chassis.lineage import emitting
from chassis.olap import Olap
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.dss.config import DssConfig
from services.dss.handler import DssHandler
from services.dss.profiler import Profiler
from services.dss.store import SeriesStore


async def serve(config: DssConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    olap = Olap(config.olap)
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        profiler = Profiler(config.lake, SeriesStore(olap), context.clock, lineage)

        def register(server: grpc.aio.Server) -> list[str]:
            handler = DssHandler(config.lake, profiler, lambda: feed.current)
            dss_service_pb2_grpc.add_DssServiceServicer_to_server(handler, server)
            return [dss_service_pb2.DESCRIPTOR.services_by_name["DssService"].full_name]

        try:
            await serve_rpc(config.rpc, register, context)
        finally:
            await olap.close()
