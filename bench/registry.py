"""A control plane with its schema registry, in a process of its own, for benchmarks."""

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.local import postgres
from deploy.local.child import LOOPBACK, Child, free_port
from deploy.local.supervisor import serving


@dataclass(frozen=True)
class Served:
    """Where it listens, and its process."""

    rpc: str
    rest: str
    pid: int


@asynccontextmanager
async def registry() -> AsyncIterator[Served]:
    """Runs one over an empty database."""
    with tempfile.TemporaryDirectory(prefix="arterial-bench-") as name:
        folder, ports = Path(name), [free_port() for _ in range(3)]
        database = await postgres.start(folder / "postgres", ports[0])
        try:
            url = await postgres.create_database(ports[0], "controlplane")
            config = folder / "controlplane.yaml"
            settings = {"state_dir": str(folder / "state"), "sql": {"url": url}, "rpc": {"port": ports[1]}, "registry": {"port": ports[2]}}
            config.write_text(yaml.safe_dump(settings))
            command = [sys.executable, "-m", "services.controlplane", "serve", "--config", str(config)]
            server = Child.start("controlplane-serve", command, folder / "serve.log")
            try:
                await server.healthy(lambda: serving(f"{LOOPBACK}:{ports[1]}"))
                yield Served(f"{LOOPBACK}:{ports[1]}", f"http://{LOOPBACK}:{ports[2]}", server.pid)
            finally:
                await server.stop()
        finally:
            await database.stop()
