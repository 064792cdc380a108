"""Channels between services: the client's channel, with the deadline and the trace of the call being served."""

import grpc

from arterial.channel import Channel, Metadata, connect
from chassis.config import TlsConfig
from chassis.rpc import deadlines
from chassis.telemetry import TRACEPARENT, traceparent


def channel(address: str, *, tls: TlsConfig | None = None, attempts: int = 4) -> Channel:
    """A channel to host:port that hands deadlines and traces on."""
    credentials = None
    if tls is not None:
        pems = [path.read_bytes() if path else None for path in (tls.ca_file, tls.key_file, tls.cert_file)]
        credentials = grpc.ssl_channel_credentials(*pems)
    return connect(address, credentials=credentials, attempts=attempts, outgoing=_outgoing)


def _outgoing(timeout: float | None, metadata: Metadata) -> tuple[float | None, Metadata]:
    trace = traceparent()
    return deadlines.shaved(timeout, None), metadata + (((TRACEPARENT, trace),) if trace else ())
