"""Starts the control plane."""

import asyncio
from pathlib import Path

import grpc

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc, schema_registry_service_pb2, schema_registry_service_pb2_grpc
from chassis import process, resources, sql
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.controlplane.config import ControlPlaneConfig
from services.controlplane.handler import ControlPlaneHandler, SchemaRegistryHandler, apply
from services.controlplane.schemas import SchemaRegistry
from services.controlplane.store import ResourceStore
from services.controlplane.watching import Watching

MIGRATIONS = Path(__file__).parent / "migrations"


async def serve(config: ControlPlaneConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    engine = sql.engine(config.sql)
    await sql.migrate(engine, MIGRATIONS)
    store = ResourceStore(engine)
    if config.resources_dir is not None and await store.version() == 0:
        await apply(store, pb.ApplyRequest(resources=resources.read([config.resources_dir]), message="seed"))
    watching = Watching(store, context)

    def register(server: grpc.aio.Server) -> list[str]:
        control_plane_service_pb2_grpc.add_ControlPlaneServiceServicer_to_server(ControlPlaneHandler(store, watching), server)
        registry = SchemaRegistryHandler(SchemaRegistry(engine, store))
        schema_registry_service_pb2_grpc.add_SchemaRegistryServiceServicer_to_server(registry, server)
        return [
            pb.DESCRIPTOR.services_by_name["ControlPlaneService"].full_name,
            schema_registry_service_pb2.DESCRIPTOR.services_by_name["SchemaRegistryService"].full_name,
        ]

    polling = asyncio.create_task(watching.poll())
    try:
        await serve_rpc(config.rpc, register, context)
    finally:
        await polling
        await engine.dispose()


def main() -> None:
    """Console script."""
    process.main("arterial-controlplane", ControlPlaneConfig, {"serve": serve})


if __name__ == "__main__":
    main()
