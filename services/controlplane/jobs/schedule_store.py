"""Makes the runs of schedules in PostgreSQL: a tick and its run are one transaction, and a key sees to it that a tick has one run."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from services.controlplane.jobs import conversion, gating, schedules, taking
from services.controlplane.jobs.election import SILENT_SECONDS
from services.controlplane.jobs.rows import add
from services.controlplane.jobs.runs import Input, Run
from services.controlplane.jobs.schedules import Decision, Tick
from services.controlplane.partitions.partitions import PartitionState
from services.controlplane.resources.store import RESOURCES
from services.controlplane.tables import PARTITION_CELLS, PARTITIONS, RUNS, SCHEDULE_POSITIONS, now_of

# More schedules than these are looked at in several queries.
BATCH = 1000
# Open runs of a schedule: the rest of a long backfill is made as these end, so that one from the year 1970 does not fill the database.
MAX_OPEN = 1000


@dataclass(frozen=True)
class Made:
    """What a step made; `more` if there is more to make at once, `held` if there may be once some of its runs have ended."""

    runs: Sequence[Run]
    more: bool
    held: bool
    # Time of the database when it was looked at.
    at: datetime


class ScheduleStore:
    """Reads declared schedules and makes their runs."""

    def __init__(self, engine: AsyncEngine, *, max_open: int = MAX_OPEN) -> None:
        self._engine = engine
        self._max_open = max_open

    async def declared(self) -> list[resource_pb2.Resource]:
        """All schedules that are not paused, by name."""
        found: list[resource_pb2.Resource] = []
        last = ""
        async with self._engine.connect() as connection:
            while True:
                query = sa.select(RESOURCES.c.name, RESOURCES.c.body).where(RESOURCES.c.kind == "Schedule", RESOURCES.c.name > last)
                rows = (await connection.execute(query.order_by(RESOURCES.c.name).limit(BATCH))).all()
                found += [resource_pb2.Resource.FromString(row.body) for row in rows]
                if len(rows) < BATCH:
                    return [resource for resource in found if not resource.schedule.paused]
                last = rows[-1].name

    async def revisions(self) -> dict[str, int]:
        """The last change of the partitions of every cell."""
        async with self._engine.connect() as connection:
            return {row.cell: row.revision for row in (await connection.execute(sa.select(PARTITION_CELLS))).all()}

    async def forget(self) -> None:
        """Drops what is known of schedules that are no longer declared; their runs stay, and keep their ticks from coming again."""
        declared = sa.select(RESOURCES.c.name).where(RESOURCES.c.kind == "Schedule")
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(SCHEDULE_POSITIONS).where(SCHEDULE_POSITIONS.c.schedule.not_in(declared)))

    async def make_place(self) -> None:
        """Stops runs of tier 3 for those of tier 1 that found no worker."""
        await taking.make_place(self._engine)

    async def make(self, resource: resource_pb2.Resource) -> Made:
        """Makes the runs that are due, at most MAX_TICKS. A process that hangs meanwhile holds its rows no longer than its office."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.text(f"SET LOCAL idle_in_transaction_session_timeout = '{SILENT_SECONDS}s'"))
            now = await now_of(connection)
            if await _open(connection, resource.metadata.name, self._max_open) > self._max_open - schedules.MAX_TICKS:
                return Made((), more=False, held=True, at=now)
            if resource.schedule.WhichOneof("trigger") == "cron":
                ticks, more = await _ticks_of_clock(connection, resource, now)
            else:
                ticks = await _ticks_of_data(connection, resource, now)
                more = len(ticks) == schedules.MAX_TICKS
            made = await add(connection, await gating.ranked(connection, [_run(resource, tick, now) for tick in ticks]))
            return Made(await gating.begun(connection, made) if made else (), more, held=False, at=now)


async def _open(connection: AsyncConnection, name: str, most: int) -> int:
    """Open runs of a schedule, counted up to so many."""
    some = sa.select(RUNS.c.number).where(RUNS.c.schedule == name, taking.OPEN).limit(most).subquery()
    return int(await connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0)


async def _ticks_of_clock(connection: AsyncConnection, resource: resource_pb2.Resource, now: datetime) -> tuple[Sequence[Tick], bool]:
    name, spec = resource.metadata.name, resource.schedule
    query = sa.select(SCHEDULE_POSITIONS).where(SCHEDULE_POSITIONS.c.schedule == name).with_for_update()
    known = (await connection.execute(query)).first()
    walked = None if known is None else (known.start_date, known.position)
    position = schedules.position_of(spec, resource.metadata.created_at.ToDatetime(tzinfo=UTC), walked, now)
    # Years of ticks take a while to walk through: not on the loop.
    decided: Decision = await asyncio.to_thread(schedules.decide, spec, position, now)
    values = {"start_date": spec.start_date, "position": decided.position}
    statement = insert(SCHEDULE_POSITIONS).values(schedule=name, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["schedule"], set_=values))
    return decided.ticks, len(decided.ticks) == schedules.MAX_TICKS


async def _ticks_of_data(connection: AsyncConnection, resource: resource_pb2.Resource, now: datetime) -> list[Tick]:
    """Dates whose partitions are ready in every dataset and that have no run of this schedule yet."""
    spec, day, ready_at = resource.schedule, PARTITIONS.c.partition_date, sa.func.max(PARTITIONS.c.state_changed_at)
    tick = sa.func.timezone("UTC", sa.cast(day, sa.TIMESTAMP))
    done = sa.exists().where(RUNS.c.schedule == resource.metadata.name, RUNS.c.scheduled_for == tick)
    query = (
        sa.select(day)
        .where(PARTITIONS.c.cell == spec.cell, PARTITIONS.c.dataset.in_(spec.data.datasets))
        .where(PARTITIONS.c.state == str(PartitionState.READY))
        .group_by(day)
        .having(sa.func.count() == len(spec.data.datasets), ~done)
    )
    if spec.start_date:
        query = query.where(day >= date.fromisoformat(spec.start_date))
    else:
        query = query.having(ready_at > resource.metadata.created_at.ToDatetime(tzinfo=UTC))
    query = query.where(day <= date.fromisoformat(spec.end_date)) if spec.end_date else query
    if spec.catch_up == specs_pb2.CATCH_UP_LATEST:
        newest = sa.select(sa.func.max(RUNS.c.scheduled_for)).where(RUNS.c.schedule == resource.metadata.name).scalar_subquery()
        later = tick > sa.func.coalesce(newest, sa.func.to_timestamp(0))
        query = query.having(later).order_by(day.desc()).limit(1)
    elif spec.catch_up == specs_pb2.CATCH_UP_NONE:
        query = query.having(ready_at > now - timedelta(seconds=schedules.MISSED_SECONDS)).order_by(day).limit(schedules.MAX_TICKS)
    else:
        query = query.order_by(day).limit(schedules.MAX_TICKS)
    return [Tick(datetime.combine(found, time(), tzinfo=UTC), found) for found in (await connection.scalars(query)).all()]


def _run(resource: resource_pb2.Resource, tick: Tick, now: datetime) -> Run:
    spec = resource.schedule
    read = [Input(dataset, 1) for dataset in spec.data.datasets]
    return Run(
        spec.run_kind,
        spec.subject,
        spec.cell,
        tick.day,
        now,
        now,
        terms=conversion.terms(spec.terms),
        schedule=resource.metadata.name,
        scheduled_for=tick.at,
        inputs=tuple(dict.fromkeys((*conversion.inputs(spec.inputs), *read))),
        produces=tuple(spec.outputs),
    )
