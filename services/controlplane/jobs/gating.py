"""Asks the gate for runs, within the transaction that holds them: what they read is looked up in a few queries for all of them."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from arterial.api.controlplane.v1 import specs_pb2
from services.controlplane.jobs import gate, runs
from services.controlplane.jobs.rows import partition_of, save
from services.controlplane.jobs.runs import Run
from services.controlplane.partitions.partitions import Partition, PartitionKey, PartitionState
from services.controlplane.resources.store import newest, of_kind
from services.controlplane.tables import PARTITION_CELLS, PARTITIONS


async def asked(connection: AsyncConnection, held: Sequence[Run]) -> list[Run]:
    """The runs, held by this transaction, after the gate was asked; those that changed are written."""
    after = await weighed(connection, held)
    for old, new in zip(held, after, strict=True):
        await save(connection, old, new)
    return after


async def begun(connection: AsyncConnection, new: Sequence[Run]) -> list[Run]:
    """Runs that this transaction made, after the gate was asked.

    It queues behind who marks partitions of their cells: who had not seen these runs would not wake them up, nor suspend them.
    """
    for cell in sorted({run.cell for run in new if run.inputs or run.training}):
        await hold(connection, cell)
    return await asked(connection, new)


async def hold(connection: AsyncConnection, cell: str) -> int:
    """Queues this transaction behind others that change partitions of the cell; returns the last revision."""
    new = insert(PARTITION_CELLS).values(cell=cell, revision=0, declared_version=newest())
    await connection.execute(new.on_conflict_do_nothing())
    query = sa.select(PARTITION_CELLS.c.revision).where(PARTITION_CELLS.c.cell == cell).with_for_update()
    return int((await connection.execute(query)).scalar_one())


async def ranked(connection: AsyncConnection, new: Sequence[Run]) -> list[Run]:
    """The runs with a tier: where none was asked for, that of the most important dataset that they make, else the default."""
    made = {dataset for run in new if not run.terms.tier for dataset in run.produces}
    tiers = {name: resource.dataset.tier for name, resource in (await of_kind(connection, "Dataset", made)).items()}
    return [runs.ranked(run, [tiers[dataset] for dataset in run.produces if dataset in tiers]) for run in new]


async def weighed(connection: AsyncConnection, held: Sequence[Run]) -> list[Run]:
    """The runs as they would be after the gate was asked; nothing is written."""
    models = await _models(connection, {run.subject for run in held if run.training})
    marked = {
        cell: await _marked(connection, cell, [run for run in held if run.cell == cell], models) for cell in {run.cell for run in held}
    }
    return [runs.gated(run, gate.closed_by(run, models, marked[run.cell])) for run in held]


async def _models(connection: AsyncConnection, names: set[str]) -> Mapping[str, specs_pb2.ModelSpec]:
    return {name: resource.model for name, resource in (await of_kind(connection, "Model", names)).items()}


async def _marked(
    connection: AsyncConnection, cell: str, held: Sequence[Run], models: Mapping[str, specs_pb2.ModelSpec]
) -> Mapping[PartitionKey, Partition]:
    windows = [window for run in held for window in gate.reads(run, models)]
    found: dict[PartitionKey, Partition] = {}
    for dataset in sorted({window.dataset for window in windows}):
        first = min(window.first for window in windows if window.dataset == dataset)
        own = {window.last for window in windows if window.dataset == dataset}
        # Ready partitions matter only at the runs' own dates: a year of them is not read for each run.
        relevant = sa.or_(PARTITIONS.c.state != str(PartitionState.READY), PARTITIONS.c.partition_date.in_(sorted(own)))
        within = PARTITIONS.c.partition_date.between(first, max(own))
        query = sa.select(PARTITIONS).where(PARTITIONS.c.cell == cell, PARTITIONS.c.dataset == dataset, within, relevant)
        found |= {partition.key: partition for partition in map(partition_of, (await connection.execute(query)).all())}
    return found
