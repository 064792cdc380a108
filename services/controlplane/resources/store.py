"""Resources and schemas in PostgreSQL. Every change has a version; versions become visible in their order."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason
from chassis.resources import Key, key_of
from services.controlplane.jobs import retirements
from services.controlplane.jobs.retirements import Removed
from services.controlplane.jobs.runs import Run
from services.controlplane.resources import retention
from services.controlplane.resources.pinning import repinned
from services.controlplane.rollouts import rollout_rows
from services.controlplane.rollouts.rollouts import ALL_AT_ONCE, Showing

# Writers queue up: only then does the order of versions agree with the order of commits, which watchers rely on.
WRITE_LOCK = 0x434F4E54
# Who brings the resources that an empty control plane begins with.
SEED_ACTOR = "arterial"
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
    sa.Column("actor", sa.Text),
    sa.Column("shown", sa.LargeBinary),
)


ABSENT = -1


@dataclass(frozen=True)
class Edit:
    """What is to be made of a resource, and why: `wanted` is None for its removal; `shown` is the plan that was shown."""

    key: Key
    wanted: resource_pb2.Resource | None
    shown: bytes
    expected: int = 0
    """Resource version that it must have; 0 for any, ABSENT for none at all."""


@dataclass(frozen=True)
class Why:
    """Who changes something, and why."""

    actor: str
    message: str


@dataclass(frozen=True)
class Written:
    """What a write made: resources as they are stored, runs that drop the data of what was removed, the version of the last change."""

    resources: Sequence[resource_pb2.Resource] = ()
    retirements: Sequence[Run] = ()
    version: int = 0


@dataclass(frozen=True)
class Recorded:
    """A change as the log has it."""

    version: int
    at: datetime
    actor: str
    message: str
    shown: bytes | None

    def told(self) -> pb.RecordedChange:
        """As the contract has it."""
        change = None if self.shown is None else pb.Change.FromString(self.shown)
        recorded = pb.RecordedChange(resource_version=self.version, actor=self.actor, message=self.message, change=change)
        recorded.time.FromDatetime(self.at)
        return recorded


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
            bodies, version = (await connection.scalars(sa.select(RESOURCES.c.body))).all(), await _version(connection)
        # Ten thousand resources take a tenth of a second to parse: not on the loop that answers.
        return await asyncio.to_thread(_parsed, bodies), version

    async def version(self) -> int:
        """The newest version."""
        async with self._engine.connect() as connection:
            return await _version(connection)

    async def write(self, edits: Sequence[Edit], why: Why, over: int, showing: Showing = ALL_AT_ONCE) -> Written:
        """Makes the edits, all or none, over the state of that version. Status stays as it is, unless an edit brings one of a Schema.

        Raises:
            ArterialError: CONFLICT if anything was declared since (what was checked may not hold any more), a resource has not the
                expected version, or the data of its former self are being dropped; NOT_FOUND for the removal of what does not exist.
        """
        async with self._engine.begin() as connection:
            await lock(connection)
            if await connection.scalar(sa.select(sa.exists().where(CHANGES.c.version > over, CHANGES.c.shown.is_not(None)))):
                raise ArterialError(Reason.CONFLICT, "other resources were changed meanwhile: try again")
            current = await _some(connection, [edit.key for edit in edits])
            version, now = await _version(connection), datetime.now(UTC)
            former = await last(connection, [edit.key for edit in edits if edit.wanted is not None and edit.key not in current])
            written, changes = [], []
            for edit in edits:
                version += 1
                before = current.get(edit.key)
                expect(edit, before)
                stored = None if edit.wanted is None else _next(edit.wanted, before, former.get(edit.key, before), version, now)
                body = None if stored is None else stored.SerializeToString(deterministic=True)
                written += [] if stored is None else [stored]
                changes.append(_row(edit.key, version, body, why) | {"shown": edit.shown})
            await _store(connection, changes)
            await rollout_rows.begin(connection, [edit.key for edit in edits], current, written, showing)
            for edit in edits:
                if edit.key[0] == "Cell":
                    await touch_repinned(connection, edit.key[1], current.get(edit.key), edit.wanted)
            await retirements.withdraw(connection, [edit.key for edit in edits if edit.wanted is not None and edit.key not in current], now)
            # Of what other cells still see nothing is dropped: that begins when all were shown its removal.
            removed = [current[edit.key] for edit in edits if edit.wanted is None and not showing.cells]
            return Written(written, await retire(connection, removed, now), version)

    async def history(self, kind: str, name: str, start: int, end: int) -> tuple[list[Recorded], int]:
        """Changes of a resource (of all for ""), newest first, and how many there are."""
        condition = sa.and_(*(column == value for column, value in ((CHANGES.c.kind, kind), (CHANGES.c.name, name)) if value))
        columns = (CHANGES.c.version, CHANGES.c.at, CHANGES.c.actor, CHANGES.c.message, CHANGES.c.shown)
        async with self._engine.connect() as connection:
            total = await connection.scalar(sa.select(sa.func.count()).select_from(CHANGES).where(condition))
            query = sa.select(*columns).where(condition).order_by(CHANGES.c.version.desc()).offset(start).limit(end - start)
            rows = (await connection.execute(query)).all()
        return [Recorded(*row) for row in rows], int(total or 0)

    async def version_at(self, moment: datetime) -> int:
        """The version that was the newest then."""
        async with self._engine.connect() as connection:
            return int(await connection.scalar(sa.select(sa.func.max(CHANGES.c.version)).where(CHANGES.c.at <= moment)) or 0)

    async def as_of(self, version: int, kind: str = "", name: str = "") -> list[resource_pb2.Resource]:
        """Resources as they were once a version was made, by kind and name."""
        wanted = [CHANGES.c.version <= version]
        wanted += [column == value for column, value in ((CHANGES.c.kind, kind), (CHANGES.c.name, name)) if value]
        latest = sa.select(CHANGES).where(*wanted).distinct(CHANGES.c.kind, CHANGES.c.name)
        query = latest.order_by(CHANGES.c.kind, CHANGES.c.name, CHANGES.c.version.desc())
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [resource_pb2.Resource.FromString(row.body) for row in rows if row.body is not None]

    async def judged_otherwise(self, since: int) -> set[str]:
        """Datasets whose declaration, or that of their quality rules, was changed after a version; also those that are gone."""
        changed = sa.select(CHANGES.c.kind, CHANGES.c.name).where(CHANGES.c.version > since, CHANGES.c.kind.in_(("Dataset", "QualityRule")))
        async with self._engine.connect() as connection:
            keys = [(row.kind, row.name) for row in (await connection.execute(changed.distinct())).all()]
            rules = [CHANGES.c.kind == "QualityRule", CHANGES.c.name.in_([name for kind, name in keys if kind == "QualityRule"])]
            bodies = (await connection.scalars(sa.select(CHANGES.c.body).where(*rules, CHANGES.c.body.is_not(None)))).all()
        ruled = {resource_pb2.Resource.FromString(body).quality_rule.dataset for body in bodies}
        return ruled | {name for kind, name in keys if kind == "Dataset"}

    async def remains(self, keys: Collection[Key]) -> Mapping[Key, resource_pb2.Resource]:
        """Of resources that were removed, those whose data are there still, as they were last declared."""
        async with self._engine.connect() as connection:
            former = await last(connection, [key for key in keys if retention.makes(key)])
            dropped = await retirements.dropped(connection, former)
        return {key: resource for key, resource in former.items() if key not in dropped}

    async def edit_status(self, key: Key, edit: Callable[[resource_pb2.Status], None], message: str) -> None:
        """Changes the status of a resource; its specification and generation stay. Raises NOT_FOUND."""
        async with self._engine.begin() as connection:
            await lock(connection)
            await edit_status(connection, await find(connection, *key), edit, message)


async def lock(connection: AsyncConnection) -> None:
    """Queues this transaction behind all others that change resources."""
    await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))


async def touch(connection: AsyncConnection, key: Key, message: str) -> None:
    """Gives a resource a new version, so that watchers look at it again; nothing else of it changes. The transaction holds the lock."""
    current = await find(connection, *key)
    current.metadata.resource_version = await _version(connection) + 1
    await _write(connection, current, message)


async def touch_repinned(
    connection: AsyncConnection, cell: str, before: resource_pb2.Resource | None, after: resource_pb2.Resource | None
) -> None:
    """A cell whose pins change sees other schemas: its watchers must look at these again. The transaction holds the lock."""
    for key in [("Schema", name) for name in sorted(repinned(before, after))]:
        if key in await _some(connection, [key]):
            await touch(connection, key, f"cell {cell} goes by another version")


async def find(connection: AsyncConnection, kind: str, name: str) -> resource_pb2.Resource:
    """One resource, as this transaction sees it. Raises NOT_FOUND."""
    body = await connection.scalar(sa.select(RESOURCES.c.body).where(RESOURCES.c.kind == kind, RESOURCES.c.name == name))
    if body is None:
        raise ArterialError(Reason.NOT_FOUND, f"{kind}/{name} does not exist")
    return resource_pb2.Resource.FromString(body)


async def of_kind(connection: AsyncConnection, kind: str, names: Collection[str] | None = None) -> dict[str, resource_pb2.Resource]:
    """Resources of a kind by name: all, or those of these names that are there."""
    if names is not None and not names:
        return {}
    query = sa.select(RESOURCES.c.name, RESOURCES.c.body).where(RESOURCES.c.kind == kind)
    query = query if names is None else query.where(RESOURCES.c.name == sa.any_(sa.literal(sorted(set(names)), ARRAY(sa.Text))))
    return {row.name: resource_pb2.Resource.FromString(row.body) for row in (await connection.execute(query)).all()}


async def naming(connection: AsyncConnection, kind: str, names: Collection[str]) -> list[resource_pb2.Resource]:
    """Resources of a kind in which one of these names stands, in whatever field: the database looks, so that only these are parsed."""
    if not names:
        return []
    wanted = sa.bindparam("wanted", [name.encode() for name in sorted(names)], ARRAY(sa.LargeBinary))
    within = sa.text("EXISTS (SELECT FROM unnest(:wanted) AS name WHERE position(name IN body) > 0)").bindparams(wanted)
    query = sa.select(RESOURCES.c.body).where(RESOURCES.c.kind == kind, within).order_by(RESOURCES.c.name)
    return [resource_pb2.Resource.FromString(body) for body in (await connection.scalars(query)).all()]


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
    body = stored.SerializeToString(deterministic=True)
    await _store(connection, [_row(key_of(stored), stored.metadata.resource_version, body, Why("", message)) | {"shown": None}])


def _row(key: Key, version: int, body: bytes | None, why: Why) -> dict[str, Any]:
    return {"kind": key[0], "name": key[1], "version": version, "body": body, "actor": why.actor, "message": why.message}


async def _store(connection: AsyncConnection, changes: Sequence[Mapping[str, Any]]) -> None:
    """Writes the log, and the resources as they are after it."""
    if not changes:
        return
    await connection.execute(sa.insert(CHANGES), changes)
    kept = [{name: row[name] for name in ("kind", "name", "version", "body")} for row in changes if row["body"] is not None]
    gone = [(row["kind"], row["name"]) for row in changes if row["body"] is None]
    if kept:
        values = insert(RESOURCES)
        fields = {"version": values.excluded.version, "body": values.excluded.body}
        await connection.execute(values.on_conflict_do_update(index_elements=["kind", "name"], set_=fields), kept)
    if gone:
        await connection.execute(sa.delete(RESOURCES).where(sa.tuple_(RESOURCES.c.kind, RESOURCES.c.name).in_(gone)))


async def touch_removed(connection: AsyncConnection, key: Key, message: str) -> None:
    """As `touch`, of a resource that is not there any more, which cells see in their turn."""
    row = _row(key, await _version(connection) + 1, None, Why("", message))
    await _store(connection, [row | {"shown": None}])


async def last(connection: AsyncConnection, keys: Collection[Key]) -> Mapping[Key, resource_pb2.Resource]:
    """Resources as they were last declared, whether or not they are still; those that never were are missing."""
    if not keys:
        return {}
    kinds, names = (sa.literal(sorted(set(parts)), ARRAY(sa.Text)) for parts in zip(*keys, strict=True))
    ever = sa.select(CHANGES.c.body).where(CHANGES.c.kind == sa.any_(kinds), CHANGES.c.name == sa.any_(names), CHANGES.c.body.is_not(None))
    query = ever.distinct(CHANGES.c.kind, CHANGES.c.name).order_by(CHANGES.c.kind, CHANGES.c.name, CHANGES.c.version.desc())
    found = _parsed((await connection.scalars(query)).all())
    return {key: found[key] for key in keys if key in found}


async def retire(connection: AsyncConnection, removed: Sequence[resource_pb2.Resource], now: datetime) -> list[Run]:
    """Has the data of removed resources dropped after their retention, which begins now."""
    names = [name for resource in removed for name in retention.makes(key_of(resource))]
    if not names:
        return []
    # Who described the data may be gone longer than what made them.
    described, cells = await last(connection, [("Dataset", name) for name in names]), sorted(await of_kind(connection, "Cell"))
    return await retirements.plan(connection, Removed(removed, list(described.values()), cells), now)


async def _some(connection: AsyncConnection, keys: Sequence[Key]) -> Mapping[Key, resource_pb2.Resource]:
    names = sa.literal(list({name for _, name in keys}), ARRAY(sa.Text))
    bodies = (await connection.scalars(sa.select(RESOURCES.c.body).where(RESOURCES.c.name == sa.any_(names)))).all()
    return {key_of(resource): resource for resource in map(resource_pb2.Resource.FromString, bodies)}


def _parsed(bodies: Sequence[bytes]) -> Mapping[Key, resource_pb2.Resource]:
    return {key_of(resource): resource for resource in map(resource_pb2.Resource.FromString, bodies)}


def newest() -> "sa.ScalarSelect[int]":
    """The newest version, for use in a statement; 0 before the first."""
    return sa.select(sa.func.coalesce(sa.func.max(CHANGES.c.version), 0)).scalar_subquery()


async def _version(connection: AsyncConnection) -> int:
    return int(await connection.scalar(sa.select(newest())) or 0)


def _next(
    wanted: resource_pb2.Resource,
    current: resource_pb2.Resource | None,
    former: resource_pb2.Resource | None,
    version: int,
    now: datetime,
) -> resource_pb2.Resource:
    """The resource as it is stored: its metadata and status are the control plane's own.

    Generations go on where those of a `former` self ended, so that no report on that is taken for one on this.
    """
    stored = resource_pb2.Resource()
    stored.CopyFrom(wanted)
    stored.metadata.updated_at.FromDatetime(now)
    stored.metadata.created_at.CopyFrom(stored.metadata.updated_at if current is None else current.metadata.created_at)
    stored.metadata.generation = 1 if former is None else former.metadata.generation + 1
    stored.metadata.resource_version = version
    stored.ClearField("status")
    if current is not None and current.HasField("status"):
        stored.status.CopyFrom(current.status)
    if wanted.kind == "Schema" and wanted.status.HasField("schema"):
        stored.status.schema.CopyFrom(wanted.status.schema)
    return stored


def expect(edit: Edit, current: resource_pb2.Resource | None) -> None:
    """Raises CONFLICT if a resource has not the version that an edit expects, NOT_FOUND for the removal of what does not exist."""
    what = "/".join(edit.key)
    if current is None:
        if edit.expected == ABSENT:
            return
        if edit.wanted is None:
            raise ArterialError(Reason.NOT_FOUND, f"{what} does not exist")
        if edit.expected:
            raise ArterialError(Reason.CONFLICT, f"{what} was deleted since version {edit.expected}: read it again")
    elif edit.expected not in (0, current.metadata.resource_version):
        raise ArterialError(
            Reason.CONFLICT, f"{what} is at version {current.metadata.resource_version}, not {edit.expected}: read it again"
        )
