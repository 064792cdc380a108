"""A control plane with its schema registry, in a process of its own, for benchmarks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.engines import sql_service
from deploy.local.child import LOOPBACK, free_port


@dataclass(frozen=True)
class Served:
    """Where it listens, and its process."""

    rpc: str
    rest: str
    pid: int


@asynccontextmanager
async def registry() -> AsyncIterator[Served]:
    """Runs one over an empty database."""
    port = free_port()
    async with sql_service("controlplane", registry={"port": port}) as service:
        yield Served(service.address, f"http://{LOOPBACK}:{port}", service.pid)
