"""Resources and schemas in PostgreSQL. Every change has a version; versions become visible in their order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason
from services.controlplane.planning import Key, key_of

# Writers queue up: only then does the order of versions agree with the order of commits, which watchers rely on.
WRITE_LOCK = 0x434F4E54
# Changes that a watcher may fall behind before it gets everything again.
HISTORY = 10_000
_metadata = sa.MetaData()
RESOURCES = sa.Table(
    "resources",
    _metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger),
    sa.Column("body", sa.LargeBinary),
)
CHANGES = sa.Table(
    "changes",
    _metadata,
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("kind", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("body", sa.LargeBinary),
    sa.Column("message", sa.Text),
)


@dataclass(frozen=True)
class ChangeRow:
    """A change; `resource` is None where it was deleted."""

    version: int
    kind: str
    name: str
    resource: resource_pb2.Resource | None


class ResourceStore:
    """Reads and writes resources."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, kind: str, name: str) -> resource_pb2.Resource:
        """One resource. Raises NOT_FOUND."""
        async with self._engine.connect() as connection:
            return await find(connection, kind, name)

    async def page(self, kind: str, start: int, end: int) -> tuple[list[resource_pb2.Resource], int]:
        """Resources of a kind (all for "") by kind and name, and how many there are."""
        condition = RESOURCES.c.kind == kind if kind else sa.true()
        async with self._engine.connect() as connection:
            total = await connection.scalar(sa.select(sa.func.count()).select_from(RESOURCES).where(condition))
            query = (
                sa.select(RESOURCES.c.body).where(condition).order_by(RESOURCES.c.kind, RESOURCES.c.name).offset(start).limit(end - start)
            )
            bodies = (await connection.scalars(query)).all()
        return [resource_pb2.Resource.FromString(body) for body in bodies], int(total or 0)

    async def names(self, kind: str) -> list[str]:
        """Names of a kind's resources, in order."""
        async with self._engine.connect() as connection:
            query = sa.select(RESOURCES.c.name).where(RESOURCES.c.kind == kind).order_by(RESOURCES.c.name)
            return list((await connection.scalars(query)).all())

    async def snapshot(self) -> tuple[Mapping[Key, resource_pb2.Resource], int]:
        """All resources and the version that they are of."""
        async with self._engine.connect() as connection:
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            return await _all(connection), await _version(connection)

    async def version(self) -> int:
        """The newest version."""
        async with self._engine.connect() as connection:
            return await _version(connection)

    async def changes_after(self, version: int) -> list[ChangeRow] | None:
        """Changes after a version, in order; None if the history does not reach back so far."""
        async with self._engine.connect() as connection:
            newest = await _version(connection)
            if version > newest or newest - version > HISTORY:
                return None
            rows = (await connection.execute(sa.select(CHANGES).where(CHANGES.c.version > version).order_by(CHANGES.c.version))).all()
        return [
            ChangeRow(row.version, row.kind, row.name, None if row.body is None else resource_pb2.Resource.FromString(row.body))
            for row in rows
        ]

    async def put(self, wanted: Sequence[resource_pb2.Resource], message: str) -> list[resource_pb2.Resource]:
        """Writes resources, all or none; their status stays as it is.

        Raises:
            ArterialError: CONFLICT if a given resource version is not the current one.
        """
        async with self._engine.begin() as connection:
            await lock(connection)
            existing, version = await _all(connection), await _version(connection)
            written = []
            for resource in wanted:
                version += 1
                stored = _next(resource, existing.get(key_of(resource)), version)
                await _write(connection, stored, message)
                written.append(stored)
            return written

    async def edit_status(self, key: Key, edit: Callable[[resource_pb2.Status], None], message: str) -> None:
        """Changes the status of a resource; its specification and generation stay. Raises NOT_FOUND."""
        async with self._engine.begin() as connection:
            await lock(connection)
            await edit_status(connection, await find(connection, *key), edit, message)

    async def delete(self, kind: str, name: str, expected: int) -> int:
        """Deletes a resource; returns the version of the change. Raises NOT_FOUND or CONFLICT."""
        async with self._engine.begin() as connection:
            await lock(connection)
            existing, version = await _all(connection), await _version(connection) + 1
            current = existing.get((kind, name))
            if current is None:
                raise ArterialError(Reason.NOT_FOUND, f"{kind}/{name} does not exist")
            _expect(current, expected)
            await connection.execute(sa.delete(RESOURCES).where(RESOURCES.c.kind == kind, RESOURCES.c.name == name))
            await connection.execute(sa.insert(CHANGES).values(version=version, kind=kind, name=name, body=None, message="deleted"))
            return version


async def lock(connection: AsyncConnection) -> None:
    """Queues this transaction behind all others that change resources."""
    await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))


async def find(connection: AsyncConnection, kind: str, name: str) -> resource_pb2.Resource:
    """One resource, as this transaction sees it. Raises NOT_FOUND."""
    body = await connection.scalar(sa.select(RESOURCES.c.body).where(RESOURCES.c.kind == kind, RESOURCES.c.name == name))
    if body is None:
        raise ArterialError(Reason.NOT_FOUND, f"{kind}/{name} does not exist")
    return resource_pb2.Resource.FromString(body)


async def edit_status(
    connection: AsyncConnection, current: resource_pb2.Resource, edit: Callable[[resource_pb2.Status], None], message: str
) -> None:
    """Writes the resource with its status edited, if that changes it. The transaction holds the lock."""
    edited = resource_pb2.Resource()
    edited.CopyFrom(current)
    edit(edited.status)
    if edited.status != current.status:
        edited.metadata.resource_version = await _version(connection) + 1
        edited.metadata.updated_at.FromDatetime(datetime.now(UTC))
        await _write(connection, edited, message)


async def _write(connection: AsyncConnection, stored: resource_pb2.Resource, message: str) -> None:
    version, body = stored.metadata.resource_version, stored.SerializeToString(deterministic=True)
    await connection.execute(_upsert(stored, version, body))
    row = sa.insert(CHANGES).values(version=version, kind=stored.kind, name=stored.metadata.name, body=body, message=message)
    await connection.execute(row)


async def _all(connection: AsyncConnection) -> Mapping[Key, resource_pb2.Resource]:
    bodies = (await connection.scalars(sa.select(RESOURCES.c.body))).all()
    found = [resource_pb2.Resource.FromString(body) for body in bodies]
    return {key_of(resource): resource for resource in found}


async def _version(connection: AsyncConnection) -> int:
    return int(await connection.scalar(sa.select(sa.func.max(CHANGES.c.version))) or 0)


def _next(wanted: resource_pb2.Resource, current: resource_pb2.Resource | None, version: int) -> resource_pb2.Resource:
    """The resource as it is stored: its metadata and status are the control plane's own."""
    stored = resource_pb2.Resource()
    stored.CopyFrom(wanted)
    now = datetime.now(UTC)
    stored.metadata.updated_at.FromDatetime(now)
    stored.ClearField("status")
    if current is None:
        stored.metadata.created_at.FromDatetime(now)
        stored.metadata.generation = 1
    else:
        _expect(current, wanted.metadata.resource_version)
        stored.metadata.created_at.CopyFrom(current.metadata.created_at)
        stored.metadata.generation = current.metadata.generation + 1
        if current.HasField("status"):
            stored.status.CopyFrom(current.status)
    stored.metadata.resource_version = version
    return stored


def _expect(current: resource_pb2.Resource, expected: int) -> None:
    if expected not in (0, current.metadata.resource_version):
        raise ArterialError(
            Reason.CONFLICT,
            f"{current.kind}/{current.metadata.name} is at version {current.metadata.resource_version}, not {expected}: read it again",
        )


def _upsert(stored: resource_pb2.Resource, version: int, body: bytes) -> sa.Executable:
    from sqlalchemy.dialects.postgresql import insert

    values = insert(RESOURCES).values(kind=stored.kind, name=stored.metadata.name, version=version, body=body)
    return values.on_conflict_do_update(index_elements=["kind", "name"], set_={"version": version, "body": body})
