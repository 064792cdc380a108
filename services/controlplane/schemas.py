"""The schema registry: subjects, versions, ids. Ids are allocated once, here, for all cells."""

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import schema_registry_service_pb2 as pb
from chassis.errors import ArterialError, Reason, Violation
from chassis.wire import BUILTIN_IDS, Schemas, descriptor_set, load_descriptor
from services.controlplane import compatibility
from services.controlplane.store import ResourceStore

REGISTER_LOCK = 0x53434845
_metadata = sa.MetaData()
SCHEMAS = sa.Table(
    "schemas",
    _metadata,
    sa.Column("schema_id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary),
    sa.Column("file_descriptor_set", sa.LargeBinary),
    sa.Column("message", sa.Text),
)
VERSIONS = sa.Table(
    "schema_versions",
    _metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("schema_id", sa.Integer),
)


@dataclass(frozen=True)
class Registered:
    """Where a schema stands in its subject."""

    schema_id: int
    version: int


class SchemaRegistry:
    """Registers, finds and checks schemas. The first version of a declared topic's subject is the built-in schema of its message."""

    def __init__(self, engine: AsyncEngine, resources: ResourceStore) -> None:
        self._engine = engine
        self._resources = resources

    async def register(self, subject: str, schema: pb.Schema) -> Registered:
        """Registers a version; the same schema has the same id and version.

        Raises:
            ArterialError: INVALID_REQUEST if it cannot be read, REFUSED with its violations if it is not backward compatible.
        """
        fingerprint = hashlib.sha256(schema.message.encode() + b"\0" + schema.file_descriptor_set).digest()
        async with self._engine.begin() as connection:
            await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({REGISTER_LOCK})"))
            broken = await self._violations(connection, subject, schema)
            if broken:
                found = [Violation(violation.path, f"{violation.rule}: {violation.message}") for violation in broken]
                raise ArterialError(Reason.REFUSED, f"the schema is not backward compatible with {subject}", violations=found)
            row = insert(SCHEMAS).values(fingerprint=fingerprint, file_descriptor_set=schema.file_descriptor_set, message=schema.message)
            await connection.execute(row.on_conflict_do_nothing(index_elements=["fingerprint"]))
            schema_id = int(await connection.scalar(sa.select(SCHEMAS.c.schema_id).where(SCHEMAS.c.fingerprint == fingerprint)) or 0)
            known = sa.select(VERSIONS.c.version).where(VERSIONS.c.subject == subject, VERSIONS.c.schema_id == schema_id)
            version = await connection.scalar(known)
            if version is None:
                newest = await connection.scalar(sa.select(sa.func.max(VERSIONS.c.version)).where(VERSIONS.c.subject == subject))
                first = 2 if await self._builtin(subject) is not None else 1
                version = first if newest is None else newest + 1
                await connection.execute(sa.insert(VERSIONS).values(subject=subject, version=version, schema_id=schema_id))
        return Registered(schema_id, int(version))

    async def check(self, subject: str, schema: pb.Schema) -> list[pb.SchemaViolation]:
        """Why the schema could not be registered; nothing if it could."""
        async with self._engine.connect() as connection:
            return await self._violations(connection, subject, schema)

    async def get(self, schema_id: int) -> pb.RegisteredSchema:
        """A schema by id, built-in ones included. Raises NOT_FOUND."""
        name = next((name for name, known in BUILTIN_IDS.items() if known == schema_id), None)
        if name is not None:
            schema = pb.Schema(file_descriptor_set=descriptor_set(Schemas().builtin(name).descriptor), message=name)
            return pb.RegisteredSchema(schema_id=schema_id, subject=name, version=1, schema=schema)
        query = sa.select(SCHEMAS, VERSIONS.c.subject, VERSIONS.c.version).join(VERSIONS, VERSIONS.c.schema_id == SCHEMAS.c.schema_id)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query.where(SCHEMAS.c.schema_id == schema_id).order_by(VERSIONS.c.subject))).first()
        if row is None:
            raise ArterialError(Reason.NOT_FOUND, f"schema {schema_id} is not registered")
        schema = pb.Schema(file_descriptor_set=row.file_descriptor_set, message=row.message)
        return pb.RegisteredSchema(schema_id=schema_id, subject=row.subject, version=row.version, schema=schema)

    async def _violations(self, connection: AsyncConnection, subject: str, schema: pb.Schema) -> list[pb.SchemaViolation]:
        new = _read(schema)
        query = sa.select(SCHEMAS).join(VERSIONS, VERSIONS.c.schema_id == SCHEMAS.c.schema_id).where(VERSIONS.c.subject == subject)
        row = (await connection.execute(query.order_by(VERSIONS.c.version.desc()).limit(1))).first()
        old = load_descriptor(row.file_descriptor_set, row.message) if row is not None else await self._builtin(subject)
        return [] if old is None else compatibility.violations(old, new)

    async def _builtin(self, subject: str) -> Descriptor | None:
        try:
            topic = await self._resources.get("Topic", subject.removesuffix("-value"))
        except ArterialError:
            return None
        return Schemas().builtin(topic.topic.message).descriptor if topic.topic.message in BUILTIN_IDS else None


def _read(schema: pb.Schema) -> Descriptor:
    try:
        return load_descriptor(schema.file_descriptor_set, schema.message)
    except (DecodeError, KeyError, TypeError) as error:
        why = f"not a FileDescriptorSet with message {schema.message}, dependencies first: {error}"
        raise ArterialError(Reason.INVALID_REQUEST, "the schema cannot be read", violations=[Violation("schema", why)]) from error
