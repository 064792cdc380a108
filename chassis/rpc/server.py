"""A gRPC server: health, reflection, limits, interceptors, graceful drain."""

import asyncio
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis.config import RpcConfig
from chassis.logs import logger
from chassis.process import Context
from chassis.rpc.interceptor import CallInterceptor, Identity, anyone

# Adds servicers to a server and returns their full names.
Register = Callable[[grpc.aio.Server], Sequence[str]]
# Clients ping quiet connections every 20 s (arterial.channel), which a server by default takes for abuse; it pings too, so that streams to
# clients that are gone end.
KEEPALIVE = (
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_log = logger(__name__)


async def serve(
    config: RpcConfig,
    register: Register,
    context: Context,
    *,
    identity: Identity = anyone,
    bound: "asyncio.Future[int] | None" = None,
) -> None:
    """Serves until `context.stopping` is set, then drains: health says NOT_SERVING, calls in flight may finish.

    `bound` is given the port, for servers that listen on port 0.
    """
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.so_reuseport", 0),
        *KEEPALIVE,
    ]
    server = grpc.aio.server(interceptors=[CallInterceptor(context.telemetry, identity)], options=options)
    names = list(register(server))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = _bind(server, config)
    await server.start()
    for name in ("", *names):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    _log.info("listening", host=config.host, port=port, services=names)
    if bound is not None:
        bound.set_result(port)
    try:
        await context.stopping.wait()
    finally:
        await servicer.enter_graceful_shutdown()
        await server.stop(config.drain_seconds)


def _bind(server: grpc.aio.Server, config: RpcConfig) -> int:
    address = f"{config.host}:{config.port}"
    if config.tls is None:
        return server.add_insecure_port(address)
    pems = [path.read_bytes() if path else b"" for path in (config.tls.key_file, config.tls.cert_file)]
    authorities = config.tls.ca_file.read_bytes() if config.tls.ca_file else None
    credentials = grpc.ssl_server_credentials([(pems[0], pems[1])], authorities, require_client_auth=authorities is not None)
    return server.add_secure_port(address, credentials)
