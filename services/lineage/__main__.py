"""Starts the lineage service."""

import asyncio
import gc
from pathlib import Path

import grpc

from arterial.api.lineage.v1alpha1 import lineage_service_pb2, lineage_service_pb2_grpc
from chassis import process, sql
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.lineage.config import LineageConfig
from services.lineage.handler import LineageHandler
from services.lineage.replica import Replica
from services.lineage.store import GraphStore

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve(config: LineageConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    engine = sql.engine(config.sql)
    await sql.migrate(engine, MIGRATIONS)
    replica = Replica(GraphStore(engine))
    await replica.refresh()
    # Most of what was read stays: a collection that looked at all of it again would take half a second.
    gc.freeze()

    def register(server: grpc.aio.Server) -> list[str]:
        lineage_service_pb2_grpc.add_LineageServiceServicer_to_server(LineageHandler(replica), server)
        return [lineage_service_pb2.DESCRIPTOR.services_by_name["LineageService"].full_name]

    polling = asyncio.create_task(replica.poll(context))
    try:
        await serve_rpc(config.rpc, register, context)
    finally:
        await polling
        await engine.dispose()


def main() -> None:
    """Console script."""
    process.main("arterial-lineage", LineageConfig, {"serve": serve})


if __name__ == "__main__":
    main()
