"""Finds the runs that a worker may take, and makes place for those that find none, within a transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.tiers import TIERS
from services.controlplane.jobs import packing, runs
from services.controlplane.jobs.packing import RESERVED, Room
from services.controlplane.jobs.rows import run_of, save
from services.controlplane.jobs.runs import Capacity, Lease, Run
from services.controlplane.tables import RUNS, now_of

# Runs that are looked at in one transaction: it stays short, however many wait.
BATCH = 100
# Candidates that the gate is asked for at once: most often the first one may run.
LOOK = 5
OPEN = sa.text("runs.state IN ('PENDING', 'SUSPENDED', 'RUNNING')")
_PENDING = sa.text("runs.state = 'PENDING'")
_RUNNING = sa.text("runs.state = 'RUNNING'")


async def one_at_a_time(connection: AsyncConnection, cell: str) -> None:
    """Queues this transaction behind others that give out runs of the cell: what is running, and where, then stands still."""
    name = f"runs/{cell}"
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))


async def candidates(connection: AsyncConnection, lease: Lease, cell: str, free: Capacity, now: datetime) -> list[Run]:
    """Runs that the worker could take if the gate lets them, in the order in which it should; at most twice BATCH.

    Suspended ones are not among them: verdicts release them at once (`reconsider_partitions`).
    """
    room = packing.room_of(lease.worker_has, free, await _reserved(connection, lease, cell, now))
    limits = await _within_limits(connection, now, cell)
    fitting = sa.select(RUNS).where(RUNS.c.cell == cell, RUNS.c.kind.in_(lease.kinds), _fits(room), limits)
    # One query by the order of an index, however many wait; and one of the few whose worker is gone.
    waiting = fitting.where(_PENDING, RUNS.c.due_at <= now).order_by(RUNS.c.tier, RUNS.c.number).limit(BATCH)
    left = fitting.where(_RUNNING, RUNS.c.lease_expires_at <= now).order_by(RUNS.c.number).limit(BATCH)
    found = [run_of(row) for query in (waiting, left) for row in (await connection.execute(query)).all()]
    ordered = packing.order(found, lease.worker_has, now)
    held = await _held_for(connection, lease, cell, room, now)
    if held is None:
        return ordered
    first = [run for run in ordered if run.number == held.number]
    return first or [run for run in ordered if run.terms.tier < held.terms.tier]


async def make_place(engine: AsyncEngine) -> None:
    """Stops runs of tier 3 for those of tier 1 that found no worker for a while."""
    async with engine.connect() as connection:
        unplaced = _unplaced(await now_of(connection)).with_only_columns(RUNS.c.cell).distinct()
        cells = (await connection.scalars(unplaced)).all()
    for cell in cells:
        async with engine.begin() as connection:
            await one_at_a_time(connection, cell)
            now = await now_of(connection)
            query = _unplaced(now).where(RUNS.c.cell == cell, await _within_limits(connection, now, cell))
            for waiting in await _locked(connection, query.order_by(RUNS.c.number).limit(BATCH)):
                running = await _locked(connection, sa.select(RUNS).where(_RUNNING, RUNS.c.cell == cell))
                offer = packing.preemption(waiting, running, now)
                if offer is not None:
                    await save(connection, waiting, runs.placed(waiting, offer.worker, now))
                    for victim in offer.victims:
                        await save(connection, victim, runs.preempted(victim, waiting, now))


def _unplaced(now: datetime) -> sa.Select[Any]:
    """Runs of tier 1 that have waited for a worker, and for which none keeps a place."""
    waited = now - timedelta(seconds=packing.PREEMPT_AFTER_SECONDS)
    lapsed = sa.or_(RUNS.c.made_place_at.is_(None), RUNS.c.made_place_at <= now - timedelta(seconds=packing.HOLD_SECONDS))
    return sa.select(RUNS).where(_PENDING, RUNS.c.tier.in_(RESERVED), RUNS.c.due_at <= waited, lapsed)


async def _held_for(connection: AsyncConnection, lease: Lease, cell: str, room: Room, now: datetime) -> Run | None:
    """The run that the worker keeps a place for; a starving one that no worker keeps a place for gets it here."""
    if room.total == Capacity():
        return None
    wanted = (_PENDING, RUNS.c.cell == cell, RUNS.c.kind.in_(lease.kinds), await _within_limits(connection, now, cell))
    mine = sa.select(RUNS).where(*wanted, RUNS.c.place_worker == lease.worker)
    rows = (await connection.execute(mine.order_by(RUNS.c.tier, RUNS.c.number).limit(BATCH))).all()
    held = [run for run in map(run_of, rows) if packing.holds(run, lease.worker, now)]
    if held:
        return held[0]
    starving = now - timedelta(seconds=packing.STARVING_SECONDS)
    whole = packing.room_of(room.total, room.total)
    query = sa.select(RUNS).where(*wanted, RUNS.c.due_at <= starving, _fits(whole), ~_fits(room))
    query = query.order_by(RUNS.c.tier, RUNS.c.number).limit(BATCH)
    for run in await _locked(connection, query):
        if packing.place_lapsed(run, now):
            placed = runs.placed(run, lease.worker, now)
            await save(connection, run, placed)
            return placed
    return None


async def _within_limits(connection: AsyncConnection, now: datetime, cell: str) -> sa.ColumnElement[bool]:
    """The condition of runs of the cell for which no more of their kind and subject are running than they allow."""
    query = sa.select(RUNS.c.kind, RUNS.c.subject, sa.func.count().label("running"))
    query = query.where(_RUNNING, RUNS.c.cell == cell, RUNS.c.lease_expires_at > now).group_by(RUNS.c.kind, RUNS.c.subject)
    rows = (await connection.execute(query)).all()
    if not rows:
        return sa.true()
    # Counted first, and then a list: a join of both made the planner count anew for every run that waits.
    columns: list[sa.ColumnClause[Any]] = [sa.column("kind", sa.Text), sa.column("subject", sa.Text), sa.column("running", sa.Integer)]
    lists = [sa.cast([row[place] for row in rows], ARRAY(column.type)) for place, column in enumerate(columns)]
    busy = sa.func.unnest(*lists).table_valued(*columns, name="busy").render_derived()
    limit = RUNS.c.max_concurrent
    full = sa.and_(busy.c.kind == RUNS.c.kind, busy.c.subject == RUNS.c.subject, limit > 0, limit <= busy.c.running)
    return ~sa.exists(sa.select(sa.literal(1)).select_from(busy).where(full))


async def _reserved(connection: AsyncConnection, lease: Lease, cell: str, now: datetime) -> Capacity:
    """What the worker's runs of reserved tiers use."""
    if lease.worker_has == Capacity():
        return Capacity()
    query = sa.select(sa.func.coalesce(sa.func.sum(RUNS.c.memory_mib), 0), sa.func.coalesce(sa.func.sum(RUNS.c.cpu_milli), 0))
    query = query.where(_RUNNING, RUNS.c.cell == cell, RUNS.c.worker == lease.worker, RUNS.c.tier.in_(RESERVED))
    memory, cpu = (await connection.execute(query.where(RUNS.c.lease_expires_at > now))).one()
    return Capacity(int(memory), int(cpu))


def _fits(room: Room) -> sa.ColumnElement[bool]:
    """`packing.fits`, as a condition."""

    def within(tier: int) -> sa.ColumnElement[bool]:
        has = room.usable(tier)
        conditions = [RUNS.c.memory_mib <= has.memory_mib] if room.total.memory_mib else []
        conditions += [RUNS.c.cpu_milli <= has.cpu_milli] if room.total.cpu_milli else []
        return sa.and_(RUNS.c.tier == tier, *conditions)

    return sa.or_(*map(within, TIERS))


async def _locked(connection: AsyncConnection, query: sa.Select[Any]) -> Sequence[Run]:
    rows = (await connection.execute(query.with_for_update(of=RUNS, skip_locked=True))).all()
    return [run_of(row) for row in rows]
