"""Seconds from `apply` of one file (examples/scooter_rides) until its records are in the lake, in OLAP and in Redis, on the running stack.

Records are published as soon as the topic takes them. Baseline: what an operator waits for elsewhere, a start of the whole stack.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from deltalake import DeltaTable

from bench.result import report
from chassis import kv, olap
from chassis.config import KvConfig, OlapConfig
from chassis.errors import ArterialError
from chassis.features.store import FeatureStore
from cli.__main__ import parser
from deploy.local.supervisor import Stack

EXAMPLE = Path(__file__).parents[1] / "examples" / "scooter_rides"
TOPIC, ROWS, LIMIT_SECONDS = "scooter_rides_v1", 5, 120.0


async def arterial(folder: Path, *words: str) -> None:
    """A command of a person at the terminal."""
    arguments = parser().parse_args(["--data-dir", str(folder), *words])
    with redirect_stdout(StringIO()):
        await arguments.run(arguments)


async def until(probe: Callable[[], Awaitable[bool]], began: float) -> float:
    """Seconds since `began` when the probe first holds."""
    while not await probe():
        assert time.monotonic() - began < LIMIT_SECONDS, "the pipeline did not come to life"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def published(folder: Path) -> bool:
    """Whether the records were taken."""
    try:
        await arterial(folder, "publish", TOPIC, str(EXAMPLE / "rides.jsonl"))
    except ArterialError:
        return False
    return True


async def lives(stack: Stack, began: float) -> dict[str, float]:
    """Seconds until the records are in each place."""
    redis = kv.connect(KvConfig(url=stack.places.addresses()["redis"]))
    client = await olap.connect(OlapConfig(port=stack.places.ports["clickhouse"]))

    async def in_redis() -> bool:
        return (await FeatureStore(redis).read("scooter-demand", "7")).get("unlocks_600s") == "2"

    async def in_lake(zone: str) -> bool:
        table = str(stack.places.lake / zone / TOPIC)
        return DeltaTable.is_deltatable(table) and DeltaTable(table).count() == ROWS

    async def in_olap() -> bool:
        there = await client.query(f"SELECT total_rows FROM system.tables WHERE database = 'live' AND name = '{TOPIC}'")
        return bool(there.result_rows) and there.result_rows[0][0] == ROWS

    try:
        names = ("redis_seconds", "raw_seconds", "curated_seconds", "olap_seconds")
        probes = (in_redis, lambda: in_lake("raw"), lambda: in_lake("curated"), in_olap)
        return dict(zip(names, await asyncio.gather(*(until(probe, began) for probe in probes)), strict=True))
    finally:
        await redis.aclose()
        await client.close()


async def main() -> None:
    """Starts the stack, applies, publishes, looks."""
    with tempfile.TemporaryDirectory(prefix="arterial-bench-") as name:
        folder = Path(name)
        began = time.monotonic()
        stack = Stack(folder / "stack")
        await stack.start()
        started = time.monotonic() - began
        try:
            (folder / "stack.json").write_text(json.dumps({"pid": os.getpid(), "addresses": stack.places.addresses()}))
            began = time.monotonic()
            await arterial(folder, "apply", str(EXAMPLE), "--message", "bench")
            applied = time.monotonic() - began
            taken = await until(lambda: published(folder), began)
            found = await lives(stack, began)
        finally:
            await stack.stop()
    whole = max(found.values())
    report("new_pipeline", whole, "s", baseline=("start of the stack", started), apply_seconds=applied, published_seconds=taken, **found)


if __name__ == "__main__":
    asyncio.run(main())
