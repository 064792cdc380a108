"""What processes report of resources, in PostgreSQL: a row for each resource and reporter."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2
from chassis.logs import logger
from chassis.process import Context
from chassis.resources import Key
from services.controlplane.resources.pinning import condition, pins_of
from services.controlplane.resources.store import RESOURCES, of_kind
from services.controlplane.rollouts import rollout_rows, rollouts
from services.controlplane.slos.slos import unmeasured
from services.controlplane.tables import DATABASE_TIME, now_of
from services.controlplane.watch import statuses
from services.controlplane.watch.statuses import Reporter

# Reporters repeat themselves every 5 minutes: one that was not heard of for this is gone, and what it said with it.
FORGET_SECONDS, LOOK_SECONDS = 900.0, 60.0
_log = logger(__name__)
_metadata = sa.MetaData()
REPORTS = sa.Table(
    "reports",
    _metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("component", sa.Text, primary_key=True),
    sa.Column("instance", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary),
    sa.Column("reported_at", sa.DateTime(timezone=True)),
)
_KEY = ("kind", "name", "cell", "component", "instance")


class StatusStore:
    """Keeps reports, and puts them into resources."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def report(self, reporter: Reporter, given: Iterable[pb.ResourceStatus]) -> list[str]:
        """Takes reports in; one without conditions takes back the one before. Returns "KIND/NAME" of resources that do not exist."""
        latest = {(report.kind, report.name): report.status for report in given}
        async with self._engine.begin() as connection:
            known = await _known(connection, latest)
            before = await _before(connection, reporter, known)
            now = await now_of(connection)
            rows = [
                {
                    "kind": kind,
                    "name": name,
                    "cell": reporter.cell,
                    "component": reporter.component,
                    "instance": reporter.instance,
                    "body": statuses.reported(latest[kind, name], before.get((kind, name)), now).SerializeToString(),
                    "reported_at": now,
                }
                for kind, name in sorted(key for key in known if latest[key].conditions)
            ]
            gone = [key for key in before if not latest[key].conditions]
            if gone:
                await connection.execute(sa.delete(REPORTS).where(*_by(reporter), sa.tuple_(REPORTS.c.kind, REPORTS.c.name).in_(gone)))
            if rows:
                values = insert(REPORTS)
                changed = {"body": values.excluded.body, "reported_at": values.excluded.reported_at}
                await connection.execute(values.on_conflict_do_update(index_elements=_KEY, set_=changed), rows)
        return [f"{kind}/{name}" for kind, name in latest if (kind, name) not in known]

    async def complete(self, resources: Sequence[resource_pb2.Resource]) -> None:
        """Writes what was reported into the status of these resources."""
        told: dict[Key, list[tuple[Reporter, resource_pb2.Status]]] = {}
        keys = {(resource.kind, resource.metadata.name) for resource in resources}
        async with self._engine.connect() as connection:
            query = sa.select(REPORTS).where(REPORTS.c.name == _any(name for _, name in keys)).order_by(*(REPORTS.c[part] for part in _KEY))
            for row in await connection.execute(query):
                status = resource_pb2.Status.FromString(row.body)
                told.setdefault((row.kind, row.name), []).append((Reporter(row.cell, row.component, row.instance), status))
            under_way = await rollout_rows.of(connection, keys)
            cells = await of_kind(connection, "Cell") if any(kind == "Schema" for kind, _ in keys) else {}
        for resource in resources:
            key = (resource.kind, resource.metadata.name)
            statuses.fill(resource, told.get(key, []))
            resource.status.conditions.extend(unmeasured(resource))
            if key in under_way:
                resource.status.conditions.append(rollouts.condition(rollout_rows.rollout(under_way[key])))
            pinning = [cell for cell in cells.values() if resource.kind == "Schema" and key[1] in pins_of(cell)]
            resource.status.conditions.extend(condition(cell, resource) for cell in pinning)

    async def forget(self, context: Context) -> None:
        """Forgets reporters that are gone, until the process stops; not before those that waited for it could be heard."""
        began = time.monotonic()
        while not context.stopping.is_set():
            try:
                if time.monotonic() - began > FORGET_SECONDS:
                    async with self._engine.begin() as connection:
                        old = DATABASE_TIME - timedelta(seconds=FORGET_SECONDS)
                        await connection.execute(sa.delete(REPORTS).where(REPORTS.c.reported_at < old))
            except (OSError, SQLAlchemyError) as error:
                _log.warning("store away", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), LOOK_SECONDS)


async def _known(connection: AsyncConnection, wanted: Collection[Key]) -> set[Key]:
    """Those that exist, and do so until the transaction ends."""
    query = sa.select(RESOURCES.c.kind, RESOURCES.c.name).where(RESOURCES.c.name == _any(name for _, name in wanted))
    rows = await connection.execute(query.order_by(RESOURCES.c.kind, RESOURCES.c.name).with_for_update(read=True, key_share=True))
    return {(row.kind, row.name) for row in rows} & set(wanted)


async def _before(connection: AsyncConnection, reporter: Reporter, known: Collection[Key]) -> Mapping[Key, resource_pb2.Status]:
    mine = (*_by(reporter), REPORTS.c.name == _any(name for _, name in known))
    rows = await connection.execute(sa.select(REPORTS.c.kind, REPORTS.c.name, REPORTS.c.body).where(*mine))
    return {(row.kind, row.name): resource_pb2.Status.FromString(row.body) for row in rows if (row.kind, row.name) in known}


def _by(reporter: Reporter) -> tuple["sa.ColumnElement[bool]", ...]:
    return REPORTS.c.cell == reporter.cell, REPORTS.c.component == reporter.component, REPORTS.c.instance == reporter.instance


def _any(names: Iterable[str]) -> "sa.CollectionAggregate[bool]":
    return sa.any_(sa.literal(sorted(set(names)), ARRAY(sa.Text)))
