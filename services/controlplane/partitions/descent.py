"""What partitions are made from, and what is made from them: by runs that say what they read and make, and by declared curated tables."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.lineage.definition import logical_names
from services.controlplane.jobs import gate
from services.controlplane.jobs.gate import Window
from services.controlplane.jobs.rows import inputs_of, partition_of
from services.controlplane.jobs.runs import Input, RunState
from services.controlplane.partitions.partitions import WITHHELD, Making, Partition, PartitionKey
from services.controlplane.resources.curated_tables import ZONE
from services.controlplane.resources.store import of_kind
from services.controlplane.tables import PARTITIONS, RUNS

# Of one partition, newest first: a whole year that is blocked is told by its newest days.
MAX_CAUSES = 100


async def causes(
    connection: AsyncConnection, cell: str, keys: Collection[PartitionKey], making: Mapping[PartitionKey, Making]
) -> Mapping[PartitionKey, Sequence[PartitionKey]]:
    """Of each partition those, near or far, that it was made from and that may be withheld for their own sake; newest date first.

    What is withheld names what is so for its own sake, so that one look reaches the far ones.
    """
    tables = await _curated_tables(connection)
    windows = {key: [*_read_by(key, making.get(key)), *_read_by_table(key, tables)] for key in keys}
    read = [window for found in windows.values() for window in found]
    if not read:
        return {}
    first, last = min(window.first for window in read), max(window.last for window in read)
    near = PARTITIONS.c.partition_date.between(first, last), PARTITIONS.c.dataset.in_(sorted({window.dataset for window in read}))
    closed = await _withheld(connection, cell, sa.and_(*near))
    return {key: _of(key, [one for one in closed if _within(one.key, found)]) for key, found in windows.items()}


def _of(key: PartitionKey, closed: Iterable[Partition]) -> list[PartitionKey]:
    """What withholds some partitions, but for one that cannot be its own cause."""
    found = {cause for one in closed for cause in one.causes} - {key}
    return sorted(found, key=lambda cause: (cause.day, cause.dataset), reverse=True)[:MAX_CAUSES]


async def _withheld(connection: AsyncConnection, cell: str, which: sa.ColumnElement[bool]) -> list[Partition]:
    states = [str(state) for state in sorted(WITHHELD)]
    query = sa.select(PARTITIONS).where(PARTITIONS.c.cell == cell, PARTITIONS.c.state.in_(states), which)
    return [partition_of(row) for row in (await connection.execute(query)).all()]


async def made_from(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> set[PartitionKey]:
    """Partitions that were made from any of these, and those that name one as a cause: tables may be declared otherwise since."""
    if not keys:
        return set()
    days = defaultdict(set)
    for key in keys:
        days[key.dataset].add(key.day)
    found = {
        PartitionKey(f"{ZONE}{name}", key.day)
        for name, read in (await _curated_tables(connection)).items()
        for key in keys
        if key.dataset in read
    }
    query = sa.select(RUNS.c.partition_date, RUNS.c.inputs, RUNS.c.produces).where(RUNS.c.cell == cell, sa.text("produces <> '{}'"))
    query = query.where(RUNS.c.state == str(RunState.SUCCEEDED), RUNS.c.partition_date >= min(key.day for key in keys))
    for row in (await connection.execute(query)).all():
        windows = gate.windows(inputs_of(row.inputs), row.partition_date)
        if any(window.first <= day <= window.last for window in windows for day in days.get(window.dataset, ())):
            found |= {PartitionKey(dataset, row.partition_date) for dataset in row.produces}
    named = sa.literal([[[key.dataset, key.day.isoformat()]] for key in sorted(keys)], ARRAY(JSONB, dimensions=1))
    found |= {one.key for one in await _withheld(connection, cell, PARTITIONS.c.causes.op("@>")(sa.any_(named)))}
    return found - set(keys)


def _read_by(key: PartitionKey, making: Making | None) -> Iterable[Window]:
    """What the run read that made a partition."""
    return gate.windows(making.inputs, key.day) if making is not None else ()


def _read_by_table(key: PartitionKey, tables: Mapping[str, Sequence[str]]) -> Iterable[Window]:
    """What a declared curated table is made from: the same date of its sources."""
    read = tables.get(key.dataset.removeprefix(ZONE), ()) if key.dataset.startswith(ZONE) else ()
    return gate.windows([Input(name, 1) for name in read], key.day)


def _within(key: PartitionKey, windows: Sequence[Window]) -> bool:
    return any(window.dataset == key.dataset and window.first <= key.day <= window.last for window in windows)


async def _curated_tables(connection: AsyncConnection) -> Mapping[str, Sequence[str]]:
    """Logical names that each declared curated table is made from, by its name."""
    return {name: logical_names(resource.curated_table.sql) for name, resource in (await of_kind(connection, "CuratedTable")).items()}
