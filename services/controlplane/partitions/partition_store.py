"""States of dataset partitions in PostgreSQL. What is reported, what follows for partitions and for runs is one transaction."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.errors import ArterialError, Reason
from chassis.jobs import RETIRE_TABLES
from chassis.resources import key_told
from services.controlplane.jobs import gating
from services.controlplane.jobs.rows import partition_of
from services.controlplane.jobs.runs import RunState
from services.controlplane.jobs.taking import BATCH
from services.controlplane.partitions import evidence, partitions
from services.controlplane.partitions.partitions import Judged, Override, Partition, PartitionKey, PartitionState
from services.controlplane.resources import retention
from services.controlplane.tables import PARTITION_CELLS, PARTITION_OVERRIDES, PARTITION_VERDICTS, PARTITIONS, RUNS, now_of

_UNTOLD = sa.text("produces <> '{}' AND told_state <> state")
_DROPPED = RUNS.c.kind == RETIRE_TABLES, RUNS.c.state == str(RunState.SUCCEEDED), RUNS.c.told_state != RUNS.c.state


@dataclass(frozen=True)
class PartitionFilter:
    """Which partitions of a cell are listed; empty for all."""

    cell: str
    dataset: str = ""
    state: str = ""


@dataclass(frozen=True)
class Recorded:
    """An override as it is recorded, and its end if it has one."""

    number: int
    key: PartitionKey
    override: Override
    withdrawn_at: datetime | None
    withdrawn_by: str
    withdrawn_because: str


class PartitionStore:
    """Marks and reads partitions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def report(self, cell: str, verdicts: Sequence[Judged]) -> int:
        """Takes verdicts, all or none, and marks what follows; returns how many states changed."""
        keys = {judged.key for judged in verdicts}
        async with self._engine.begin() as connection:
            revision = await gating.hold(connection, cell)
            known = [replace(given, reported_at=None) for given in await evidence.verdicts(connection, cell, keys)]
            same = set(known)
            reported = [judged for judged in partitions.newest(verdicts, known) if judged not in same]
            if not reported:
                return 0
            before = await evidence.marks(connection, cell, keys)
            await evidence.keep_verdicts(connection, cell, reported, await now_of(connection))
            after = await evidence.settle(connection, cell, keys, revision)
        return sum(mark.state is not before.get(key, partitions.pending(key)).state for key, mark in after.items())

    async def override(self, cell: str, key: PartitionKey, state: PartitionState, why: tuple[str, str]) -> Partition:
        """Sets the state until that is withdrawn; `why` is who and the reason."""
        actor, reason = why
        async with self._engine.begin() as connection:
            revision = await gating.hold(connection, cell)
            await _withdraw(connection, cell, key, (actor, f"another override: {reason}"))
            values = {
                "cell": cell,
                "dataset": key.dataset,
                "partition_date": key.day,
                "state": str(state),
                "reason": reason,
                "actor": actor,
            }
            await connection.execute(sa.insert(PARTITION_OVERRIDES).values(values | {"made_at": await now_of(connection)}))
            return (await evidence.settle(connection, cell, [key], revision))[key]

    async def withdraw(self, cell: str, key: PartitionKey, why: tuple[str, str]) -> Partition:
        """Withdraws the override. Raises NOT_FOUND."""
        async with self._engine.begin() as connection:
            revision = await gating.hold(connection, cell)
            if not await _withdraw(connection, cell, key, why):
                raise ArterialError(Reason.NOT_FOUND, f"{key.dataset} {key.day} of cell {cell} is not overridden")
            return (await evidence.settle(connection, cell, [key], revision))[key]

    async def forget_dropped(self) -> None:
        """Takes back all that was said of datasets whose rows a run has dropped: their partitions are pending again, and overrides end."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(sa.select(RUNS.c.number, RUNS.c.cell, RUNS.c.subject).where(*_DROPPED))).all()
        for row in rows:
            async with self._engine.begin() as connection:
                revision = await gating.hold(connection, row.cell)
                told = sa.update(RUNS).where(RUNS.c.number == row.number, *_DROPPED).values(told_state=RUNS.c.state)
                if (await connection.execute(told)).rowcount:
                    await _forget(connection, row.cell, retention.makes(key_told(row.subject)), revision)

    async def reconsider(self, version: int, otherwise: Callable[[int], Awaitable[Collection[str]]]) -> None:
        """Marks what follows for the partitions of datasets that were declared otherwise, up to a version of the resources.

        `otherwise` tells which were after a version. Cells note how far that was done: nothing is left out, whenever the process ends.
        """
        async with self._engine.connect() as connection:
            query = sa.select(PARTITION_CELLS.c.cell, PARTITION_CELLS.c.declared_version)
            behind = (await connection.execute(query.where(PARTITION_CELLS.c.declared_version < version))).all()
        datasets = {since: await otherwise(since) for since in {row.declared_version for row in behind}}
        for row in behind:
            await self._settle_all(row.cell, datasets[row.declared_version])
            async with self._engine.begin() as connection:
                done = sa.update(PARTITION_CELLS).values(declared_version=sa.func.greatest(PARTITION_CELLS.c.declared_version, version))
                await connection.execute(done.where(PARTITION_CELLS.c.cell == row.cell))

    async def _settle_all(self, cell: str, datasets: Collection[str]) -> None:
        async with self._engine.connect() as connection:
            query = sa.select(PARTITIONS.c.dataset, PARTITIONS.c.partition_date).where(PARTITIONS.c.cell == cell)
            query = query.where(PARTITIONS.c.dataset == sa.any_(sa.literal(sorted(datasets), ARRAY(sa.Text))))
            query = query.order_by(PARTITIONS.c.dataset, PARTITIONS.c.partition_date)
            keys = [PartitionKey(*row) for row in (await connection.execute(query)).all()]
        for start in range(0, len(keys), BATCH):
            async with self._engine.begin() as connection:
                await evidence.settle(connection, cell, keys[start : start + BATCH], await gating.hold(connection, cell))

    async def follow_runs(self) -> None:
        """Marks the partitions of runs that make them and whose state changed."""
        while True:
            async with self._engine.connect() as connection:
                query = sa.select(RUNS.c.number, RUNS.c.cell).where(_UNTOLD).order_by(RUNS.c.number).limit(BATCH)
                rows = (await connection.execute(query)).all()
            for cell in sorted({row.cell for row in rows}):
                await self._follow(cell, [row.number for row in rows if row.cell == cell])
            if len(rows) < BATCH:
                return

    async def _follow(self, cell: str, numbers: Sequence[int]) -> None:
        async with self._engine.begin() as connection:
            revision = await gating.hold(connection, cell)
            columns = RUNS.c.number, RUNS.c.state, RUNS.c.partition_date, RUNS.c.produces
            rows = (await connection.execute(sa.select(*columns).where(RUNS.c.number.in_(numbers), _UNTOLD))).all()
            await evidence.settle(
                connection, cell, {PartitionKey(name, row.partition_date) for row in rows for name in row.produces}, revision
            )
            for row in rows:
                await connection.execute(sa.update(RUNS).where(RUNS.c.number == row.number).values(told_state=row.state))

    async def get(self, cell: str, key: PartitionKey) -> tuple[Partition, list[Judged]]:
        """One partition, with the verdicts on it; one that nobody has spoken of is pending."""
        async with self._engine.connect() as connection:
            known = await evidence.marks(connection, cell, [key])
            return known.get(key) or partitions.pending(key), await evidence.verdicts(connection, cell, [key])

    async def page(self, wanted: PartitionFilter, after: tuple[date, str] | None, limit: int) -> list[Partition]:
        """Partitions after a (date, dataset) (None: from the newest date), newest date first, then by dataset, at most `limit`."""
        day, dataset = PARTITIONS.c.partition_date, PARTITIONS.c.dataset
        query = sa.select(PARTITIONS).where(PARTITIONS.c.cell == wanted.cell).order_by(day.desc(), dataset.desc()).limit(limit)
        query = query.where(dataset == wanted.dataset) if wanted.dataset else query
        query = query.where(PARTITIONS.c.state == wanted.state) if wanted.state else query
        if after is not None:
            query = query.where(sa.tuple_(day, dataset) < sa.tuple_(sa.literal(after[0]), sa.literal(after[1])))
        async with self._engine.connect() as connection:
            return [partition_of(row) for row in (await connection.execute(query)).all()]

    async def overrides(self, cell: str, dataset: str, before: int | None, limit: int) -> list[Recorded]:
        """Overrides numbered below `before` (None: all), newest first, at most `limit`."""
        table = PARTITION_OVERRIDES
        query = sa.select(table).where(table.c.cell == cell).order_by(table.c.number.desc()).limit(limit)
        query = query.where(table.c.dataset == dataset) if dataset else query
        query = query if before is None else query.where(table.c.number < before)
        async with self._engine.connect() as connection:
            return [_recorded(row) for row in (await connection.execute(query)).all()]

    async def revisions(self) -> dict[str, int]:
        """The last revision of every cell."""
        async with self._engine.connect() as connection:
            return {row.cell: row.revision for row in (await connection.execute(sa.select(PARTITION_CELLS))).all()}

    async def changed(self, cell: str, dataset: str, after: int, limit: int) -> tuple[list[Partition], int]:
        """Partitions that changed after a revision, in the order of their changes, at most `limit`; and the revision reached."""
        cells = sa.select(PARTITION_CELLS.c.revision).where(PARTITION_CELLS.c.cell == cell)
        query = sa.select(PARTITIONS).where(PARTITIONS.c.cell == cell, PARTITIONS.c.revision > after)
        query = query.where(PARTITIONS.c.dataset == dataset) if dataset else query
        async with self._engine.connect() as connection:
            last = int(await connection.scalar(cells) or 0)
            rows = (await connection.execute(query.order_by(PARTITIONS.c.revision).limit(limit))).all()
        found = [partition_of(row) for row in rows]
        seen = found[-1].revision if found else after
        return found, seen if len(found) == limit else max(seen, last)


async def _forget(connection: AsyncConnection, cell: str, datasets: Sequence[str], revision: int) -> None:
    verdicts, overrides = PARTITION_VERDICTS.c, PARTITION_OVERRIDES.c
    marked = sa.select(PARTITIONS.c.dataset, PARTITIONS.c.partition_date)
    rows = (await connection.execute(marked.where(PARTITIONS.c.cell == cell, PARTITIONS.c.dataset.in_(datasets)))).all()
    await connection.execute(sa.delete(PARTITION_VERDICTS).where(verdicts.cell == cell, verdicts.dataset.in_(datasets)))
    held = (overrides.cell == cell, overrides.dataset.in_(datasets), overrides.withdrawn_at.is_(None))
    ended = {"withdrawn_at": await now_of(connection), "withdrawn_by": "", "withdrawn_because": "its rows were dropped"}
    await connection.execute(sa.update(PARTITION_OVERRIDES).where(*held).values(ended))
    await evidence.settle(connection, cell, {PartitionKey(row.dataset, row.partition_date) for row in rows}, revision)


async def _withdraw(connection: AsyncConnection, cell: str, key: PartitionKey, why: tuple[str, str]) -> bool:
    table = PARTITION_OVERRIDES
    same = (table.c.cell == cell, table.c.dataset == key.dataset, table.c.partition_date == key.day, table.c.withdrawn_at.is_(None))
    values = {"withdrawn_at": await now_of(connection), "withdrawn_by": why[0], "withdrawn_because": why[1]}
    return (await connection.execute(sa.update(table).where(*same).values(values))).rowcount > 0


def _recorded(row: sa.Row[tuple[object, ...]]) -> Recorded:
    given = row._mapping
    override = Override(PartitionState(given["state"]), given["reason"], given["actor"], given["made_at"])
    key = PartitionKey(given["dataset"], given["partition_date"])
    return Recorded(given["number"], key, override, given["withdrawn_at"], given["withdrawn_by"], given["withdrawn_because"])
