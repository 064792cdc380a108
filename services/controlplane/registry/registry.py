"""The schema registry: registers, finds and checks schemas. Ids are allocated once, here, for all cells."""

import asyncio
from dataclasses import replace

import sqlalchemy as sa
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.wire import BUILTIN_IDS, Schemas, descriptor_set
from services.controlplane.registry import protobuf, store, verdicts
from services.controlplane.registry.configuration import Effective, effective
from services.controlplane.registry.definition import (
    Compatibility,
    Definition,
    Mode,
    Reference,
    Registered,
    RegistryCode,
    SchemaType,
    SchemaViolation,
    failure,
    invalid,
    storable,
)
from services.controlplane.registry.library import Library, resolved
from services.controlplane.registry.names import DEFAULT_CONTEXT, SUFFIX, join, qualified, split
from services.controlplane.registry.reading import Understood, of_files, understand
from services.controlplane.registry.store import Version
from services.controlplane.registry.verdicts import Earlier, Verdict
from services.controlplane.resources import store as resource_store
from services.controlplane.resources.pinning import subject_of


class SchemaRegistry:
    """Registers, finds and checks schemas. The first version of a declared topic's subject is the built-in schema of its message."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.library = Library()

    async def prepare(self) -> None:
        """Makes built-in contracts and the files that they import known under their ids, and prints what an earlier revision left.

        To be called at the start, and after a backup was restored.
        """
        self.library.forget()
        async with self.engine.begin() as connection:
            await store.lock(connection)
            for schema_id, files in await store.unprinted(connection):
                if schema_id >= store.FIRST_ID:
                    ready = await self._referenced(connection, of_files(protobuf.parse_set(files.SerializeToString())), "", write=True)
                    if ready is not None:
                        row = store.values(ready, files.SerializeToString()) | {"message": ready.message}
                        await store.replace_schema(connection, schema_id, row)
            for name, schema_id in BUILTIN_IDS.items():
                await self._put_builtin(connection, name, schema_id)

    async def register(
        self,
        subject: str,
        definition: Definition,
        *,
        normalize: bool = False,
        wanted: Registered | None = None,
        level: Compatibility | None = None,
    ) -> Registered:
        """Registers a version; the same schema has the same id, and in a subject the same version.

        `wanted` are the id and the version (0 for the next one) of a subject that is in the mode IMPORT; `level` counts instead of what is
        configured.

        Raises:
            ArterialError: 42201 if it cannot be read, 409 with its violations if it is not compatible, 42205 if the mode forbids it.
        """
        name = qualified(subject)
        async with self.engine.connect() as connection:
            understood, settings = await self._understood(connection, name, definition, normalize)
            _check_mode(name, settings, wanted)
            known = None if wanted else await self._find(connection, name, understood)
            if known is not None:
                return Registered(known.schema_id, known.version)
        return await self._add_new(name, understood, wanted=wanted, level=level)

    async def register_set(self, subject: str, file_descriptor_set: bytes, message: str) -> Registered:
        """Registers a Protobuf schema that comes with all files that it imports; these become subjects of their own names.

        Raises:
            ArterialError: as `register`.
        """
        name = qualified(subject)
        understood = await asyncio.to_thread(_of_set, file_descriptor_set, message)
        async with self.engine.connect() as connection:
            _check_mode(name, await effective(connection, name), None)
        return await self._add_new(name, understood, sent=file_descriptor_set)

    async def check(self, subject: str, definition: Definition, level: Compatibility | None = None) -> list[SchemaViolation]:
        """Why the schema could not be registered; nothing if it could. Raises as `judge`."""
        return list((await self.judge(subject, definition, level=level)).violations)

    async def judge(
        self,
        subject: str,
        definition: Definition,
        *,
        normalize: bool = False,
        version: int | None = None,
        level: Compatibility | None = None,
    ) -> Verdict:
        """The verdict on a schema. With `version` only that one counts (-1: the newest); `level` counts instead of what is configured.

        Raises:
            ArterialError: 42201 if it cannot be read, 40402 if there is no such version.
        """
        name = qualified(subject)
        async with self.engine.begin() as connection:
            understood, _ = await self._understood(connection, name, definition, normalize)
            return await self._judge(connection, name, understood, version, level)

    async def judge_set(self, subject: str, file_descriptor_set: bytes, message: str, *, version: int | None = None) -> Verdict:
        """As `judge`, of a Protobuf schema that comes with all files that it imports."""
        understood = await asyncio.to_thread(_of_set, file_descriptor_set, message)
        async with self.engine.begin() as connection:
            return await self._judge(connection, qualified(subject), understood, version)

    async def lookup(self, subject: str, definition: Definition, *, normalize: bool = False, deleted: bool = False) -> Version:
        """The version of a subject that has this schema. Raises 40401 or 40403."""
        name = qualified(subject)
        async with self.engine.begin() as connection:
            await self.adopt(connection, name)
            if not await store.versions(connection, name, deleted=deleted):
                raise failure(RegistryCode.SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
            understood, _ = await self._understood(connection, name, definition, normalize)
            found = await self._find(connection, name, understood, deleted=deleted)
        if found is None:
            raise failure(RegistryCode.SCHEMA_NOT_FOUND, "Schema not found")
        return found

    async def adopt(self, connection: AsyncConnection, subject: str) -> resource_pb2.Resource | None:
        """The declared topic of a subject, whose built-in schema becomes the subject's first version."""
        if not subject.endswith(SUFFIX) or split(subject)[0] != DEFAULT_CONTEXT:
            return None
        try:
            # Over the same connection: one that is held while another is waited for can stop all writers for good.
            topic = await resource_store.find(connection, "Topic", subject.removesuffix(SUFFIX))
        except ArterialError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise
        builtin = BUILTIN_IDS.get(topic.topic.message)
        if builtin is not None and all(each.version != 1 for each in await store.versions(connection, subject, deleted=True)):
            await store.put_version(connection, subject, builtin, 1)
        return topic

    async def adopt_all(self, connection: AsyncConnection) -> None:
        """Adopts all declared topics."""
        names = sa.select(resource_store.RESOURCES.c.name).where(resource_store.RESOURCES.c.kind == "Topic")
        for name in (await connection.scalars(names)).all():
            await self.adopt(connection, name + SUFFIX)

    async def _understood(
        self, connection: AsyncConnection, subject: str, definition: Definition, normalize: bool
    ) -> tuple[Understood, Effective]:
        names = [(each.name, each.subject) for each in definition.references]
        if not storable([definition.text, names, definition.metadata, definition.rule_set]):
            raise invalid("the schema cannot be read", "it has a NUL, half a surrogate pair or a number that is none")
        settings = await effective(connection, subject)
        ready = replace(definition, references=await resolved(connection, definition.references, subject))
        imports = await self.library.imports(connection, ready.references)
        return await asyncio.to_thread(understand, ready, imports, normalize=normalize or settings.normalize), settings

    async def _find(self, connection: AsyncConnection, subject: str, understood: Understood, *, deleted: bool = False) -> Version | None:
        ready = await self._referenced(connection, understood, subject, write=False)
        schema_id = None if ready is None else await store.schema_id(connection, ready.fingerprint)
        versions = await store.versions(connection, subject, deleted=deleted) if schema_id is not None else []
        return next((each for each in reversed(versions) if each.schema_id == schema_id), None)

    async def _add_new(
        self,
        subject: str,
        understood: Understood,
        *,
        sent: bytes = b"",
        wanted: Registered | None = None,
        level: Compatibility | None = None,
    ) -> Registered:
        async with self.engine.begin() as connection:
            await store.lock(connection)
            await self.adopt(connection, subject)
            ready = await self._referenced(connection, understood, subject, write=True)
            if ready is None:
                raise invalid("the schema cannot be read", "what it imports is not known")
            if wanted is not None:
                return await _import(connection, subject, ready, wanted)
            return await self._add(connection, subject, ready, sent, level)

    async def _add(
        self, connection: AsyncConnection, subject: str, ready: Understood, sent: bytes = b"", level: Compatibility | None = None
    ) -> Registered:
        schema_id = await store.schema_id(connection, ready.fingerprint)
        known = [each for each in await store.versions(connection, subject) if each.schema_id == schema_id]
        if known:
            return Registered(known[-1].schema_id, known[-1].version)
        broken = (await self._judge(connection, subject, ready, None, level)).violations
        if broken:
            told = tuple(Violation(each.path, f"{each.rule}: {each.message}") for each in broken)
            message = f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
            raise failure(RegistryCode.INCOMPATIBLE_SCHEMA, message, told)
        if schema_id is None:
            schema_id = await store.put_schema(connection, store.values(ready, sent))
        return Registered(schema_id, await store.put_version(connection, subject, schema_id))

    async def _judge(
        self,
        connection: AsyncConnection,
        subject: str,
        understood: Understood,
        version: int | None,
        level: Compatibility | None = None,
    ) -> Verdict:
        topic = await self.adopt(connection, subject) is not None or await _written(connection, subject)
        level = level or (await effective(connection, subject)).compatibility
        versions = await store.versions(connection, subject)
        if version is not None:
            versions = versions[-1:] if version == -1 else [each for each in versions if each.version == version]
            if not versions and version != -1:
                raise failure(RegistryCode.VERSION_NOT_FOUND, f"Version {version} not found.")
        # Whoever demands nothing, or approved a break at `apply`, lets the tables break too.
        table = topic and level is not Compatibility.NONE
        needed = versions if level.transitive or table else versions[-1:]
        earlier = [Earlier(each.version, await self.library.understood(connection, each.schema_id)) for each in needed]
        return await asyncio.to_thread(verdicts.judge, understood, earlier, level, table=table)

    async def _referenced(self, connection: AsyncConnection, understood: Understood, subject: str, *, write: bool) -> Understood | None:
        """The schema with references to all files that it imports, so that other clients can resolve them; each file is a subject.

        None if that takes a registration and `write` is not set.
        """
        files = understood.unreferenced()
        if not files:
            return understood
        context = split(subject)[0]
        named = {reference.name: reference for reference in understood.definition.references}
        by_name = {file.name: file for file in understood.files}
        for file in files:
            definition = Definition(SchemaType.PROTOBUF, "", _named(file, named))
            schema = await asyncio.to_thread(of_files, protobuf.closure(file, by_name), definition)
            target = join(context, file.name)
            if write:
                done = await self._add(connection, target, schema)
            else:
                found = await self._find_ready(connection, target, schema)
                if found is None:
                    return None
                done = found
            named[file.name] = Reference(file.name, target, done.version)
        added = [each for each in _named(understood.files[-1], named) if each not in understood.definition.references]
        references = (*understood.definition.references, *added)
        return replace(understood, definition=replace(understood.definition, references=references))

    @staticmethod
    async def _find_ready(connection: AsyncConnection, subject: str, ready: Understood) -> Registered | None:
        schema_id = await store.schema_id(connection, ready.fingerprint)
        known = [each for each in await store.versions(connection, subject) if each.schema_id == schema_id]
        return Registered(known[-1].schema_id, known[-1].version) if known else None

    async def _put_builtin(self, connection: AsyncConnection, name: str, schema_id: int) -> None:
        try:
            sent = descriptor_set(Schemas().builtin(name).descriptor)
        except LookupError:
            # An id may be reserved before its contract is written.
            return
        ready = await self._referenced(connection, of_files(protobuf.parse_set(sent)), "", write=True)
        if ready is not None:
            await store.replace_schema(connection, schema_id, store.values(ready, sent) | {"message": name})


async def _written(connection: AsyncConnection, subject: str) -> bool:
    """Whether a topic is written with a Schema resource that stands for the subject: by its own name, or because it says so."""
    names = [subject.removesuffix(SUFFIX)] if subject.endswith(SUFFIX) else []
    named = [schema.metadata.name for schema in await resource_store.naming(connection, "Schema", [subject])]
    declared = await resource_store.of_kind(connection, "Schema", [*names, *named])
    stands = {name for name, schema in declared.items() if qualified(subject_of(schema)) == subject}
    return any(topic.topic.schema in stands for topic in await resource_store.naming(connection, "Topic", stands))


def _of_set(file_descriptor_set: bytes, message: str) -> Understood:
    understood = of_files(protobuf.parse_set(file_descriptor_set))
    if message != understood.message:
        raise invalid("the schema cannot be read", f"{message} is not the first message of the last file: {understood.message or 'none'}")
    return understood


def _named(file: FileDescriptorProto, known: dict[str, Reference]) -> tuple[Reference, ...]:
    return tuple(known[name] for name in file.dependency if name in known)


def _check_mode(subject: str, settings: Effective, wanted: Registered | None) -> None:
    if settings.mode in (Mode.READONLY, Mode.READONLY_OVERRIDE):
        raise failure(RegistryCode.OPERATION_NOT_PERMITTED, f"Subject {subject} is in read-only mode")
    if (settings.mode is Mode.IMPORT) != (wanted is not None):
        text = "is not in import mode" if wanted else "is in import mode: an id is needed"
        raise failure(RegistryCode.OPERATION_NOT_PERMITTED, f"Subject {subject} {text}")


async def _import(connection: AsyncConnection, subject: str, ready: Understood, wanted: Registered) -> Registered:
    known = await store.schema_id(connection, ready.fingerprint)
    if known is not None and known != wanted.schema_id:
        text = f"Schema already registered with id {known} instead of input id {wanted.schema_id}"
        raise failure(RegistryCode.ID_DOES_NOT_MATCH, text)
    if known is None and wanted.schema_id < store.FIRST_ID:
        raise failure(RegistryCode.OPERATION_NOT_PERMITTED, f"ids below {store.FIRST_ID} are those of built-in contracts")
    schema_id = known if known is not None else await store.put_schema(connection, store.values(ready), wanted.schema_id)
    return Registered(schema_id, await store.put_version(connection, subject, schema_id, wanted.version or None))
