"""States of dataset partitions in PostgreSQL. Marks and what follows for runs are one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.controlplane import partitions
from services.controlplane.partitions import Judged, Partition, PartitionKey, PartitionState
from services.controlplane.rows import partition_of
from services.controlplane.run_store import reconsider_partitions
from services.controlplane.tables import DATABASE_TIME, PARTITIONS


@dataclass(frozen=True)
class PartitionFilter:
    """Which partitions of a cell are listed; empty for all."""

    cell: str
    dataset: str = ""
    state: str = ""


class PartitionStore:
    """Marks and reads partitions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def report(self, cell: str, verdicts: Sequence[Judged]) -> int:
        """Marks partitions, all or none, and suspends or releases the runs that read them; returns how many states changed."""
        async with self._engine.begin() as connection:
            # Reports on a cell queue up: two at once could each judge by what the other is about to replace.
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"partitions/{cell}", 0))))
            now = (await connection.execute(sa.select(DATABASE_TIME))).scalar_one()
            wanted = partitions.newest(verdicts)
            known = await _known(connection, cell, [judged.key for judged in wanted])
            after = [partitions.marked(known.get(judged.key), judged, now) for judged in wanted]
            marks = [partition for partition in after if partition is not None]
            if marks:
                await _write(connection, cell, marks)
                await reconsider_partitions(connection, cell, min(mark.key.day for mark in marks))
        pending = Partition(PartitionKey("", date.min), PartitionState.PENDING, -1)
        return sum(mark.state is not known.get(mark.key, pending).state for mark in marks)

    async def get(self, cell: str, key: PartitionKey) -> Partition:
        """One partition; one that nobody reported is pending."""
        async with self._engine.connect() as connection:
            known = await _known(connection, cell, [key])
        return known.get(key) or Partition(key, PartitionState.PENDING, -1)

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


async def _known(connection: AsyncConnection, cell: str, keys: Sequence[PartitionKey]) -> dict[PartitionKey, Partition]:
    """What is marked of these partitions: by datasets and their range of dates, which is one query however many they are."""
    days, datasets = [key.day for key in keys], sorted({key.dataset for key in keys})
    within = PARTITIONS.c.partition_date.between(min(days), max(days))
    query = sa.select(PARTITIONS).where(PARTITIONS.c.cell == cell, PARTITIONS.c.dataset.in_(datasets), within)
    return {partition.key: partition for partition in map(partition_of, (await connection.execute(query)).all())}


async def _write(connection: AsyncConnection, cell: str, marks: Sequence[Partition]) -> None:
    statement = insert(PARTITIONS)
    replaced = ("state", "reasons", "incident_ids", "table_version", "state_changed_at")
    statement = statement.on_conflict_do_update(
        index_elements=["cell", "dataset", "partition_date"], set_={name: statement.excluded[name] for name in replaced}
    )
    rows = [
        {
            "cell": cell,
            "dataset": mark.key.dataset,
            "partition_date": mark.key.day,
            "state": str(mark.state),
            "reasons": list(mark.reasons),
            "incident_ids": list(mark.incident_ids),
            "table_version": mark.table_version,
            "state_changed_at": mark.state_changed_at,
        }
        for mark in marks
    ]
    await connection.execute(statement, rows)
