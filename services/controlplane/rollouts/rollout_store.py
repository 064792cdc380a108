"""Moves rollouts on: looks at what the cells report, and shows a change to the next one, or stops it."""

import asyncio
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason
from chassis.logs import logger
from chassis.process import Context
from chassis.resources import Key
from services.controlplane.resources import store
from services.controlplane.rollouts import rollout_rows, rollouts
from services.controlplane.rollouts.rollout_rows import ROLLOUTS
from services.controlplane.rollouts.rollouts import OPEN, Rollout, RolloutState, Terms, UnderWay
from services.controlplane.tables import now_of
from services.controlplane.watch.status_store import REPORTS
from services.controlplane.watch.statuses import Reporter

# A cell's health is looked at this often while a change waits for it.
INTERVAL_SECONDS = 1.0
_log = logger(__name__)


class RolloutStore:
    """Rollouts in PostgreSQL. Replicas may move them at once: each move is decided under the lock of all changes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, start: int, end: int) -> tuple[list[Rollout], int]:
        """Rollouts, newest first, and how many there are."""
        async with self._engine.connect() as connection:
            total = await connection.scalar(sa.select(sa.func.count()).select_from(ROLLOUTS))
            query = sa.select(ROLLOUTS).order_by(ROLLOUTS.c.started_at.desc(), ROLLOUTS.c.kind, ROLLOUTS.c.name)
            rows = (await connection.execute(query.offset(start).limit(end - start))).all()
        return [rollout_rows.rollout(row) for row in rows], int(total or 0)

    async def under_way(self, key: Key | None = None) -> list[UnderWay]:
        """Rollouts that can be aborted: all, or that of a resource; of one that was aborted nothing.

        Raises:
            ArterialError: NOT_FOUND if there is none of the resource, REFUSED if it is done.
        """
        async with self._engine.connect() as connection:
            # One state for both: who writes over these versions takes back nothing else.
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            rows = await (rollout_rows.under_way(connection) if key is None else rollout_rows.of(connection, [key]))
            if key is not None:
                _refuse_settled(key, rows.get(key))
            # What was new in some cells and is removed from these goes as it went; there is nothing to go back to.
            found = {each: row for each, row in rows.items() if row.state in OPEN and not (row.removal and row.former is None)}
            versions = {each: await _version_of(connection, each) for each, row in found.items() if not row.removal}
        formers = {each: resource_pb2.Resource.FromString(row.former) for each, row in found.items() if row.former is not None}
        return [UnderWay(each, versions.get(each, 0), formers.get(each)) for each in sorted(found)]

    async def run(self, terms: Terms, context: Context) -> None:
        """Moves them until the process stops."""
        while not context.stopping.is_set():
            try:
                await self.move(terms)
            except (OSError, SQLAlchemyError) as error:
                _log.warning("store away, rollouts wait", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), INTERVAL_SECONDS)

    async def move(self, terms: Terms) -> None:
        """Looks at each that is under way."""
        async with self._engine.connect() as connection:
            running = (await connection.execute(sa.select(ROLLOUTS).where(ROLLOUTS.c.state == str(RolloutState.RUNNING)))).all()
            due = [row for row in running if await _judged(connection, row, terms) != rollout_rows.rollout(row)]
        for row in due:
            async with self._engine.begin() as connection:
                await store.lock(connection)
                await _move(connection, (row.kind, row.name), terms)


async def _version_of(connection: AsyncConnection, key: Key) -> int:
    return int((await store.find(connection, *key)).metadata.resource_version)


def _refuse_settled(key: Key, row: "sa.Row[tuple[object, ...]] | None") -> None:
    what = "/".join(key)
    if row is None:
        raise ArterialError(Reason.NOT_FOUND, f"no change of {what} goes, or went, from cell to cell")
    if row.state == RolloutState.DONE:
        change = "the removal" if row.removal else f"generation {row.generation}"
        raise ArterialError(Reason.REFUSED, f"{change} of {what} was shown to all cells: roll the resource back instead")


async def _move(connection: AsyncConnection, key: tuple[str, str], terms: Terms) -> None:
    row = (await rollout_rows.of(connection, [key])).get(key)
    if row is None or row.state != RolloutState.RUNNING:
        return
    after = await _judged(connection, row, terms)
    if after == rollout_rows.rollout(row):
        return
    changed = {"shown": after.shown, "state": str(after.state), "reason": after.reason, "moved_at": after.moved_at}
    where = (ROLLOUTS.c.kind == row.kind, ROLLOUTS.c.name == row.name)
    await connection.execute(sa.update(ROLLOUTS).where(*where).values(changed))
    if after.state is RolloutState.HALTED:
        _log.warning("rollout halted", resource="/".join(key), generation=after.generation, reason=after.reason)
        return
    shown = "all cells" if after.state is RolloutState.DONE else f"cell {after.current}"
    former = None if row.former is None else resource_pb2.Resource.FromString(row.former)
    if row.removal:
        await store.touch_removed(connection, key, f"removal: shown to {shown}")
        if after.state is RolloutState.DONE:
            await store.retire(connection, list((await store.last(connection, [key])).values()), after.moved_at)
    else:
        await store.touch(connection, key, f"rollout of generation {after.generation}: shown to {shown}")
    if row.kind == "Cell":
        await store.touch_repinned(connection, row.name, former, None if row.removal else await store.find(connection, *key))


async def _judged(connection: AsyncConnection, row: "sa.Row[tuple[object, ...]]", terms: Terms) -> Rollout:
    under_way = rollout_rows.rollout(row)
    if not await store.of_kind(connection, "Cell", [under_way.current]):
        # It was removed since: nobody is there to say that it is well.
        return rollouts.advanced(under_way, await now_of(connection))
    of_it = (REPORTS.c.kind == row.kind, REPORTS.c.name == row.name) if not under_way.silent else ()
    reports = [
        ((report.kind, report.name), Reporter(report.cell, report.component, report.instance), resource_pb2.Status.FromString(report.body))
        for report in await connection.execute(sa.select(REPORTS).where(REPORTS.c.cell == under_way.current, *of_it))
    ]
    now = await now_of(connection)
    if under_way.silent:
        return rollouts.judged_by_cell(under_way, reports, now, terms)
    return rollouts.judged(under_way, [(reporter, status) for _, reporter, status in reports], now, terms)
