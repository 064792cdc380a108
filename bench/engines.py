"""The engines that a benchmark needs, for as long as it runs."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chassis.config import KafkaConfig, KvConfig, LakeConfig
from deploy.local import kafka, redis
from deploy.local.child import LOOPBACK, free_port


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
