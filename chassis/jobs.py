"""Takes runs of jobs from the control plane by lease, and sees each through its attempt."""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import Field

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2, job_service_pb2_grpc
from arterial.channel import Channel
from chassis.config import Part, ServiceConfig
from chassis.errors import ArterialError, Reason
from chassis.logs import logger
from chassis.process import Context

# Another worker may take the run when nothing was heard for so long; heartbeats come often, so that a cancelled run ends soon.
LEASE_SECONDS, HEARTBEAT_SECONDS = 30, 3.0
POLL_SECONDS, CALL_SECONDS = 1.0, 10.0
# Kinds of the runs that drop data: a removal makes them, the services that have the data do them.
RETIRE_RECORDS, RETIRE_TABLES, RETIRE_STATISTICS = "ingestion-retire-records", "ingestion-retire-tables", "dss-retire-statistics"
# Lines of log that wait for a heartbeat, and lines per call; more are left out, and their number said.
MAX_WAITING_LINES, MAX_LINES = 5000, 1000
_log = logger(__name__)


class CapacityConfig(Part):
    """What a worker has for its runs: memory in MiB, thousandths of a core (0: not declared, any run fits), and runs at once at most."""

    memory_mib: int = Field(default=0, ge=0)
    cpu_milli: int = Field(default=0, ge=0)
    max_runs: int = Field(default=1, ge=1, le=100)

    def left(self, doing: Iterable[specs_pb2.RunTerms]) -> job_service_pb2.Capacity:
        """What of it is free beside these runs."""
        held = list(doing)
        memory, cpu = sum(terms.memory_mib for terms in held), sum(terms.cpu_milli for terms in held)
        return job_service_pb2.Capacity(memory_mib=max(0, self.memory_mib - memory), cpu_milli=max(0, self.cpu_milli - cpu))


class Stopped(Exception):
    """The attempt is not to go on: cancelled, its lease lost, or the process stops."""


@dataclass
class Lines:
    """Lines of log on their way to the control plane; bounded."""

    waiting: "deque[str]" = field(default_factory=deque)
    left_out: int = 0

    def add(self, text: str) -> None:
        """Adds a line, or counts it as left out."""
        if len(self.waiting) >= MAX_WAITING_LINES:
            self.left_out += 1
        else:
            self.waiting.append(text)

    def take(self) -> list[str]:
        """Lines of one call."""
        taken = [self.waiting.popleft() for _ in range(min(len(self.waiting), MAX_LINES - 1))]
        if self.left_out:
            taken.append(f"({self.left_out} lines were left out)")
            self.left_out = 0
        return taken

    def put_back(self, lines: list[str]) -> None:
        """What a failed call did not bring."""
        self.waiting.extendleft(reversed(lines))


# What is done for a run of a kind; returns the outputs of the run. What it raises but an ArterialError ends the process.
Attempt = Callable[["Held"], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True)
class Work:
    """What a worker does: how runs of each kind are done, what it has for them, and how often it looks for one."""

    attempts: Mapping[str, Attempt]
    capacity: CapacityConfig = field(default_factory=CapacityConfig)
    poll_seconds: float = POLL_SECONDS


class Worker:
    """Takes runs and sees each through its attempt."""

    def __init__(self, config: ServiceConfig, context: Context, connection: Channel, work: Work) -> None:
        self._cell = config.cell.name
        self._context = context
        self._work = work
        # The control plane counts by it what a worker has left: no other process has this name.
        self._name = f"{self._cell}/{context.process}/{socket.gethostname()[:63]}-{os.getpid()}"
        self._jobs = job_service_pb2_grpc.JobServiceStub(connection)

    async def run(self) -> None:
        """Takes runs until the process stops, as many at once as there is capacity for, and sees each through beside the others."""
        doing: dict[asyncio.Task[None], specs_pb2.RunTerms] = {}
        try:
            while not self._context.stopping.is_set():
                taken = await self._take(doing.values()) if len(doing) < self._work.capacity.max_runs else None
                if taken is not None:
                    held = Held(self._jobs, self._context, taken.run, taken.lease)
                    doing[asyncio.create_task(self._see_through(held))] = taken.run.terms
                    continue
                stopping = asyncio.create_task(self._context.stopping.wait())
                await asyncio.wait({stopping, *doing}, timeout=self._work.poll_seconds, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                for task in [task for task in doing if task.done()]:
                    del doing[task]
                    task.result()
        finally:
            await asyncio.gather(*doing)

    async def _take(self, doing: Iterable[specs_pb2.RunTerms]) -> job_service_pb2.TakeRunResponse | None:
        """A run that fits beside those; None if there is none, or nobody answers."""
        has = self._work.capacity
        request = job_service_pb2.TakeRunRequest(
            worker=self._name,
            cell=self._cell,
            kinds=sorted(self._work.attempts),
            lease_seconds=LEASE_SECONDS,
            total=has.left(()),
            free=has.left(doing),
        )
        try:
            taken: job_service_pb2.TakeRunResponse = await self._jobs.TakeRun(request, timeout=CALL_SECONDS)
        except ArterialError as error:
            _log.info("no run can be taken, trying again", reason=str(error.reason), error=error.message)
            return None
        if not taken.HasField("run"):
            return None
        _log.info("run taken", run_id=taken.run.run_id, kind=taken.run.kind, subject=taken.run.subject, attempt=taken.run.attempt)
        return taken

    async def _see_through(self, held: "Held") -> None:
        """From a taken run to a finished one."""
        keeping = asyncio.create_task(held.keep())
        attempt = asyncio.ensure_future(self._work.attempts[held.run.kind](held))
        done, _ = await asyncio.wait({keeping, attempt}, return_when=asyncio.FIRST_COMPLETED)
        for task in {keeping, attempt} - done:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        try:
            if attempt not in done:
                keeping.result()
            await held.finish(True, outputs=attempt.result())
        except Stopped as stopped:
            _log.info("attempt stopped", run_id=held.run.run_id, why=str(stopped))
        except ArterialError as error:
            _log.warning("attempt failed", run_id=held.run.run_id, error=error.message)
            await held.finish(False, reason=error.message)


class Held:
    """A run whose lease this process has."""

    def __init__(self, jobs: Any, context: Context, run: job_service_pb2.Run, lease: str) -> None:
        self._jobs = jobs
        self._context = context
        self.run = run
        self._lease = lease
        self.lines = Lines()
        self._valid_until = context.clock.now() + LEASE_SECONDS

    async def keep(self) -> None:
        """Extends the lease until it raises.

        Raises:
            Stopped: the run was cancelled, the lease is another's or has run out, or this process stops.
        """
        while True:
            await _pause(self._context, HEARTBEAT_SECONDS)
            self._check()
            lines = self.lines.take()
            try:
                reply = await self._jobs.KeepRun(self._keep_request(lines), timeout=CALL_SECONDS)
            except ArterialError as error:
                self.lines.put_back(lines)
                _given_up(error)
                continue
            except asyncio.CancelledError:
                # The attempt has ended: they go with its end.
                self.lines.put_back(lines)
                raise
            self._valid_until = self._context.clock.now() + LEASE_SECONDS
            if reply.cancelled:
                raise Stopped("the run was cancelled")

    async def insist(self, call: Callable[[], Any]) -> Any:
        """The answer of a call, repeated while the control plane is away and the lease holds. Raises Stopped, ArterialError."""
        while True:
            self._check()
            try:
                return await call()
            except ArterialError as error:
                if error.reason not in _AWAY:
                    raise
                await _pause(self._context, POLL_SECONDS)

    async def finish(self, succeeded: bool, *, reason: str = "", outputs: Mapping[str, str] | None = None) -> None:
        """Ends the attempt. One whose lease is gone is not counted: whoever took the run over ends it."""
        try:
            while len(self.lines.waiting) >= MAX_LINES:
                keep = partial(self._jobs.KeepRun, self._keep_request(self.lines.take()), timeout=CALL_SECONDS)
                await self.insist(keep)
            request = job_service_pb2.FinishRunRequest(
                run_id=self.run.run_id, lease=self._lease, succeeded=succeeded, reason=reason[:4096], outputs=outputs, log=self.lines.take()
            )
            await self.insist(lambda: self._jobs.FinishRun(request, timeout=CALL_SECONDS))
            _log.info("run finished", run_id=self.run.run_id, succeeded=succeeded)
        except (ArterialError, Stopped) as error:
            _log.warning("run could not be finished", run_id=self.run.run_id, error=str(error))

    def _keep_request(self, lines: list[str]) -> job_service_pb2.KeepRunRequest:
        return job_service_pb2.KeepRunRequest(run_id=self.run.run_id, lease=self._lease, log=lines)

    def _check(self) -> None:
        if self._context.stopping.is_set():
            raise Stopped("this process stops")
        if self._context.clock.now() > self._valid_until:
            raise Stopped("the lease ran out while the control plane was away")


# The call may succeed when it is tried again.
_AWAY = frozenset({Reason.DEPENDENCY_UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.DRAINING})


def _given_up(error: ArterialError) -> None:
    if error.reason not in _AWAY:
        raise Stopped(f"the lease is not this process's any more: {error.message}")


async def _pause(context: Context, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(context.stopping.wait(), seconds)
