"""Two control planes, a schedule that ticks every second: the one that makes the runs is killed, hangs, and is stopped; the other goes on.

Within 10 seconds every tick must have its run, and no tick may have two: not while both are up, and not when the one that hung wakes up.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import yaml

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc, resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import job_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from arterial.channel import connect
from deploy.local import postgres
from deploy.local.child import LOOPBACK, Child, free_port
from deploy.local.supervisor import serving

GOAL_SECONDS, CALM_SECONDS, WAIT_SECONDS = 10.0, 5.0, 30.0
FAULTS = {"killed": signal.SIGKILL, "hung": signal.SIGSTOP, "stopped": signal.SIGTERM}
SCHEDULE = "every-second"


class Broken(AssertionError):
    """Something that must hold does not."""


class Replica:
    """A control plane over the shared database."""

    def __init__(self, name: str, folder: Path, database: str) -> None:
        self.address = f"{LOOPBACK}:{(port := free_port())}"
        self._name, self._log = name, folder / f"{name}.log"
        self._config = folder / f"{name}.yaml"
        self._config.write_text(yaml.safe_dump({"state_dir": str(folder / name), "sql": {"url": database}, "rpc": {"port": port}}))
        self.child: Child | None = None

    async def start(self) -> None:
        """Starts the process, unless it runs; returns when it serves."""
        if self.child is None or not self.child.alive:
            command = [sys.executable, "-m", "services.controlplane", "serve", "--config", str(self._config)]
            self.child = Child.start(self._name, command, self._log)
            await self.child.healthy(lambda: serving(self.address))

    async def end(self) -> None:
        """Ends the process, also one that was halted."""
        if self.child is not None:
            await self.child.stop(signal.SIGKILL)

    def leads(self) -> bool:
        """Whether it has taken the office more often than it left it, as its log says, since it last started."""
        text = self._log.read_text().rpartition("started")[2]
        return text.count("office taken") > text.count("office left")


async def runs_of(address: str) -> list[jobs.Run]:
    """All runs of the schedule, newest first."""
    found: list[jobs.Run] = []
    async with connect(address) as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        token = ""
        while True:
            page = page_pb2.PageRequest(page_size=1000, page_token=token)
            reply = await stub.ListRuns(jobs.ListRunsRequest(schedule=SCHEDULE, page=page))
            found += reply.runs
            token = reply.page.next_page_token
            if not token:
                return found


def check(runs: Sequence[jobs.Run], what: str) -> float:
    """Every tick has one run; returns how late the latest was made, seconds. Raises Broken."""
    ticks = [run.scheduled_for.ToSeconds() for run in runs]
    if ticks != list(range(ticks[0], ticks[-1] - 1, -1)):
        raise Broken(f"{what}: a tick has no run, or two")
    late = max(run.created_at.ToMicroseconds() - run.scheduled_for.ToMicroseconds() for run in runs) / 1e6
    if late > GOAL_SECONDS:
        raise Broken(f"{what}: a run was made {late:.1f} s after its tick")
    return late


async def declare(address: str) -> None:
    """The schedule."""
    spec = specs_pb2.ScheduleSpec(
        run_kind="chaos",
        subject="chaos",
        cell="local",
        catch_up=specs_pb2.CATCH_UP_ALL,
        cron=specs_pb2.CronTrigger(expression="* * * * * *"),
    )
    resource = resource_pb2.Resource(
        api_version="arterial.dev/v1", kind="Schedule", metadata=resource_pb2.Metadata(name=SCHEDULE), schedule=spec
    )
    async with connect(address) as channel:
        stub: Any = control_plane_service_pb2_grpc.ControlPlaneServiceStub(channel)
        await stub.Apply(control.ApplyRequest(resources=[resource]))


async def struck(replicas: Sequence[Replica], how: str) -> str:
    """Strikes the leader, waits for the other to go on, and brings the first one back; what it says of it."""
    leader = next(replica for replica in replicas if replica.leads())
    other = next(replica for replica in replicas if replica is not leader)
    if leader.child is None:
        raise Broken("the leader does not run")
    known = len(await runs_of(other.address))
    leader.child.process.send_signal(FAULTS[how])
    began = time.monotonic()
    while len(await runs_of(other.address)) < known + GOAL_SECONDS + CALM_SECONDS:
        if time.monotonic() - began > WAIT_SECONDS:
            raise Broken(f"{how}: nobody goes on")
        await asyncio.sleep(0.2)
    if how == "hung":
        leader.child.process.send_signal(signal.SIGCONT)
    await leader.start()
    await asyncio.sleep(CALM_SECONDS)
    late = check((await runs_of(other.address))[:-known], how)
    return f"the leader was {how}: the latest run came {late:.1f} s after its tick"


async def run(folder: Path) -> None:
    """Everything, in order."""
    async with AsyncExitStack() as stack:
        port = free_port()
        engine = await postgres.start(folder / "postgres", port)
        stack.push_async_callback(engine.stop, signal.SIGINT)
        database = await postgres.create_database(port, "controlplane")
        replicas = [Replica(name, folder, database) for name in ("one", "two")]
        for replica in replicas:
            stack.push_async_callback(replica.end)
            await replica.start()
        await declare(replicas[0].address)
        await asyncio.sleep(CALM_SECONDS)
        for how in FAULTS:
            print(await struck(replicas, how), flush=True)
        check(await runs_of(replicas[0].address), "in all")


def main() -> None:
    """The exit status is the verdict."""
    argparse.ArgumentParser(prog="chaos.scheduler_failover", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="arterial-chaos-") as name:
        began = time.monotonic()
        try:
            asyncio.run(run(Path(name)))
        except Broken as error:
            print(f"scheduler-failover FAILED: {error}")
            sys.exit(1)
    print(f"scheduler-failover ok: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
