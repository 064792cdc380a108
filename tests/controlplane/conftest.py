"""A control plane on real PostgreSQL, served over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chassis import testing
from chassis.config import RpcConfig, SqlConfig
from chassis.rpc.client import channel
from deploy.local import postgres
from deploy.local.child import free_port
from services.controlplane.__main__ import serve
from services.controlplane.config import ControlPlaneConfig, RegistryConfig
from tests.terminal import Terminal

SEED = Path(__file__).parents[2] / "deploy" / "resources"


@dataclass
class ControlPlane:
    """A server that a test may stop and start."""

    config: ControlPlaneConfig
    task: "asyncio.Task[None] | None" = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.config.rpc.port}"

    async def start(self) -> None:
        """Serves on the configured port."""
        self._context = testing.context()
        self.task = asyncio.create_task(serve(self.config, self._context))

    async def stop(self) -> None:
        """Stops as a signal would."""
        self._context.stopping.set()
        if self.task is not None:
            await self.task


@asynccontextmanager
async def running_plane(database_url: str, folder: Path, **settings: Any) -> AsyncIterator[ControlPlane]:
    """A running control plane with the seed resources, configured as given."""
    config = ControlPlaneConfig(
        state_dir=folder,
        resources_dir=SEED,
        sql=SqlConfig(url=database_url),
        rpc=RpcConfig(port=free_port(), drain_seconds=1),
        registry=RegistryConfig(port=free_port()),
        **settings,
    )
    running = ControlPlane(config)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def plane(database_url: str, tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """A running control plane with the seed resources, of one test alone."""
    async with running_plane(database_url, tmp_path / "control") as running:
        yield running


@pytest.fixture(scope="session")
async def shared_plane(postgres_port: int, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    """A running control plane for tests that only add what is their own; it is not to be stopped."""
    url = await postgres.create_database(postgres_port, "shared_control_plane")
    async with running_plane(url, tmp_path_factory.mktemp("control")) as running:
        yield running


@pytest.fixture
async def terminal(shared_plane: ControlPlane, tmp_path: Path, capsys: "pytest.CaptureFixture[str]") -> Terminal:
    """A terminal whose stack is the shared control plane, once that answers."""
    async with channel(shared_plane.address) as connection:
        await asyncio.wait_for(connection.channel_ready(), 60)
    return Terminal({"controlplane": shared_plane.address}, tmp_path, capsys)
