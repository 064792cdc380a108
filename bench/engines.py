"""What a benchmark needs, for as long as it runs: engines, or a service over an empty database."""

import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chassis.config import KafkaConfig, KvConfig, LakeConfig
from deploy.local import kafka, postgres, redis
from deploy.local.child import LOOPBACK, Child, free_port
from deploy.local.supervisor import serving


@dataclass(frozen=True)
class Engines:
    """Where they are."""

    folder: Path
    kafka: KafkaConfig
    kv: KvConfig
    lake: LakeConfig


@asynccontextmanager
async def engines() -> AsyncIterator[Engines]:
    """Kafka and Redis over a temporary folder, stopped by their process ids at the end."""
    with tempfile.TemporaryDirectory(prefix="arterial-bench-") as name:
        folder = Path(name)
        ports = free_port(), free_port()
        children = [await kafka.start(folder / "kafka", ports[0]), await redis.start(folder / "redis", ports[1])]
        try:
            addresses = [f"{LOOPBACK}:{port}" for port in ports]
            yield Engines(
                folder, KafkaConfig(bootstrap=addresses[0]), KvConfig(url=f"redis://{addresses[1]}"), LakeConfig(root=str(folder / "lake"))
            )
        finally:
            for child in children:
                await child.stop()


@dataclass(frozen=True)
class Service:
    """Where a service listens, its database, and its process."""

    address: str
    url: str
    pid: int


@asynccontextmanager
async def sql_service(name: str, **settings: Any) -> AsyncIterator[Service]:
    """A service of the suite that stands on PostgreSQL alone, in a process of its own, over an empty database."""
    with tempfile.TemporaryDirectory(prefix="arterial-bench-") as folder_name:
        folder, ports = Path(folder_name), (free_port(), free_port())
        database = await postgres.start(folder / "postgres", ports[0])
        try:
            url = await postgres.create_database(ports[0], name)
            config = folder / "service.yaml"
            own = {"state_dir": str(folder / "state"), "sql": {"url": url}, "rpc": {"port": ports[1]}}
            config.write_text(yaml.safe_dump(own | settings))
            command = [sys.executable, "-m", f"services.{name}", "serve", "--config", str(config)]
            server = Child.start(f"{name}-serve", command, folder / "serve.log")
            try:
                await server.healthy(lambda: serving(f"{LOOPBACK}:{ports[1]}"))
                yield Service(f"{LOOPBACK}:{ports[1]}", url, server.pid)
            finally:
                await server.stop()
        finally:
            await database.stop(signal.SIGINT)
