"""Role `serve`: the RPCs."""

import grpc

from arterial.api.ingestion.v1 import ingestion_service_pb2, ingestion_service_pb2_grpc
from chassis import kafka
from chassis.desired import follow_desired
from chassis.lineage import emitting
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.ingestion.config import IngestionConfig
from services.ingestion.handler import IngestionHandler
from services.ingestion.producers import Producers
from services.ingestion.publish import Publisher


async def serve(config: IngestionConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    producer = kafka.producer(config.kafka)
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        # The role that reads them says which cannot be.
        await kafka.try_topics(config.kafka, feed.current.topics.values())
        await producer.start()

        def register(server: grpc.aio.Server) -> list[str]:
            handler = IngestionHandler(config, feed, Publisher(producer, feed), Producers(lineage), context.clock)
            ingestion_service_pb2_grpc.add_IngestionServiceServicer_to_server(handler, server)
            return [ingestion_service_pb2.DESCRIPTOR.services_by_name["IngestionService"].full_name]

        try:
            await serve_rpc(config.rpc, register, context)
        finally:
            await producer.stop()
