"""The ClickHouse engine (chDB) behind its gateway, as a process of its own."""

import sys
from pathlib import Path

import aiohttp

from deploy.local.child import LOOPBACK, Child


async def start(folder: Path, port: int) -> Child:
    """Starts the gateway on a loopback port, with the engine's data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "deploy.local.clickhouse_gateway", "--path", folder / "data", "--port", str(port)]
    child = Child.start("clickhouse", command, folder / "clickhouse.log")
    await child.healthy(lambda: _answers(port))
    return child


async def _answers(port: int) -> bool:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://{LOOPBACK}:{port}/ping", timeout=aiohttp.ClientTimeout(2)) as reply:
                return reply.status == 200
        except aiohttp.ClientError:
            return False
