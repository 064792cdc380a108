"""Runs that drop the data of what is declared no longer, made and cancelled within the transaction that changes the declaration."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason
from chassis.jobs import RETIRE_TABLES
from chassis.resources import Key, key_of, key_told
from services.controlplane.jobs import runs
from services.controlplane.jobs.rows import add, run_of, save
from services.controlplane.jobs.runs import Run, RunState, Terms
from services.controlplane.jobs.taking import OPEN
from services.controlplane.resources import retention
from services.controlplane.tables import RUNS

# Engines are away for hours at times; what cannot be dropped by then, somebody must look at.
TERMS = Terms(max_attempts=200, tier=3)


@dataclass(frozen=True)
class Removed:
    """Resources that were removed, as last declared, the datasets that ever described their data, and the cells that have them."""

    resources: Sequence[resource_pb2.Resource]
    datasets: Sequence[resource_pb2.Resource]
    cells: Sequence[str]


async def plan(connection: AsyncConnection, removed: Removed, now: datetime) -> list[Run]:
    """Makes the runs, due once retention has passed."""
    made = []
    for resource in removed.resources:
        names = retention.makes(key_of(resource))
        described = {dataset.metadata.name: dataset for dataset in removed.datasets if dataset.metadata.name in names}
        due = now + retention.retention(resource, described)
        for cell in removed.cells:
            for kind in retention.drops(resource):
                run = Run(kind, "/".join(key_of(resource)), cell, now.date(), now, due, terms=TERMS)
                made += await add(connection, [run])
    return made


async def withdraw(connection: AsyncConnection, declared: Collection[Key], now: datetime) -> None:
    """Cancels what was to drop the data of resources that are declared again.

    Raises:
        ArterialError: CONFLICT while that is being done, or where the table of another resource is still to be dropped.
    """
    subjects = ["/".join(key) for key in declared if retention.makes(key)]
    others = [f"{other}/{name}" for kind, name in declared for other in retention.WITH_CURATED - {kind} if kind in retention.WITH_CURATED]
    dropping = sa.select(RUNS).where(RUNS.c.kind.in_(retention.DROPS), RUNS.c.subject.in_([*subjects, *others])).order_by(RUNS.c.number)
    for row in (await connection.execute(dropping.where(OPEN).with_for_update())).all() if subjects else ():
        run = run_of(row)
        if run.subject in others:
            if run.kind != RETIRE_TABLES:
                continue
            what = f"lake/curated/{key_told(run.subject)[1]} of the former {run.subject}"
            why = f"{what} is to be dropped in cell {run.cell} by {run.run_id} on {run.due_at.date()}: choose another name until then"
            raise ArterialError(Reason.CONFLICT, why)
        if run.state is RunState.RUNNING or await _some_are_gone(connection, run):
            why = f"data of the former {run.subject} are being dropped in cell {run.cell} by {run.run_id}: apply again once it has ended"
            raise ArterialError(Reason.CONFLICT, why)
        await save(connection, run, runs.cancelled(run, f"{run.subject} is declared again", now))


async def _some_are_gone(connection: AsyncConnection, run: Run) -> bool:
    """True if another run of the same removal has dropped its part: what is left would be wrong beside what begins anew."""
    same = (RUNS.c.subject == run.subject, RUNS.c.cell == run.cell, RUNS.c.created_at == run.created_at, RUNS.c.kind.in_(retention.DROPS))
    query = sa.select(RUNS.c.number).where(*same, RUNS.c.state == str(RunState.SUCCEEDED)).limit(1)
    return await connection.scalar(query) is not None


async def dropped(connection: AsyncConnection, removed: Collection[Key]) -> set[Key]:
    """Those of removed resources whose data were dropped, in every cell that had them, after they were last removed."""
    if not removed:
        return set()
    newest = sa.func.max(RUNS.c.created_at).over(partition_by=RUNS.c.subject)
    dropping = (RUNS.c.kind.in_(retention.DROPS), RUNS.c.subject.in_(["/".join(key) for key in removed]))
    each = sa.select(RUNS.c.subject, RUNS.c.cell, RUNS.c.state, RUNS.c.created_at, newest.label("newest")).where(*dropping).subquery()
    cells = sa.func.count(each.c.cell.distinct())
    done = cells.filter(each.c.state == str(RunState.SUCCEEDED))
    query = sa.select(each.c.subject).where(each.c.created_at == each.c.newest).group_by(each.c.subject).having(done == cells)
    return {key_told(subject) for subject in (await connection.scalars(query)).all()}


def told(run: Run) -> pb.Retirement:
    """As the contract has it."""
    kind, name = key_told(run.subject)
    retirement = pb.Retirement(kind=kind, name=name, cell=run.cell, run_id=run.run_id, drops=retention.DROPS[run.kind])
    retirement.due_at.FromDatetime(run.due_at)
    return retirement
