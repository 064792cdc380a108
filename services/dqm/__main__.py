"""Starts one role of the quality monitor."""

import grpc

from arterial.api.dqm.v1alpha1 import dqm_service_pb2, dqm_service_pb2_grpc
from chassis import process, sql
from chassis.process import Context
from chassis.rpc.server import serve as serve_rpc
from services.dqm.config import DqmConfig
from services.dqm.handler import DqmHandler
from services.dqm.store import MIGRATIONS, QualityStore


async def serve(config: DqmConfig, context: Context) -> None:
    """Role `serve`: the RPCs."""
    engine = sql.engine(config.sql)
    await sql.migrate(engine, MIGRATIONS)

    def register(server: grpc.aio.Server) -> list[str]:
        dqm_service_pb2_grpc.add_DqmServiceServicer_to_server(DqmHandler(QualityStore(engine)), server)
        return [dqm_service_pb2.DESCRIPTOR.services_by_name["DqmService"].full_name]

    try:
        await serve_rpc(config.rpc, register, context)
    finally:
        await engine.dispose()


async def monitor(config: DqmConfig, context: Context) -> None:
    """Role `monitor`: judges, and reports verdicts."""
    from services.dqm.monitor import monitor as run

    await run(config, context)


def main() -> None:
    """Console script."""
    process.main("arterial-dqm", DqmConfig, {"serve": serve, "monitor": monitor})


if __name__ == "__main__":
    main()
