"""Watch: p99 from the commit of a change to 1,000 watchers of 10,000 resources, in milliseconds, against polling the database each 100 ms.

PostgreSQL, one serving process, and the process of the watchers (each on a connection of its own) share the machine's cores. Every change
reaches every watcher; what is measured ends when the watcher has the message.
"""

import asyncio
import gc
import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import sqlalchemy as sa
import yaml

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from bench.publish import cpu_of
from bench.result import report
from chassis import sql
from chassis.config import SqlConfig
from deploy.local import postgres
from deploy.local.child import LOOPBACK, Child, free_port
from deploy.local.supervisor import serving
from services.controlplane.resources.store import CHANGES, RESOURCES, lock

WATCHERS, RESOURCES_COUNT, CHANGES_COUNT, PAUSE_SECONDS = 1000, 10_000, 40, 0.5
PATH = "/arterial.api.controlplane.v1.ControlPlaneService/Watch"
START_SECONDS = 300


def declared(number: int, note: int) -> resource_pb2.Resource:
    """A dataset as people write them: half a kilobyte."""
    columns = [specs_pb2.Column(name=f"column_{place}", description=f"What column {place} means to people") for place in range(6)]
    spec = specs_pb2.DatasetSpec(description=f"Table {number} of the benchmark, changed {note} times", tier=3, columns=columns)
    metadata = resource_pb2.Metadata(name=f"lake/bench/t{number:05d}", owner="bench", generation=note + 1)
    return resource_pb2.Resource(api_version="arterial.dev/v1", kind="Dataset", metadata=metadata, dataset=spec)


class Database:
    """Writes as another replica of the control plane would."""

    def __init__(self, url: str) -> None:
        self._engine = sql.engine(SqlConfig(url=url))
        self._version = 0

    async def fill(self) -> None:
        """All resources, as changes 1 to RESOURCES_COUNT."""
        bodies = [declared(number, 0) for number in range(RESOURCES_COUNT)]
        rows = [
            {"kind": "Dataset", "name": body.metadata.name, "version": number, "body": body.SerializeToString()}
            for number, body in enumerate(bodies, 1)
        ]
        async with self._engine.begin() as connection:
            await connection.execute(sa.insert(RESOURCES), rows)
            await connection.execute(sa.insert(CHANGES), [row | {"message": "bench"} for row in rows])
        self._version = RESOURCES_COUNT

    async def change(self) -> tuple[int, float]:
        """One change; its version, and the time just before it was committed."""
        self._version += 1
        body = declared(self._version % RESOURCES_COUNT, self._version)
        row = {"kind": "Dataset", "name": body.metadata.name, "version": self._version, "body": body.SerializeToString()}
        async with self._engine.connect() as connection:
            await lock(connection)
            where = (RESOURCES.c.kind == row["kind"], RESOURCES.c.name == row["name"])
            await connection.execute(sa.update(RESOURCES).where(*where).values(version=row["version"], body=row["body"]))
            await connection.execute(sa.insert(CHANGES).values(row | {"message": "bench"}))
            began = time.time()
            await connection.commit()
        return self._version, began

    async def close(self) -> None:
        """Disconnects."""
        await self._engine.dispose()


class Watchers:
    """The watchers' process: times of arrival by version, and how long it took until all were in step."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._synced = 0
        self.all_synced = asyncio.Event()
        self.arrivals: dict[int, list[float]] = {}

    async def one(self, version: int) -> None:
        """Watches for ever, from a version."""
        request = pb.WatchRequest(resource_version=version, batches=True, component="bench")
        # A connection for each, as if they were processes of their own.
        async with grpc.aio.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            in_step = False
            call: Any = channel.unary_stream(PATH, pb.WatchRequest.SerializeToString)(request)
            async for message in call:
                now = time.time()
                if len(message) > 16_000:
                    continue  # a page of everything: only its arrival matters here, parsing it a thousand times would measure this process
                response = pb.WatchResponse.FromString(message)
                if response.type == pb.WatchResponse.TYPE_BATCH and response.synced:
                    self.arrivals.setdefault(response.resource_version, []).append(now)
                elif response.type == pb.WatchResponse.TYPE_SYNCED and not in_step:
                    in_step = True
                    self._synced += 1
                    if self._synced == WATCHERS:
                        self.all_synced.set()


async def watch(address: str, version: int, result: Path) -> None:
    """Runs the watchers until SIGTERM; writes when all were in step, then what arrived."""
    watchers, stopping = Watchers(address), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    began = time.monotonic()
    tasks = [asyncio.create_task(watchers.one(version)) for _ in range(WATCHERS)]
    await watchers.all_synced.wait()
    # A thousand processes would not pause together for the garbage of one.
    gc.freeze()
    gc.disable()
    _write(result.with_suffix(".ready"), {"seconds": time.monotonic() - began})
    await stopping.wait()
    _write(result, {str(number): times for number, times in watchers.arrivals.items()})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _write(file: Path, document: object) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(document))
    draft.replace(file)


async def connected(folder: Path, name: str, address: str, version: int) -> tuple[Child, Path, float]:
    """Starts the watchers; returns when all are in step, and the seconds that it took them."""
    result = folder / f"{name}.json"
    command = [sys.executable, "-m", "bench.watch", address, str(version), str(result)]
    child = Child.start(name, command, folder / f"{name}.log")
    ready = result.with_suffix(".ready")

    async def there() -> bool:
        return ready.exists()

    await child.healthy(there, START_SECONDS)
    return child, result, float(json.loads(ready.read_text())["seconds"])


async def served(folder: Path, url: str, *, notifications: bool) -> tuple[Child, str]:
    """A control plane in a process of its own."""
    port, name = free_port(), f"notified-{notifications}"
    settings = {"state_dir": str(folder / "state"), "sql": {"url": url}, "rpc": {"port": port}, "notifications": notifications}
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "services.controlplane", "serve", "--config", str(config)]
    child = Child.start(name, command, folder / f"{name}.log")
    await child.healthy(lambda: serving(f"{LOOPBACK}:{port}"))
    return child, f"{LOOPBACK}:{port}"


async def latencies(database: Database, watchers: Child, result: Path, server: Child) -> tuple[np.ndarray, float]:
    """Milliseconds from commit to each watcher for each change, and the server's CPU milliseconds per change."""
    began, committed = cpu_of(server.pid), {}
    for _ in range(CHANGES_COUNT):
        version, at = await database.change()
        committed[version] = at
        await asyncio.sleep(PAUSE_SECONDS)
    cpu = (cpu_of(server.pid) - began) * 1000 / CHANGES_COUNT
    await watchers.stop()
    arrived = {int(version): times for version, times in json.loads(result.read_text()).items()}
    missing = [version for version in committed if len(arrived.get(version, [])) != WATCHERS]
    assert not missing, f"changes {missing} did not reach every watcher as changes of their own"
    found = [(time_ - at) * 1000 for version, at in committed.items() for time_ in arrived[version]]
    return np.array(found), cpu


async def main() -> None:
    """Storm of resyncs, changes, storm of resumes; then changes by polling."""
    with tempfile.TemporaryDirectory(prefix="arterial-bench-") as name:
        folder = Path(name)
        port = free_port()
        engine = await postgres.start(folder / "postgres", port)
        url = await postgres.create_database(port, "controlplane")
        database = Database(url)
        try:
            server, address = await served(folder, url, notifications=True)
            await database.fill()
            watchers, result, resync_seconds = await connected(folder, "resync", address, 0)
            found, cpu = await latencies(database, watchers, result, server)
            peak_mb = psutil.Process(server.pid).memory_info().rss / 1e6
            watchers, _, resume_seconds = await connected(folder, "resume", address, RESOURCES_COUNT + CHANGES_COUNT)
            await watchers.stop()
            await server.stop()
            server, address = await served(folder, url, notifications=False)
            watchers, result, _ = await connected(folder, "polled", address, RESOURCES_COUNT + CHANGES_COUNT)
            polled, _ = await latencies(database, watchers, result, server)
            await server.stop()
        finally:
            await database.close()
            await engine.stop(signal.SIGINT)
    report(
        "watch",
        float(np.percentile(found, 99)),
        "ms (p99, commit to watcher, 1,000 watchers, 10,000 resources)",
        baseline=("polling each 100 ms", float(np.percentile(polled, 99))),
        p50_ms=float(np.median(found)),
        max_ms=float(found.max()),
        server_cpu_ms_per_change=cpu,
        resync_storm_seconds=resync_seconds,
        resume_storm_seconds=resume_seconds,
        server_rss_mb=peak_mb,
    )


if __name__ == "__main__":
    import uvloop

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    if len(sys.argv) == 4:
        uvloop.run(watch(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
    else:
        uvloop.run(main())
