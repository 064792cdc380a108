"""Runs in PostgreSQL. Rows are held while a transition is decided, so that replicas and workers never see half of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.errors import ArterialError, Reason
from services.controlplane import gating, runs
from services.controlplane.rows import add, run_of, save
from services.controlplane.runs import Input, Lease, Outcome, Run, RunState, Terms
from services.controlplane.tables import DATABASE_TIME, RUN_LOG, RUNS

# Open runs that are looked at in one transaction: it stays short, however many wait.
BATCH = 100
# Lines of a run and characters of a line that are kept: a worker that prints in a loop must not fill the database.
MAX_LOG_LINES, MAX_LINE_CHARACTERS = 10_000, 4096
_WAITING = (str(RunState.PENDING), str(RunState.SUSPENDED))
_OPEN = sa.text("state IN ('PENDING', 'SUSPENDED', 'RUNNING')")


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

    async def create(self, request: RunRequest) -> tuple[Run, bool]:
        """The run of a request, and whether it is new; the gate has been asked for it."""
        same = sa.and_(
            RUNS.c.kind == request.kind,
            RUNS.c.subject == request.subject,
            RUNS.c.cell == request.cell,
            RUNS.c.partition_date == request.partition_date,
        )
        async with self._engine.begin() as connection:
            name = f"run/{request.kind}/{request.subject}/{request.cell}/{request.partition_date}"
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))
            row = (await connection.execute(sa.select(RUNS).where(same).order_by(RUNS.c.number.desc()).limit(1))).first()
            if row is not None and (run_of(row).open or not request.again):
                return run_of(row), False
            now = await _now(connection)
            new = Run(
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
            (run,) = await gating.asked(connection, await add(connection, [new]))
            return run, True

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

    async def take(self, lease: Lease, cell: str, kinds: Sequence[str]) -> Run | None:
        """The oldest run of these kinds that may run, held by the lease; None if there is none.

        Candidates are looked at without holding them, then held one by one: a worker that looks keeps no run from another. Suspended ones
        come last: verdicts release them at once (`reconsider_partitions`), so that one found here is an exception.
        """
        async with self._engine.begin() as connection:
            now = await _now(connection)
            ran_out = sa.and_(RUNS.c.state == str(RunState.RUNNING), RUNS.c.lease_expires_at <= now)
            due = sa.or_(sa.and_(RUNS.c.state.in_(_WAITING), RUNS.c.due_at <= now), ran_out)
            query = sa.select(RUNS).where(_OPEN, RUNS.c.cell == cell, RUNS.c.kind.in_(kinds), due)
            query = query.order_by(RUNS.c.state == str(RunState.SUSPENDED), RUNS.c.number).limit(BATCH)
            found = [run_of(row) for row in (await connection.execute(query)).all()]
            for before, after in zip(found, await _foreseen(connection, found, now), strict=True):
                if after != before or after.state is RunState.PENDING:
                    for run in await _settled(connection, [before.number], now):
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

    async def reconsider(self) -> None:
        """Looks at all open runs once: leases that ran out, and the gate. Only runs that change are held."""
        last = 0
        while True:
            async with self._engine.begin() as connection:
                now = await _now(connection)
                query = sa.select(RUNS).where(_OPEN, RUNS.c.number > last).order_by(RUNS.c.number).limit(BATCH)
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
            now = await _now(connection)
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
        query = sa.select(RUNS).where(_OPEN, RUNS.c.cell == cell, RUNS.c.partition_date >= first, RUNS.c.number > last)
        held = await _held(connection, query.order_by(RUNS.c.number).limit(BATCH), skip=False)
        await gating.asked(connection, held)
        if len(held) < BATCH:
            return
        last = held[-1].number


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


async def _now(connection: AsyncConnection) -> datetime:
    now: datetime = (await connection.execute(sa.select(DATABASE_TIME))).scalar_one()
    return now


def _existing(row: sa.Row[tuple[object, ...]] | None, run_id: str) -> Run:
    if row is None:
        raise ArterialError(Reason.NOT_FOUND, f"run {run_id} does not exist")
    return run_of(row)
