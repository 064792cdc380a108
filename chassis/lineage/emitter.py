"""Emission of lineage: beside the work of a process, never in its way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from chassis.clock import Clock
from chassis.config import ServiceConfig
from chassis.errors import ArterialError, Reason
from chassis.lineage.definition import JobDefinition, Ownership
from chassis.logs import logger
from chassis.process import Context

# What waits to be sent at most: a process has far fewer jobs; beyond it something names jobs without end.
MAX_PENDING = 2_000
MAX_EVENTS = 200
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 30.0
PUT_SECONDS = 10.0
# A process that ends gives what is left this long.
FLUSH_SECONDS = 2.0
Statement = JobDefinition | Ownership
_log = logger(__name__)


class Lineage:
    """Tells the lineage service what this process reads and makes. Any thread may emit; nothing here blocks or raises."""

    def __init__(self, address: str | None, cell: str, clock: Clock) -> None:
        self._address = address
        self._cell = cell
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # By subject: the newest statement (or how to make it) with the time of its emission; what was last sent.
        self._pending: dict[str, tuple[Statement | Callable[[], Statement], float]] = {}
        self._sent: dict[str, Statement] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def emit(self, definition: JobDefinition) -> None:
        """Sends the definition if it differs from what this process last sent for the job."""
        self._hand_over(f"job {definition.name}", definition)

    def emit_from(self, name: str, make: Callable[[], JobDefinition]) -> None:
        """As `emit`, for a definition of job `name` that takes time to make (SQL): it is made in the background, its errors are logged."""
        self._hand_over(f"job {name}", make)

    def end(self, name: str) -> None:
        """Says of a job that it reads and makes nothing any more."""
        self.emit(JobDefinition(name, (), ()))

    def declare(self, ownership: Ownership) -> None:
        """Sends who answers for a dataset, if it differs from what this process last sent."""
        self._hand_over(f"dataset {ownership.dataset}", ownership)

    def _hand_over(self, subject: str, statement: Statement | Callable[[], Statement]) -> None:
        if self._address is not None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._note, subject, statement, self._clock.now())

    def _note(self, subject: str, statement: Statement | Callable[[], Statement], at: float) -> None:
        if self._sent.get(subject) == statement:
            self._pending.pop(subject, None)
        elif len(self._pending) >= MAX_PENDING and subject not in self._pending:
            _log.error("lineage is not told: too much waits to be sent", subject=subject, pending=len(self._pending))
        else:
            self._pending[subject] = (statement, at)
            self._idle.clear()
            self._wake.set()

    async def run(self) -> None:
        """Sends what is emitted, until cancelled."""
        backoff = MIN_BACKOFF_SECONDS
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                taken = dict(list(self._pending.items())[:MAX_EVENTS])
                if await self._send(taken):
                    backoff = MIN_BACKOFF_SECONDS
                    continue
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            self._idle.set()

    async def flush(self) -> None:
        """Gives what is left a moment to be sent."""
        await asyncio.sleep(0)  # what other threads handed over is noted first
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), FLUSH_SECONDS)
        if self._pending:
            _log.warning("lineage not told before the end", subjects=sorted(self._pending)[:10])

    async def _send(self, taken: dict[str, tuple[Statement | Callable[[], Statement], float]]) -> bool:
        """True if what was taken is done with: sent, or unfit to be sent."""
        made = await asyncio.to_thread(self._made, taken)
        for subject, entry in taken.items():
            if subject not in made and self._pending.get(subject) is entry:
                del self._pending[subject]  # no news, or unfit
        try:
            await self._put([event for _, event in made.values()])
        except ArterialError as error:
            _log.info("lineage service away, trying again", error=str(error), pending=len(self._pending))
            return False
        for subject, (statement, _) in made.items():
            self._sent[subject] = statement
            if self._pending.get(subject) is taken[subject]:
                del self._pending[subject]
        return True

    def _made(self, taken: dict[str, tuple[Statement | Callable[[], Statement], float]]) -> dict[str, tuple[Statement, str]]:
        """Statements and events that are news (in a thread: the first event loads OpenLineage's classes, SQL its parser)."""
        from chassis.lineage.events import job_event, ownership_event

        made: dict[str, tuple[Statement, str]] = {}
        for subject, (given, at) in taken.items():
            try:
                statement = given() if callable(given) else given
                if self._sent.get(subject) == statement:
                    continue
                build = job_event if isinstance(statement, JobDefinition) else ownership_event
                made[subject] = (statement, build(statement, self._cell, at))  # type: ignore[arg-type]
            except Exception as error:  # lineage must never end a process that does its work
                _log.error("lineage cannot be told", subject=subject, error=repr(error)[:500])
        return made

    async def _put(self, events: Sequence[str]) -> None:
        """Sends events; of a refused batch all but the culprits. Raises the service's other errors."""
        if not events or self._address is None:
            return
        from arterial.api.lineage.v1alpha1 import lineage_service_pb2, lineage_service_pb2_grpc
        from chassis.rpc.client import channel

        # Tried again here, with longer pauses than a call's own.
        async with channel(self._address, attempts=1) as connection:
            stub = lineage_service_pb2_grpc.LineageServiceStub(connection)
            try:
                await stub.PutEvents(lineage_service_pb2.PutEventsRequest(events=events), timeout=PUT_SECONDS)
                return
            except ArterialError as error:
                if error.reason is not Reason.INVALID_REQUEST:
                    raise
                if len(events) == 1:
                    _log.error("lineage refused", violations=[f"{v.field}: {v.description}" for v in error.violations])
                    return
        for event in events:
            await self._put([event])


@asynccontextmanager
async def emitting(config: ServiceConfig, context: Context) -> AsyncIterator[Lineage]:
    """The emitter of a process; without `config.lineage` it sends nothing."""
    lineage = Lineage(config.lineage, config.cell.name, context.clock)
    if config.lineage is None:
        yield lineage
        return
    sending = asyncio.create_task(lineage.run())
    try:
        yield lineage
        await lineage.flush()
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
