"""Schemas, versions and settings in PostgreSQL: statements of one transaction each caller holds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.controlplane.registry.definition import Definition, Reference, RegistryCode, SchemaType, failure
from services.controlplane.registry.reading import Understood

# Whoever registers or deletes queues up: a version number and an id are given once.
WRITE_LOCK = 0x53434845
# Ids below are those of built-in contracts.
FIRST_ID = 1000
_metadata = sa.MetaData()
SCHEMAS = sa.Table(
    "schemas",
    _metadata,
    sa.Column("schema_id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary),
    sa.Column("type", sa.Text),
    sa.Column("text", sa.Text),
    sa.Column("refs", JSONB),
    sa.Column("metadata", JSONB(none_as_null=True)),
    sa.Column("rule_set", JSONB(none_as_null=True)),
    sa.Column("file_descriptor_set", sa.LargeBinary),
    sa.Column("message", sa.Text),
)
VERSIONS = sa.Table(
    "schema_versions",
    _metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("schema_id", sa.Integer),
    sa.Column("deleted", sa.Boolean),
)
SETTINGS = sa.Table(
    "subject_settings",
    _metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("compatibility", sa.Text),
    sa.Column("normalize", sa.Boolean),
    sa.Column("mode", sa.Text),
)


@dataclass(frozen=True)
class Stored:
    """A schema as it is kept."""

    schema_id: int
    definition: Definition
    file_descriptor_set: bytes
    message: str


@dataclass(frozen=True)
class Version:
    """A version of a subject."""

    subject: str
    version: int
    schema_id: int
    deleted: bool = False


@dataclass(frozen=True)
class Settings:
    """What is configured for a subject, a context or everything; None where a wider scope decides."""

    compatibility: str | None = None
    normalize: bool | None = None
    mode: str | None = None


async def lock(connection: AsyncConnection) -> None:
    """Queues this transaction behind all others that change the registry."""
    await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))


async def schema(connection: AsyncConnection, schema_id: int) -> Stored | None:
    """A schema by id, whether a subject has it or not."""
    row = (await connection.execute(sa.select(SCHEMAS).where(SCHEMAS.c.schema_id == schema_id))).first()
    return None if row is None else _stored(row)


def _stored(row: Any) -> Stored:
    references = tuple(Reference(each["name"], each["subject"], each["version"]) for each in row.refs)
    definition = Definition(SchemaType(row.type), row.text, references, row.metadata, row.rule_set)
    return Stored(row.schema_id, definition, row.file_descriptor_set, row.message)


async def schemas(connection: AsyncConnection, ids: Collection[int]) -> dict[int, Stored]:
    """Schemas by id."""
    rows = await connection.execute(sa.select(SCHEMAS).where(SCHEMAS.c.schema_id.in_(ids)))
    return {row.schema_id: _stored(row) for row in rows}


async def schema_id(connection: AsyncConnection, fingerprint: bytes) -> int | None:
    """Id of a schema, if it is known."""
    found: int | None = await connection.scalar(sa.select(SCHEMAS.c.schema_id).where(SCHEMAS.c.fingerprint == fingerprint))
    return found


def values(understood: Understood, sent: bytes = b"") -> dict[str, Any]:
    """The row of a schema; `sent` is the FileDescriptorSet that it came as, if it did."""
    definition = understood.definition
    return {
        "fingerprint": understood.fingerprint,
        "type": definition.type.value,
        "text": definition.text,
        "refs": [{"name": each.name, "subject": each.subject, "version": each.version} for each in definition.references],
        "metadata": definition.metadata,
        "rule_set": definition.rule_set,
        "file_descriptor_set": sent or understood.file_descriptor_set,
        "message": understood.message,
    }


async def put_schema(connection: AsyncConnection, row: dict[str, Any], wanted: int | None = None) -> int:
    """Keeps a schema under a new id, or under the one that is wanted.

    Raises:
        ArterialError: 42205 if another schema has the wanted id.
    """
    if wanted is None:
        inserted = sa.insert(SCHEMAS).values(**row).returning(SCHEMAS.c.schema_id)
        return int((await connection.execute(inserted)).scalar_one())
    if await schema(connection, wanted) is not None:
        raise failure(RegistryCode.OPERATION_NOT_PERMITTED, f"Overwriting existing schema with id {wanted} is not permitted.")
    await connection.execute(sa.insert(SCHEMAS).values(schema_id=wanted, **row))
    # The next id that is given out is a later one.
    sequence = "pg_get_serial_sequence('schemas', 'schema_id')"
    await connection.execute(sa.text(f"SELECT setval({sequence}, GREATEST(:id, nextval({sequence})))"), {"id": wanted})
    return wanted


async def replace_schema(connection: AsyncConnection, schema_id: int, row: dict[str, Any]) -> None:
    """Keeps a schema under an id, whatever was kept there."""
    put = insert(SCHEMAS).values(schema_id=schema_id, **row)
    await connection.execute(put.on_conflict_do_update(index_elements=["schema_id"], set_=row))


async def unprinted(connection: AsyncConnection) -> list[tuple[int, FileDescriptorSet]]:
    """Schemas of the revision that kept no text."""
    rows = await connection.execute(sa.select(SCHEMAS.c.schema_id, SCHEMAS.c.file_descriptor_set).where(SCHEMAS.c.text == ""))
    return [(row.schema_id, FileDescriptorSet.FromString(row.file_descriptor_set)) for row in rows]


async def versions(connection: AsyncConnection, subject: str, *, deleted: bool = False) -> list[Version]:
    """Versions of a subject, oldest first; softly deleted ones only with `deleted`."""
    condition = sa.true() if deleted else sa.not_(VERSIONS.c.deleted)
    rows = await connection.execute(sa.select(VERSIONS).where(VERSIONS.c.subject == subject, condition).order_by(VERSIONS.c.version))
    return [Version(*row) for row in rows]


async def of_schema(connection: AsyncConnection, schema_id: int, *, deleted: bool = False) -> list[Version]:
    """Where a schema is registered, by subject and version."""
    condition = sa.true() if deleted else sa.not_(VERSIONS.c.deleted)
    query = sa.select(VERSIONS).where(VERSIONS.c.schema_id == schema_id, condition)
    return [Version(*row) for row in await connection.execute(query.order_by(VERSIONS.c.subject, VERSIONS.c.version))]


async def all_versions(connection: AsyncConnection, *, prefix: str, deleted: bool, latest: bool) -> list[Version]:
    """Versions of all subjects that begin with a prefix, by subject and version; with `latest` the newest of each."""
    condition = sa.true() if deleted else sa.not_(VERSIONS.c.deleted)
    query = sa.select(VERSIONS).where(VERSIONS.c.subject.startswith(prefix, autoescape=True), condition)
    if latest:
        query = query.distinct(VERSIONS.c.subject).order_by(VERSIONS.c.subject, VERSIONS.c.version.desc())
    else:
        query = query.order_by(VERSIONS.c.subject, VERSIONS.c.version)
    return [Version(*row) for row in await connection.execute(query)]


async def subjects(connection: AsyncConnection, *, deleted: bool = False, only_deleted: bool = False) -> list[str]:
    """Names of all subjects that have a version, in order."""
    query = sa.select(VERSIONS.c.subject).group_by(VERSIONS.c.subject).order_by(VERSIONS.c.subject)
    if only_deleted:
        query = query.having(sa.func.bool_and(VERSIONS.c.deleted))
    elif not deleted:
        query = query.where(sa.not_(VERSIONS.c.deleted))
    return list((await connection.scalars(query)).all())


async def put_version(connection: AsyncConnection, subject: str, schema_id: int, version: int | None = None) -> int:
    """Adds a version to a subject: the next one, or the one that is given; what was softly deleted under it comes back."""
    if version is None:
        newest = await connection.scalar(sa.select(sa.func.max(VERSIONS.c.version)).where(VERSIONS.c.subject == subject))
        version = int(newest or 0) + 1
    row = insert(VERSIONS).values(subject=subject, version=version, schema_id=schema_id, deleted=False)
    changed = {"schema_id": schema_id, "deleted": False}
    await connection.execute(row.on_conflict_do_update(index_elements=["subject", "version"], set_=changed))
    return version


async def delete_versions(connection: AsyncConnection, found: Iterable[Version], *, permanent: bool) -> None:
    """Marks versions as deleted, or removes them; the schemas themselves stay: an id never means another schema."""
    for each in found:
        condition = sa.and_(VERSIONS.c.subject == each.subject, VERSIONS.c.version == each.version)
        statement = sa.delete(VERSIONS).where(condition) if permanent else sa.update(VERSIONS).where(condition).values(deleted=True)
        await connection.execute(statement)


async def referring(connection: AsyncConnection, subject: str, version: int, *, deleted: bool = False) -> list[int]:
    """Ids of registered schemas that refer to a version."""
    condition = sa.true() if deleted else sa.not_(VERSIONS.c.deleted)
    query = sa.select(SCHEMAS.c.schema_id).distinct().join(VERSIONS, VERSIONS.c.schema_id == SCHEMAS.c.schema_id)
    query = query.where(SCHEMAS.c.refs.contains([{"subject": subject, "version": version}]), condition)
    return list((await connection.scalars(query.order_by(SCHEMAS.c.schema_id))).all())


async def settings(connection: AsyncConnection, scopes: Sequence[str]) -> dict[str, Settings]:
    """What is configured, by scope."""
    rows = await connection.execute(sa.select(SETTINGS).where(SETTINGS.c.scope.in_(scopes)))
    return {row.scope: Settings(row.compatibility, row.normalize, row.mode) for row in rows}


async def put_settings(connection: AsyncConnection, scope: str, **changed: object) -> None:
    """Configures a scope; a value of None takes the setting away."""
    row = insert(SETTINGS).values(scope=scope, **changed)
    await connection.execute(row.on_conflict_do_update(index_elements=["scope"], set_=changed))
