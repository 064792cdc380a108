"""What the registry has: subjects, versions, schemas by id; and how they go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from services.controlplane.registry import pins, store
from services.controlplane.registry.configuration import effective
from services.controlplane.registry.definition import Mode, RegistryCode, failure
from services.controlplane.registry.names import DEFAULT_CONTEXT, qualified, split
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.registry.store import Stored, Version

MAX_LISTED = 10_000


@dataclass(frozen=True)
class Entry:
    """A version with its schema."""

    version: Version
    stored: Stored


class Catalogue:
    """Lists, finds and deletes what is registered."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._engine = registry.engine
        self._library = registry.library

    async def schema(self, schema_id: int) -> Stored:
        """A schema by id that a subject has, or that is built in. Raises 40403."""
        async with self._engine.connect() as connection:
            if schema_id >= store.FIRST_ID and not await store.of_schema(connection, schema_id, deleted=True):
                raise failure(RegistryCode.SCHEMA_NOT_FOUND, f"Schema {schema_id} not found")
            return await self._library.stored(connection, schema_id)

    async def of_schema(self, schema_id: int, *, deleted: bool = False) -> list[Version]:
        """Where a schema is registered. Raises 40403 if it is not known."""
        await self.schema(schema_id)
        async with self._engine.begin() as connection:
            await self._registry.adopt_all(connection)
            return await store.of_schema(connection, schema_id, deleted=deleted)

    async def subjects(self, *, prefix: str = "", deleted: bool = False, only_deleted: bool = False) -> list[str]:
        """Names of subjects, in order: those of all contexts with the prefix ":*:"."""
        async with self._engine.begin() as connection:
            await self._registry.adopt_all(connection)
            found = await store.subjects(connection, deleted=deleted, only_deleted=only_deleted)
        return [name for name in found if _matches(name, prefix)]

    async def contexts(self) -> list[str]:
        """Contexts that have subjects, the default one first."""
        async with self._engine.connect() as connection:
            names = await store.subjects(connection, deleted=True)
        return [DEFAULT_CONTEXT, *sorted({split(name)[0] for name in names} - {DEFAULT_CONTEXT})]

    async def versions(self, subject: str, *, deleted: bool = False, only_deleted: bool = False) -> list[Version]:
        """Versions of a subject, oldest first. Raises 40401."""
        async with self._engine.begin() as connection:
            found = await self._versions(connection, subject, deleted=deleted or only_deleted)
        return [each for each in found if each.deleted or not only_deleted]

    async def version(self, subject: str, version: int, *, deleted: bool = False) -> Entry:
        """A version of a subject (-1: the newest). Raises 40401 or 40402."""
        async with self._engine.begin() as connection:
            found = _pick(await self._versions(connection, subject, deleted=deleted), version)
            return Entry(found, await self._library.stored(connection, found.schema_id))

    async def with_metadata(self, subject: str, wanted: Mapping[str, str], *, deleted: bool = False) -> Entry:
        """The newest version of a subject whose metadata has these properties. Raises 40401 or 40403."""
        entries = await self.entries(await self.versions(subject, deleted=deleted))
        for entry in reversed(entries):
            properties = (entry.stored.definition.metadata or {}).get("properties")
            if isinstance(properties, dict) and wanted.items() <= properties.items():
                return entry
        raise failure(RegistryCode.SCHEMA_NOT_FOUND, "Schema not found")

    async def all(self, *, prefix: str = "", deleted: bool = False, latest: bool = False, start: int = 0, limit: int = -1) -> list[Entry]:
        """Versions of all subjects that begin with a prefix."""
        found = await self._all(prefix, deleted=deleted, latest=latest)
        most = MAX_LISTED if limit < 0 else min(limit, MAX_LISTED)
        return await self.entries(found[start : start + most])

    async def newest(self, prefix: str = "") -> list[Version]:
        """The newest version of each subject that begins with a prefix, by name."""
        return await self._all(prefix, deleted=False, latest=True)

    async def entries(self, versions: Sequence[Version]) -> list[Entry]:
        """Versions with their schemas."""
        async with self._engine.connect() as connection:
            stored = await store.schemas(connection, {each.schema_id for each in versions})
        return [Entry(each, stored[each.schema_id]) for each in versions]

    async def _all(self, prefix: str, *, deleted: bool, latest: bool) -> list[Version]:
        async with self._engine.begin() as connection:
            await self._registry.adopt_all(connection)
            wanted = "" if prefix == ":*:" else prefix
            found = await store.all_versions(connection, prefix=wanted, deleted=deleted, latest=latest)
        return [each for each in found if _matches(each.subject, prefix)]

    async def referring(self, subject: str, version: int) -> list[int]:
        """Ids of schemas that refer to a version. Raises 40401 or 40402."""
        name = qualified(subject)
        async with self._engine.begin() as connection:
            found = _pick(await self._versions(connection, subject, deleted=True), version)
            return await store.referring(connection, name, found.version)

    async def delete_subject(self, subject: str, *, permanent: bool = False) -> list[int]:
        """Deletes all versions of a subject, softly at first. Returns their numbers.

        Raises:
            ArterialError: 40401, 40404 (it was softly deleted before), 40405 (it was not yet), 42205, 42206.
        """
        name = qualified(subject)
        async with self._engine.begin() as connection:
            await _writable(connection, name)
            known = await self._versions(connection, subject, deleted=True)
            live = [each for each in known if not each.deleted]
            if permanent and live:
                raise failure(
                    RegistryCode.SUBJECT_NOT_SOFT_DELETED, f"Subject '{subject}' was not deleted first before being permanently deleted"
                )
            if not permanent and not live:
                raise failure(
                    RegistryCode.SUBJECT_SOFT_DELETED, f"Subject '{subject}' was soft deleted.Set permanent=true to delete permanently"
                )
            gone = known if permanent else live
            await _unreferred(connection, gone, permanent)
            await store.delete_versions(connection, gone, permanent=permanent)
        return [each.version for each in gone]

    async def delete_version(self, subject: str, version: int, *, permanent: bool = False) -> int:
        """Deletes a version (-1: the newest), softly at first. Returns its number.

        Raises:
            ArterialError: 40401, 40402, 40406 (it was softly deleted before), 40407 (it was not yet), 42205, 42206.
        """
        name = qualified(subject)
        async with self._engine.begin() as connection:
            await _writable(connection, name)
            known = await self._versions(connection, subject, deleted=True)
            found = _pick([each for each in known if version != -1 or permanent or not each.deleted], version)
            where = f"Subject '{subject}' Version {found.version}"
            if permanent and not found.deleted:
                raise failure(RegistryCode.VERSION_NOT_SOFT_DELETED, f"{where} was not deleted first before being permanently deleted")
            if not permanent and found.deleted:
                raise failure(RegistryCode.VERSION_SOFT_DELETED, f"{where} was soft deleted.Set permanent=true to delete permanently")
            await _unreferred(connection, [found], permanent)
            await store.delete_versions(connection, [found], permanent=permanent)
        return found.version

    async def _versions(self, connection: AsyncConnection, subject: str, *, deleted: bool) -> list[Version]:
        name = qualified(subject)
        await self._registry.adopt(connection, name)
        found = await store.versions(connection, name, deleted=deleted)
        if not found:
            raise failure(RegistryCode.SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
        return found


def _pick(versions: Sequence[Version], version: int) -> Version:
    found = versions[-1:] if version == -1 else [each for each in versions if each.version == version]
    if not found:
        raise failure(RegistryCode.VERSION_NOT_FOUND, f"Version {version} not found.")
    return found[0]


def _matches(subject: str, prefix: str) -> bool:
    if prefix == ":*:":
        return True
    context, name = split(prefix) if prefix.startswith(":") else (DEFAULT_CONTEXT, prefix)
    own, rest = split(subject)
    return own == context and rest.startswith(name)


async def _writable(connection: AsyncConnection, subject: str) -> None:
    await store.lock(connection)
    if (await effective(connection, subject)).mode in (Mode.READONLY, Mode.READONLY_OVERRIDE):
        raise failure(RegistryCode.OPERATION_NOT_PERMITTED, f"Subject {subject} is in read-only mode")


async def _unreferred(connection: AsyncConnection, gone: Sequence[Version], permanent: bool) -> None:
    """Raises 42206 if schemas that stay refer to what goes, or cells pin it."""
    await pins.refuse_pinned(connection, gone)
    for each in gone:
        users = await store.referring(connection, each.subject, each.version, deleted=permanent)
        if users:
            where = f"{{subject={each.subject},version={each.version}}}"
            raise failure(RegistryCode.REFERENCE_EXISTS, f"One or more references exist to the schema {where}: ids {users}")
