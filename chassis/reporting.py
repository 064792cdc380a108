"""Tells the control plane what became of desired state in this process: for each resource acted on, whether it is ready, and why not.

Only what changed is sent, a second's worth at a time; while the control plane is away the latest of each resource is kept.
"""

import asyncio
import random
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc, resource_pb2
from arterial.channel import Channel
from chassis.errors import ArterialError
from chassis.lastgood import write_atomically
from chassis.logs import logger
from chassis.resources import Key
from chassis.rpc.client import channel

# Reports wait for others this long at most, so that a change of many resources is one call, and all processes do not call at once.
GATHER_SECONDS = 1.0
# Everything is told again now and then: the control plane forgets a process that it does not hear of for three times this.
REPEAT_SECONDS = 300.0
# Statuses of one call.
MAX_STATUSES = 1000
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, CALL_SECONDS = 0.5, 30.0, 5.0
MESSAGE_LENGTH = 500
_log = logger(__name__)


@dataclass(frozen=True)
class Standing:
    """Whether a resource is ready here (None: unknown): a stable reason in CamelCase, and a message for people."""

    holds: bool | None
    reason: str
    message: str = ""
    aspect: str = "Ready"


@dataclass(frozen=True)
class Reporter:
    """Who reports."""

    cell: str
    component: str
    instance: str


class Reports:
    """What this process has to say, latest first kept. Use it on the loop."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._said: dict[Key, tuple[int, Standing | None]] = {}
        self._due: dict[Key, None] = {}
        self._wake = asyncio.Event()
        self._reached = asyncio.Event()

    def say(self, kind: str, name: str, generation: int, standing: Standing | None) -> None:
        """Notes what is so now of a generation; 0 is one that the control plane does not know, and is not told. None takes back."""
        if generation and self._said.get((kind, name)) != (generation, standing):
            self._said[kind, name] = (generation, standing)
            self._due[kind, name] = None
            self._wake.set()

    def keep_only(self, exists: Callable[[Key], bool]) -> None:
        """Forgets resources that are gone."""
        for key in [key for key in self._said if not exists(key)]:
            del self._said[key]
            self._due.pop(key, None)

    def reached(self) -> None:
        """Notes that the control plane answers: what waits for that need not wait longer."""
        self._reached.set()

    async def send(self, address: str) -> None:
        """Sends until cancelled."""
        backoff, repeat_at = MIN_BACKOFF_SECONDS, _next_repeat()
        async with channel(address, attempts=1) as connection:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(repeat_at):
                        await self._wake.wait()
                if asyncio.get_running_loop().time() >= repeat_at:
                    # Whatever was said meanwhile: what changes all the time must not keep the rest from being told.
                    self._due |= self._standing()
                    repeat_at = _next_repeat()
                await asyncio.sleep(GATHER_SECONDS * random.random())
                self._wake.clear()
                try:
                    await self._send(connection)
                    backoff = MIN_BACKOFF_SECONDS
                except ArterialError as error:
                    _log.info("status could not be reported, it is kept", reason=str(error.reason), resources=len(self._due))
                    # A control plane that was away may have forgotten this process.
                    self._due |= self._standing()
                    self._wake.set()
                    self._reached.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(backoff * random.uniform(0.5, 1.5)):
                            await self._reached.wait()
                    backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    def _standing(self) -> dict[Key, None]:
        return dict.fromkeys(key for key, (_, standing) in self._said.items() if standing is not None)

    async def _send(self, connection: Channel) -> None:
        stub = control_plane_service_pb2_grpc.ControlPlaneServiceStub(connection)
        while self._due:
            sent = {key: self._said[key] for key in list(self._due)[:MAX_STATUSES]}
            request = control.ReportStatusesRequest(
                cell=self._reporter.cell, component=self._reporter.component, instance=self._reporter.instance
            )
            for (kind, name), (generation, standing) in sent.items():
                status = request.statuses.add(kind=kind, name=name).status
                status.observed_generation = generation
                status.conditions.extend([_condition(standing)] if standing is not None else ())
            await stub.ReportStatuses(request, timeout=CALL_SECONDS)
            for key, said in sent.items():
                if self._said.get(key, said) == said:
                    self._due.pop(key, None)


def _next_repeat() -> float:
    return asyncio.get_running_loop().time() + REPEAT_SECONDS * random.uniform(0.8, 1.0)


def _condition(standing: Standing) -> resource_pb2.Condition:
    message = standing.message if len(standing.message) <= MESSAGE_LENGTH else f"{standing.message[:MESSAGE_LENGTH]}..."
    status = "Unknown" if standing.holds is None else str(standing.holds)
    return resource_pb2.Condition(type=standing.aspect, status=status, reason=standing.reason, message=message)


def instance_of(state_dir: Path) -> str:
    """What tells this process from others of its kind: made once for its folder, which survives restarts."""
    file = state_dir / "instance"
    if not file.exists():
        write_atomically(file, uuid.uuid4().hex[:8].encode())
    return file.read_text()
