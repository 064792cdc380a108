"""A lineage service on real PostgreSQL, served over a real socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc
from chassis.config import RpcConfig, SqlConfig
from chassis.lineage import emitter
from chassis.testing import PATIENCE_SECONDS, channel, running
from deploy.local.child import free_port
from services.lineage.__main__ import serve
from services.lineage.config import LineageConfig

# The generated stubs are typed for the synchronous runtime.
Stub = Any


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is emitted is waited for as long as a busy machine needs."""
    monkeypatch.setattr(emitter, "FLUSH_SECONDS", PATIENCE_SECONDS)


@asynccontextmanager
async def serving(url: str, state_dir: Path) -> AsyncIterator[tuple[str, Stub]]:
    """Address and stub of a replica."""
    config = LineageConfig(state_dir=state_dir, sql=SqlConfig(url=url), rpc=RpcConfig(port=free_port(), drain_seconds=1))
    address = f"127.0.0.1:{config.rpc.port}"
    async with running(serve, config), channel(address) as connection:
        await connection.channel_ready()
        yield address, lineage_service_pb2_grpc.LineageServiceStub(connection)


@pytest.fixture
async def service(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[str, Stub]]:
    """A running service: address and stub."""
    async with serving(database_url, tmp_path) as found:
        yield found
