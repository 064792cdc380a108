"""Runs in PostgreSQL. Rows are held while a transition is decided, so that replicas and workers never see half of one."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.errors import ArterialError, Reason
from chassis.resources import key_told
from services.controlplane.jobs import gating, runs, taking
from services.controlplane.jobs.rows import add, run_of, save
from services.controlplane.jobs.runs import Capacity, Input, Lease, Outcome, Run, RunState, Terms
from services.controlplane.jobs.taking import BATCH, LOOK, OPEN
from services.controlplane.resources import retention
from services.controlplane.resources.store import lock, of_kind
from services.controlplane.tables import RUN_LOG, RUNS, now_of

# Lines of a run and characters of a line that are kept: a worker that prints in a loop must not fill the database.
MAX_LOG_LINES, MAX_LINE_CHARACTERS = 10_000, 4096


@dataclass(frozen=True)
class RunRequest:
    """What is asked to run."""

    kind: str
    subject: str
    cell: str
    partition_date: date
    terms: Terms = field(default_factory=Terms)
    again: bool = False
    inputs: tuple[Input, ...] = ()
    produces: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFilter:
    """Which runs are listed; empty for all."""

    kind: str = ""
    subject: str = ""
    state: str = ""
    schedule: str = ""


@dataclass(frozen=True)
class LogLine:
    """A line of a run's log; `line` counts from 0."""

    line: int
    attempt: int
    written_at: datetime
    text: str


class RunStore:
    """Creates, gives out and ends runs."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # Workers of one process queue up here, not with a connection in hand.
        self._giving: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(self, request: RunRequest) -> tuple[Run, bool]:
        """The run of a request, and whether it is new; the gate has been asked for it."""
        created, existing = await self._create([request])
        return (created or existing)[0], bool(created)

    async def create_range(self, request: RunRequest, last: date) -> tuple[list[Run], int]:
        """Runs from the request's date to `last`: those that are new, and how many were there. Cut short, it may be repeated."""
        days = [request.partition_date + timedelta(days=more) for more in range((last - request.partition_date).days + 1)]
        made: list[Run] = []
        for start in range(0, len(days), BATCH):
            created, _ = await self._create([replace(request, partition_date=day) for day in days[start : start + BATCH]])
            made += created
        return made, len(days) - len(made)

    async def _create(self, requests: Sequence[RunRequest]) -> tuple[list[Run], list[Run]]:
        """Runs of requests that differ in their dates: those that are new, and those that were there."""
        one, days = requests[0], [request.partition_date for request in requests]
        same = (RUNS.c.kind == one.kind, RUNS.c.subject == one.subject, RUNS.c.cell == one.cell, RUNS.c.partition_date.in_(days))
        async with self._engine.begin() as connection:
            await _one_at_a_time(connection, one)
            order = RUNS.c.partition_date, sa.case((OPEN, 0), else_=1), RUNS.c.number.desc()
            newest = sa.select(RUNS).where(*same).distinct(RUNS.c.partition_date).order_by(*order)
            found = [run_of(row) for row in (await connection.execute(newest)).all()]
            existing = {run.partition_date: run for run in found if run.open or not one.again}
            now = await now_of(connection)
            new = [_new(request, now) for request in requests if request.partition_date not in existing]
            created = await gating.begun(connection, await add(connection, await gating.ranked(connection, new))) if new else []
        return created, list(existing.values())

    async def get(self, run_id: str) -> Run:
        """One run. Raises NOT_FOUND."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(sa.select(RUNS).where(RUNS.c.number == runs.number_of(run_id)))).first()
        return _existing(row, run_id)

    async def page(self, wanted: RunFilter, before: int | None, limit: int) -> list[Run]:
        """Runs numbered below `before` (None: all), newest first, at most `limit`."""
        query = sa.select(RUNS).order_by(RUNS.c.number.desc()).limit(limit)
        for name in ("kind", "subject", "state", "schedule"):
            value = getattr(wanted, name)
            query = query.where(RUNS.c[name] == value) if value else query
        query = query if before is None else query.where(RUNS.c.number < before)
        async with self._engine.connect() as connection:
            return [run_of(row) for row in (await connection.execute(query)).all()]

    async def log(self, run_id: str, after: int | None, limit: int) -> list[LogLine]:
        """Lines after a line (None: from the first), oldest first, at most `limit`. Raises NOT_FOUND."""
        run = await self.get(run_id)
        query = sa.select(RUN_LOG).where(RUN_LOG.c.run == run.number).order_by(RUN_LOG.c.line).limit(limit)
        query = query if after is None else query.where(RUN_LOG.c.line > after)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [LogLine(row.line, row.attempt, row.written_at, row.text) for row in rows]

    async def take(self, lease: Lease, cell: str, free: Capacity) -> Run | None:
        """The run of the lease's kinds that the worker should do next, held by the lease; None if there is none.

        Candidates are looked at without holding them, then held one by one: what another transaction holds is passed over.
        """
        async with self._giving[cell], self._engine.begin() as connection:
            await taking.one_at_a_time(connection, cell)
            now = await now_of(connection)
            found = await taking.candidates(connection, lease, cell, free, now)
            for start in range(0, len(found), LOOK):
                for number in await _that_may_run(connection, found[start : start + LOOK], now):
                    for run in await _settled(connection, [number], now):
                        if run.state is RunState.PENDING and run.due_at <= now:
                            taken = runs.taken(run, lease, now)
                            await save(connection, run, taken)
                            return taken
        return None

    async def keep(self, run_id: str, lease: str, log: Sequence[str]) -> Run:
        """Extends the lease and adds to the log. Raises NOT_FOUND or CONFLICT."""
        return await self._change(run_id, lambda run, now: runs.kept(run, lease, now), log)

    async def finish(self, run_id: str, lease: str, outcome: Outcome, log: Sequence[str]) -> Run:
        """Ends an attempt. Raises NOT_FOUND or CONFLICT."""
        return await self._change(run_id, lambda run, now: runs.finished(run, lease, outcome, now), log)

    async def cancel(self, run_id: str, reason: str) -> Run:
        """Ends a run that has not ended. Raises NOT_FOUND."""
        return await self._change(run_id, lambda run, now: runs.cancelled(run, reason, now), ())

    async def retry(self, run_id: str, actor: str, reason: str) -> Run:
        """Does a run that failed or was cancelled again. Raises NOT_FOUND, REFUSED."""
        asked, why = await self.get(run_id), f"retried by {actor or 'somebody'}: {reason}"
        async with self._engine.begin() as connection:
            if asked.kind in retention.DROPS:
                await _refuse_declared(connection, asked)
            await _one_at_a_time(connection, asked)
            await gating.hold(connection, asked.cell)
            (before,) = await _held(connection, sa.select(RUNS).where(RUNS.c.number == asked.number), skip=False)
            now = await now_of(connection)
            after = runs.retried(before, why, now)
            if after == before:
                return before
            await _refuse_older(connection, before)
            await save(connection, before, after)
            await _write_log(connection, before, [why], now)
            return (await gating.asked(connection, [after]))[0]

    async def expire(self) -> None:
        """Ends attempts whose lease or time ran out."""
        over = RUNS.c.started_at + sa.func.make_interval(0, 0, 0, 0, 0, 0, RUNS.c.timeout_seconds)
        late = sa.or_(RUNS.c.lease_expires_at <= sa.func.now(), sa.and_(RUNS.c.timeout_seconds > 0, over <= sa.func.now()))
        await self._look_at(sa.and_(sa.text("runs.state = 'RUNNING'"), late))

    async def reconsider(self) -> None:
        """Looks at all open runs once: leases that ran out, and the gate."""
        await self._look_at(OPEN)

    async def _look_at(self, which: sa.ColumnElement[bool] | sa.TextClause) -> None:
        """Only runs that change are held."""
        last = 0
        while True:
            async with self._engine.begin() as connection:
                now = await now_of(connection)
                query = sa.select(RUNS).where(which, RUNS.c.number > last).order_by(RUNS.c.number).limit(BATCH)
                found = [run_of(row) for row in (await connection.execute(query)).all()]
                after = await _foreseen(connection, found, now)
                await _settled(connection, [new.number for old, new in zip(found, after, strict=True) if new != old], now)
            if len(found) < BATCH:
                return
            last = found[-1].number

    async def _change(self, run_id: str, change: Callable[[Run, datetime], Run], log: Sequence[str]) -> Run:
        async with self._engine.begin() as connection:
            row = (await connection.execute(sa.select(RUNS).where(RUNS.c.number == runs.number_of(run_id)).with_for_update())).first()
            before = _existing(row, run_id)
            now = await now_of(connection)
            after = change(before, now)
            await save(connection, before, after)
            if after != before:
                # Unchanged is what a repeated FinishRun, or a KeepRun of a cancelled run, leaves: its lines are there, or of no attempt.
                await _write_log(connection, before, log, now)
            return after


async def reconsider_partitions(connection: AsyncConnection, cell: str, first: date) -> None:
    """Asks the gate for the open runs of a cell whose own date is not before `first`, within the transaction that marked partitions.

    It waits for rows that others hold: a run that is being taken at this moment is seen as running, and suspended. Marks are written before
    runs are held, and TakeRun holds a run before it reads marks: one of the two sees the other.
    """
    last = 0
    while True:
        query = sa.select(RUNS).where(OPEN, RUNS.c.cell == cell, RUNS.c.partition_date >= first, RUNS.c.number > last)
        held = await _held(connection, query.order_by(RUNS.c.number).limit(BATCH), skip=False)
        await gating.asked(connection, held)
        if len(held) < BATCH:
            return
        last = held[-1].number


async def _one_at_a_time(connection: AsyncConnection, of: RunRequest | Run) -> None:
    """Queues this transaction behind others that ask for runs of the same kind, subject and cell."""
    name = f"run/{of.kind}/{of.subject}/{of.cell}"
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))


async def _refuse_declared(connection: AsyncConnection, run: Run) -> None:
    """Raises REFUSED if the data that a run drops are those of what is declared; until the end of the transaction nothing else is."""
    await lock(connection)
    _, name = key_told(run.subject)
    for kind in sorted(retention.WITH_CURATED):
        if name in await of_kind(connection, kind, [name]):
            raise ArterialError(Reason.REFUSED, f"{kind}/{name} is declared: {run.run_id} would drop its data")


async def _refuse_older(connection: AsyncConnection, run: Run) -> None:
    """Raises REFUSED if another was asked for since: what that made, or when it is due, counts."""
    same = [RUNS.c.kind == run.kind, RUNS.c.subject == run.subject, RUNS.c.cell == run.cell, RUNS.c.number > run.number]
    if run.kind not in retention.DROPS:
        same.append(RUNS.c.partition_date == run.partition_date)
    newest = await connection.scalar(sa.select(sa.func.max(RUNS.c.number)).where(*same))
    if newest is not None:
        raise ArterialError(Reason.REFUSED, f"run-{newest} was asked for since: {run.run_id} is not done again")


def _new(request: RunRequest, now: datetime) -> Run:
    return Run(
        request.kind,
        request.subject,
        request.cell,
        request.partition_date,
        now,
        now,
        terms=request.terms,
        inputs=request.inputs,
        produces=request.produces,
    )


async def _that_may_run(connection: AsyncConnection, found: Sequence[Run], now: datetime) -> list[int]:
    """Numbers of those that are, or would be if they were looked at, pending."""
    after = await _foreseen(connection, found, now)
    return [before.number for before, then in zip(found, after, strict=True) if then != before or then.state is RunState.PENDING]


async def _foreseen(connection: AsyncConnection, found: Sequence[Run], now: datetime) -> list[Run]:
    return await gating.weighed(connection, [runs.expired(run, now) for run in found])


async def _settled(connection: AsyncConnection, numbers: Sequence[int], now: datetime) -> list[Run]:
    """The runs, held and looked at anew; those that another transaction holds are passed over: it decides by itself."""
    if not numbers:
        return []
    query = sa.select(RUNS).where(RUNS.c.number.in_(numbers)).order_by(RUNS.c.number)
    held = await _held(connection, query, skip=True)
    over = [runs.expired(run, now) for run in held]
    for old, new in zip(held, over, strict=True):
        await save(connection, old, new)
    return await gating.asked(connection, over)


async def _held(connection: AsyncConnection, query: sa.Select[tuple[object, ...]], *, skip: bool) -> list[Run]:
    return [run_of(row) for row in (await connection.execute(query.with_for_update(skip_locked=skip))).all()]


async def _write_log(connection: AsyncConnection, run: Run, log: Sequence[str], now: datetime) -> None:
    if not log:
        return
    start = int(await connection.scalar(sa.select(RUNS.c.log_lines).where(RUNS.c.number == run.number)) or 0)
    kept = [_shortened(line) for line in log[: max(0, MAX_LOG_LINES - start)]]
    if start < MAX_LOG_LINES <= start + len(log):
        kept[-1] = f"the log is full: lines after the first {MAX_LOG_LINES - 1} are not kept"
    lines = [
        {"run": run.number, "line": start + place, "attempt": run.attempt, "written_at": now, "text": text}
        for place, text in enumerate(kept)
    ]
    if lines:
        await connection.execute(sa.insert(RUN_LOG), lines)
        await connection.execute(sa.update(RUNS).where(RUNS.c.number == run.number).values(log_lines=start + len(lines)))


def _shortened(line: str) -> str:
    return line if len(line) <= MAX_LINE_CHARACTERS else line[: MAX_LINE_CHARACTERS - 1] + "…"


def _existing(row: sa.Row[tuple[object, ...]] | None, run_id: str) -> Run:
    if row is None:
        raise ArterialError(Reason.NOT_FOUND, f"run {run_id} does not exist")
    return run_of(row)
