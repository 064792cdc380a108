"""The control plane is killed, and a TCP proxy drops, delays and half-opens what it says: the data plane must not notice, and catch up.

Ingestion and the combiner of prices run against the proxy. In every fault events are published and must reach the lake; after it a change
that was made meanwhile must be in effect, by the processes' own reports, and no process may have asked for everything again.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import yaml

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc, resource_pb2
from arterial.channel import connect
from arterial.client import Client
from bench.trips import TOPIC, payloads
from chaos.tcp_proxy import Fault, Proxy
from chassis.config import LakeConfig, SqlConfig
from chassis.errors import ArterialError, Reason
from chassis.lake import Table
from chassis.lastgood import FILE
from chassis.sql import engine
from cli.wait import until_ready
from deploy.local import kafka, postgres, redis
from deploy.local.child import LOOPBACK, Child, free_port
from deploy.local.services import ENGINES, PORTS, SERVICES, Places
from deploy.local.supervisor import serving
from services.controlplane.resources.store import CHANGES, RESOURCES, lock

DATA_PLANE = ("ingestion-serve", "ingestion-stream", "pricing-combine")
# What is changed, and who says that it is in effect.
PIPELINE, POLICY = ("Pipeline", "raw"), ("PricingPolicy", "surge")
RECORDS = 1000
# Reconnects wait up to 15 s, and processes start and stop meanwhile on a machine that may be busy.
CONVERGE_SECONDS, HALF_OPEN_SECONDS = 45.0, 45.0
# Streams that a process may begin per fault: one that is refused tries again, ever more rarely.
WATCHES_PER_FAULT = 4


class Broken(AssertionError):
    """Something that must hold does not."""


class Scene:
    """The processes and what is between them."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        ports = {name: free_port() for name in (*ENGINES, *PORTS, *(service.name for service in SERVICES if service.port))}
        self.places = Places(ports, folder)
        self.proxy_port = free_port()
        self._folder = folder
        self._stack = stack
        self._children: dict[str, Child] = {}
        self.lake = LakeConfig(root=str(self.places.lake))
        self.published = 0
        self.faults = 1
        self._note = 0

    async def start(self) -> None:
        """Engines, then the control plane, then the data plane behind the proxy."""
        starts = {"kafka": kafka.start, "redis": redis.start, "postgres": postgres.start}
        for name, child in zip(
            starts,
            await asyncio.gather(*(start(self._folder / name, self.places.ports[name]) for name, start in starts.items())),
            strict=True,
        ):
            self._stack.push_async_callback(child.stop, signal.SIGINT if name == "postgres" else signal.SIGTERM)
        await postgres.create_database(self.places.ports["postgres"], "controlplane")
        self.proxy = await self._stack.enter_async_context(Proxy(self.proxy_port, self.places.ports["controlplane-serve"]))
        self._stack.push_async_callback(self._stop)
        await self.run("controlplane-serve")
        for name in DATA_PLANE:
            await self.run(name)

    async def _stop(self) -> None:
        await asyncio.gather(*(child.stop() for child in self._children.values()))

    async def run(self, name: str) -> None:
        """Starts a process; returns when it is healthy, if it serves."""
        service = next(service for service in SERVICES if service.name == name)
        settings = service.settings(self.places) | {"lineage": None}
        if name in DATA_PLANE:
            settings["control_plane"] = f"{LOOPBACK}:{self.proxy_port}"
        config = self._folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", service.module, service.role, "--config", str(config)]
        child = self._children[name] = Child.start(name, command, self._folder / f"{name}.log")
        if service.port:
            await child.healthy(lambda: serving(self.places.address(name)))

    def kill(self, name: str) -> None:
        """SIGKILL, by the process id."""
        self._children[name].process.kill()
        self._children[name].process.wait()

    def corrupt(self, name: str) -> None:
        """Flips a bit of what the process keeps on disk."""
        file = Path(self._folder) / "state" / name / FILE
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    async def events_reach_the_lake(self) -> None:
        """Publishes, and waits until the raw table has all that was ever published."""
        async with Client(ingestion=self.places.address("ingestion-serve")) as client, client.publisher() as publisher:
            reply = await publisher.publish(TOPIC.name, payloads(RECORDS, seed=self.published)[0])
            if min(reply.offsets) < 0:
                raise Broken("ingestion did not take events")
        self.published += RECORDS

        async def there() -> bool:
            table = await asyncio.to_thread(Table.open, self.lake, f"raw/{TOPIC.name}")
            return table is not None and sum(file.rows for file in table.files()) == self.published

        await within(there, f"{self.published} events in the lake", 60)

    async def control(self, call: Callable[[Any], Awaitable[Any]]) -> Any:
        """Calls the control plane past the proxy, as an operator would."""
        async with connect(self.places.address("controlplane-serve"), attempts=1) as channel:
            return await call(control_plane_service_pb2_grpc.ControlPlaneServiceStub(channel))

    async def change(self) -> None:
        """Changes the pipeline and the policy."""
        self._note += 1

        async def apply(stub: Any) -> None:
            changed = []
            for kind, name in (PIPELINE, POLICY):
                resource = (await stub.GetResource(pb.GetResourceRequest(kind=kind, name=name))).resource
                resource.metadata.labels["chaos"] = f"n{self._note}"
                resource.metadata.resource_version = 0
                changed.append(resource)
            await stub.Apply(pb.ApplyRequest(resources=changed), timeout=30)

        await self.control(apply)

    async def converged(self, seconds: float = CONVERGE_SECONDS) -> float:
        """Waits until the processes say that the change is in effect; the seconds that it took."""
        began = time.monotonic()

        async def ready(stub: Any) -> None:
            for kind, name in (PIPELINE, POLICY):
                _, wrong = await until_ready(stub, kind, name, seconds, lambda lines: None)
                if wrong:
                    raise Broken(f"{kind}/{name} did not converge within {seconds:.0f} s: {wrong}")

        await self.control(ready)
        return time.monotonic() - began

    async def smuggle(self) -> None:
        """Writes what no Apply would let pass: a broken version of the pipeline, and a resource of a kind of the future."""
        broken = (await self.control(lambda stub: stub.GetResource(pb.GetResourceRequest(kind=PIPELINE[0], name=PIPELINE[1])))).resource
        broken.ClearField("status")
        broken.pipeline.interval_ms = -1
        broken.metadata.generation += 1
        future = resource_pb2.Resource(kind="Starship", metadata=resource_pb2.Metadata(name="x", generation=1))
        database = engine(SqlConfig(url=f"postgresql+asyncpg://controlplane@{self.places.address('postgres')}/controlplane"))
        async with database.begin() as connection:
            await lock(connection)
            version = (await connection.execute(CHANGES.select().order_by(CHANGES.c.version.desc()).limit(1))).one().version
            for resource in (broken, future):
                version += 1
                row = {"kind": resource.kind, "name": resource.metadata.name, "version": version, "body": resource.SerializeToString()}
                await connection.execute(
                    RESOURCES.delete().where(RESOURCES.c.kind == resource.kind, RESOURCES.c.name == resource.metadata.name)
                )
                await connection.execute(RESOURCES.insert().values(row))
                await connection.execute(CHANGES.insert().values(row | {"message": "smuggled"}))
        await database.dispose()

    def watches(self) -> tuple[Counter[str], Counter[str]]:
        """Streams begun and resyncs so far, by process, as the control plane logged them."""
        lines = (json.loads(line) for line in (self._folder / "controlplane-serve.log").read_text().splitlines() if line.startswith("{"))
        begun = [line for line in lines if line["event"] == "watch"]
        return Counter(line["component"] for line in begun), Counter(line["component"] for line in begun if line["resync"])


async def within(probe: Callable[[], Awaitable[bool]], what: str, seconds: float) -> None:
    """Waits for it. Raises Broken."""
    deadline = time.monotonic() + seconds
    while not await probe():
        if time.monotonic() > deadline:
            raise Broken(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(0.2)


def say(line: str) -> None:
    """Shows a line."""
    print(line, flush=True)


async def killed(scene: Scene) -> None:
    """The control plane dies; a worker restarts meanwhile, from the file before the one that is corrupt."""
    await scene.change()
    await scene.converged()
    scene.kill("controlplane-serve")
    await scene.events_reach_the_lake()
    try:
        await scene.change()
        raise Broken("a change was taken while the control plane was away")
    except ArterialError as error:
        if error.reason is not Reason.DEPENDENCY_UNAVAILABLE:
            raise Broken(f"a change was refused as {error.reason}") from error
    for name in ("ingestion-stream", "pricing-combine"):
        scene.kill(name)
    scene.corrupt("ingestion-stream")
    for name in ("ingestion-stream", "pricing-combine"):
        await scene.run(name)
    await scene.events_reach_the_lake()
    await scene.run("controlplane-serve")
    await scene.change()
    say(f"killed for a while, workers restarted without it: converged {await scene.converged():.1f} s after its return")


async def proxied(scene: Scene, fault: Fault, seconds: float) -> None:
    """A fault of the way; with one that heals itself the change must arrive while it lasts."""
    scene.proxy.inflict(fault)
    await scene.change()
    await scene.events_reach_the_lake()
    if fault is Fault.HALF_OPEN:
        say(f"{fault}: converged in {await scene.converged(HALF_OPEN_SECONDS):.1f} s, by itself")
    elif fault is Fault.DELAY:
        say(f"{fault}: converged in {await scene.converged():.1f} s, delayed")
    else:
        await asyncio.sleep(seconds)
        scene.proxy.inflict(Fault.NONE)
        say(f"{fault} for {seconds:.0f} s: converged in {await scene.converged():.1f} s")
    scene.proxy.inflict(Fault.NONE)


async def smuggled(scene: Scene) -> None:
    """What is not understood is refused by the data plane, which says so, and good changes after it arrive."""
    await scene.smuggle()

    async def told() -> bool:
        reply = await scene.control(lambda stub: stub.GetResource(pb.GetResourceRequest(kind=PIPELINE[0], name=PIPELINE[1])))
        return any(condition.reason == "NotUnderstood" for condition in reply.resource.status.conditions)

    await within(told, "the broken pipeline is told as not understood", CONVERGE_SECONDS)
    await scene.events_reach_the_lake()

    async def mended(stub: Any) -> None:
        resource = (await stub.GetResource(pb.GetResourceRequest(kind=PIPELINE[0], name=PIPELINE[1]))).resource
        resource.pipeline.interval_ms = 500
        resource.metadata.resource_version = 0
        await stub.Apply(pb.ApplyRequest(resources=[resource]), timeout=30)

    await scene.control(mended)
    say(f"not understood: refused and told, the next good change converged in {await scene.converged():.1f} s")


async def run(folder: Path) -> None:
    """All faults, one after another. Raises Broken."""
    async with AsyncExitStack() as stack:
        scene = Scene(folder, stack)
        await scene.start()
        await scene.events_reach_the_lake()
        say(f"everything is up and ready after {await scene.converged(60):.1f} s")
        await killed(scene)
        for fault, seconds in ((Fault.DROP, 10.0), (Fault.DELAY, 0.0), (Fault.HALF_OPEN, 0.0)):
            await proxied(scene, fault, seconds)
        await smuggled(scene)
        await scene.events_reach_the_lake()
        begun, resyncs = scene.watches()
        say(f"watch streams begun {dict(begun)}, resyncs {dict(resyncs)}, connections {scene.proxy.accepted}")
        # Kill (with restarts of their own), drop, delay, half-open.
        if max(begun.values()) > 5 * WATCHES_PER_FAULT or any(count > 1 for count in resyncs.values()):
            raise Broken("a storm: too many streams, or a process asked for everything again")


def main() -> None:
    """The exit status is the verdict."""
    argparse.ArgumentParser(prog="chaos.controlplane_away", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="arterial-chaos-") as name:
        began = time.monotonic()
        try:
            asyncio.run(run(Path(name)))
        except Broken as error:
            print(f"controlplane-away FAILED: {error}")
            sys.exit(1)
    print(f"controlplane-away ok: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
