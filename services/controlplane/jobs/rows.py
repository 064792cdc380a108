"""Runs and partitions between their rows and the values of the domain."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.controlplane.jobs.runs import Capacity, Input, Run, RunState, Terms
from services.controlplane.partitions.partitions import Aspect, Judged, Override, Partition, PartitionKey, PartitionState, Verdict
from services.controlplane.tables import RUNS

_TERMS = tuple(field.name for field in fields(Terms))
_KEPT = ("number", "kind", "subject", "cell", "partition_date", "created_at", "terms", "schedule", "scheduled_for", "inputs", "produces")
_ASKED = ("kind", "subject", "cell", "partition_date", "created_at", "schedule", "scheduled_for")
# What a transition may change; what was asked for never changes. The rest has a form of its own in the row.
_CHANGING = tuple(field.name for field in fields(Run) if field.name not in (*_KEPT, "worker_has"))


def run_of(row: sa.Row[Any]) -> Run:
    """A run from its row."""
    values = dict(row._mapping)
    del values["log_lines"], values["told_state"]
    terms = Terms(**{name: values.pop(name) for name in _TERMS})
    has = Capacity(values.pop("worker_memory_mib"), values.pop("worker_cpu_milli"))
    inputs = inputs_of(values.pop("inputs"))
    lists = {name: tuple(values.pop(name)) for name in ("reasons", "produces", "worker_kinds")}
    return Run(**values | lists | {"state": RunState(row.state), "terms": terms, "worker_has": has, "inputs": inputs})


def inputs_of(stored: Sequence[Sequence[Any]]) -> tuple[Input, ...]:
    """What a run reads, from the column of its row."""
    return tuple(Input(dataset, days) for dataset, days in stored)


def partition_of(row: sa.Row[Any]) -> Partition:
    """A partition from its row."""
    state = PartitionState(row.state)
    return Partition(
        PartitionKey(row.dataset, row.partition_date),
        state,
        row.table_version,
        tuple(row.reasons),
        tuple(row.incident_ids),
        row.state_changed_at,
        PartitionState(row.judged_state),
        None if row.override_at is None else Override(state, row.override_reason, row.override_actor, row.override_at),
        row.run,
        row.revision,
        tuple(PartitionKey(dataset, date.fromisoformat(day)) for dataset, day in row.causes),
    )


def verdict_of(row: sa.Row[Any]) -> Judged:
    """A verdict from its row."""
    key, reasons, incidents = PartitionKey(row.dataset, row.partition_date), tuple(row.reasons), tuple(row.incident_ids)
    return Judged(key, Verdict(row.verdict), row.table_version, reasons, incidents, Aspect(row.aspect), row.reported_at, row.value)


async def save(connection: AsyncConnection, before: Run, after: Run) -> None:
    """Writes a run if it changed. The caller holds its row."""
    if after != before:
        await connection.execute(sa.update(RUNS).where(RUNS.c.number == after.number).values(_changing(after)))


async def add(connection: AsyncConnection, new: Sequence[Run]) -> list[Run]:
    """Writes runs of one request or schedule, without those whose tick or open request has one.

    Returns what was written, numbered, in the order given.
    """
    if not new:
        return []
    key = (RUNS.c.partition_date, RUNS.c.scheduled_for)
    statement = insert(RUNS).values([_changing(run) | _asked(run) for run in new])
    rows = (await connection.execute(statement.on_conflict_do_nothing().returning(RUNS.c.number, *key))).all()
    numbers = {(row.partition_date, row.scheduled_for): int(row.number) for row in rows}
    asked = [(run, numbers.get((run.partition_date, run.scheduled_for))) for run in new]
    return [replace(run, number=number) for run, number in asked if number is not None]


def _asked(run: Run) -> dict[str, Any]:
    asked = {name: getattr(run, name) for name in _ASKED} | asdict(run.terms)
    return asked | {"inputs": [[given.dataset, given.days] for given in run.inputs], "produces": list(run.produces)}


def _changing(run: Run) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(run, name) for name in _CHANGING}
    lists = {name: list(values[name]) for name in ("reasons", "worker_kinds")}
    has = {"worker_memory_mib": run.worker_has.memory_mib, "worker_cpu_milli": run.worker_has.cpu_milli}
    return values | lists | has | {"state": str(run.state), "outputs": dict(run.outputs)}
