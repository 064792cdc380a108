"""Brings partitions to what follows from what is known of them, within the transaction that changed that."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.controlplane.jobs.rows import inputs_of, partition_of, verdict_of
from services.controlplane.jobs.run_store import reconsider_partitions
from services.controlplane.jobs.runs import RunState
from services.controlplane.partitions import descent, partitions
from services.controlplane.partitions.partitions import (
    WITHHELD,
    Evidence,
    Judged,
    Making,
    Override,
    Partition,
    PartitionKey,
    PartitionState,
)
from services.controlplane.resources.store import naming, of_kind
from services.controlplane.tables import PARTITION_CELLS, PARTITION_OVERRIDES, PARTITION_VERDICTS, PARTITIONS, RUNS, now_of

_KEY = ("cell", "dataset", "partition_date")


async def settle(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey], revision: int) -> dict[PartitionKey, Partition]:
    """Marks what follows, for what was made from these partitions, too, and suspends or releases the runs that read any of them.

    Returns the partitions asked for. The transaction holds the cell (`gating.hold`).
    """
    settled: dict[PartitionKey, Partition] = {}
    changed: list[Partition] = []
    waiting = set(keys)
    while waiting:
        before, after = await marks(connection, cell, waiting), await _marked(connection, cell, waiting)
        numbered = [partitions.revised(mark, revision + place) for place, mark in enumerate(after, 1)]
        revision += len(numbered)
        if numbered:
            await _write(connection, cell, numbered)
        settled |= {key: partitions.pending(key) for key in waiting} | before | {mark.key: mark for mark in numbered}
        changed += numbered
        moved = [mark.key for mark in numbered if WITHHELD & {mark.state, before.get(mark.key, partitions.pending(mark.key)).state}]
        waiting = await descent.made_from(connection, cell, moved)
    if changed:
        await connection.execute(sa.update(PARTITION_CELLS).where(PARTITION_CELLS.c.cell == cell).values(revision=revision))
        await reconsider_partitions(connection, cell, min(mark.key.day for mark in changed))
    return {key: settled[key] for key in keys}


async def _marked(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> list[Partition]:
    """Those among the partitions that are to be marked otherwise than they are."""
    now = await now_of(connection)
    known, evidence = await marks(connection, cell, keys), await _evidence(connection, cell, keys)
    found = [partitions.marked(known.get(key), key, evidence[key], now) for key in sorted(keys)]
    return [mark for mark in found if mark is not None]


async def marks(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> dict[PartitionKey, Partition]:
    """The partitions among these that somebody has spoken of."""
    rows = (await connection.execute(sa.select(PARTITIONS).where(*_among(PARTITIONS, cell, keys)))).all()
    return {partition.key: partition for partition in map(partition_of, rows) if partition.key in keys}


async def verdicts(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> list[Judged]:
    """The newest verdicts on these partitions."""
    query = sa.select(PARTITION_VERDICTS).where(*_among(PARTITION_VERDICTS, cell, keys))
    query = query.order_by(*(PARTITION_VERDICTS.c[name] for name in (*_KEY, "aspect")))
    return [verdict for verdict in map(verdict_of, (await connection.execute(query)).all()) if verdict.key in keys]


async def _evidence(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, Evidence]:
    known = await _own(connection, cell, keys)
    making = {key: found.making for key, found in known.items() if found.making is not None}
    causes = await descent.causes(connection, cell, keys, making)
    known |= await _own(connection, cell, {cause for found in causes.values() for cause in found} - known.keys())
    withheld = {key: one for key, one in ((key, partitions.alone(key, found)) for key, found in known.items()) if one.state in WITHHELD}
    return {
        key: replace(known[key], made_from=tuple(withheld[cause] for cause in causes.get(key, ()) if cause in withheld)) for key in keys
    }


async def _own(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> dict[PartitionKey, Evidence]:
    """What is known of partitions but for what they were made from."""
    said: defaultdict[PartitionKey, list[Judged]] = defaultdict(list)
    for verdict in await verdicts(connection, cell, keys):
        said[verdict.key].append(verdict)
    making, overrides = await _making(connection, cell, keys), await _overrides(connection, cell, keys)
    unmonitored = await _unmonitored(connection, {key.dataset for key in keys})
    return {key: Evidence(tuple(said[key]), making.get(key), overrides.get(key), key.dataset not in unmonitored) for key in keys}


async def _making(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, Making]:
    """The newest run that makes each partition, with what the newest that succeeded read: until the next has, its rows are there."""
    if not keys:
        return {}
    days, datasets = [key.day for key in keys], sorted({key.dataset for key in keys})
    query = sa.select(RUNS.c.number, RUNS.c.state, RUNS.c.reasons, RUNS.c.partition_date, RUNS.c.produces, RUNS.c.inputs)
    query = query.where(RUNS.c.cell == cell, RUNS.c.partition_date.between(min(days), max(days)), sa.text("produces <> '{}'"))
    query = query.where(RUNS.c.produces.overlap(datasets)).order_by(RUNS.c.number)
    found: dict[PartitionKey, Making] = {}
    for row in (await connection.execute(query)).all():
        for key in (PartitionKey(dataset, row.partition_date) for dataset in row.produces):
            read = found[key].inputs if key in found else ()
            state = RunState(row.state)
            inputs = inputs_of(row.inputs) if state is RunState.SUCCEEDED else read
            found[key] = Making(row.number, state, tuple(row.reasons), inputs)
    return found


async def _overrides(connection: AsyncConnection, cell: str, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, Override]:
    query = sa.select(PARTITION_OVERRIDES).where(*_among(PARTITION_OVERRIDES, cell, keys), PARTITION_OVERRIDES.c.withdrawn_at.is_(None))
    return {
        PartitionKey(row.dataset, row.partition_date): Override(PartitionState(row.state), row.reason, row.actor, row.made_at)
        for row in (await connection.execute(query)).all()
    }


async def _unmonitored(connection: AsyncConnection, datasets: Collection[str]) -> set[str]:
    """Datasets that are declared, and neither as monitored nor with a quality rule: no verdict on their quality will come."""
    declared = await of_kind(connection, "Dataset", datasets)
    found = {name for name, resource in declared.items() if not resource.dataset.monitored}
    return found - {rule.quality_rule.dataset for rule in await naming(connection, "QualityRule", found)}


def _among(table: sa.Table, cell: str, keys: Collection[PartitionKey]) -> list[sa.ColumnElement[bool]]:
    """Rows of these partitions, and some more: by datasets and their range of dates, which is one query however many they are."""
    if not keys:
        return [sa.false()]
    days, datasets = [key.day for key in keys], sorted({key.dataset for key in keys})
    return [table.c.cell == cell, table.c.dataset.in_(datasets), table.c.partition_date.between(min(days), max(days))]


async def _write(connection: AsyncConnection, cell: str, changed: Sequence[Partition]) -> None:
    statement = insert(PARTITIONS)
    replaced = {column.name: statement.excluded[column.name] for column in PARTITIONS.c if column.name not in _KEY}
    await connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=replaced), [_values(cell, mark) for mark in changed])


def _values(cell: str, mark: Partition) -> dict[str, Any]:
    override = mark.override
    return {
        "cell": cell,
        "dataset": mark.key.dataset,
        "partition_date": mark.key.day,
        "state": str(mark.state),
        "reasons": list(mark.reasons),
        "incident_ids": list(mark.incident_ids),
        "table_version": mark.table_version,
        "state_changed_at": mark.state_changed_at,
        "judged_state": str(mark.judged_state),
        "override_reason": override.reason if override else "",
        "override_actor": override.actor if override else "",
        "override_at": override.made_at if override else None,
        "run": mark.run,
        "revision": mark.revision,
        "causes": [[cause.dataset, cause.day.isoformat()] for cause in mark.causes],
    }


async def keep_verdicts(connection: AsyncConnection, cell: str, kept: Sequence[Judged], now: datetime) -> None:
    """Writes the newest verdicts."""
    statement = insert(PARTITION_VERDICTS)
    key = (*_KEY, "aspect")
    replaced = {column.name: statement.excluded[column.name] for column in PARTITION_VERDICTS.c if column.name not in key}
    rows = [
        {
            "cell": cell,
            "dataset": judged.key.dataset,
            "partition_date": judged.key.day,
            "aspect": str(judged.aspect),
            "verdict": str(judged.verdict),
            "table_version": judged.table_version,
            "reasons": list(judged.reasons),
            "incident_ids": list(judged.incident_ids),
            "reported_at": now,
            "value": judged.value,
        }
        for judged in kept
    ]
    await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=replaced), rows)
