"""Schemas that were understood once, by id: what an id means never changes."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from services.controlplane.registry import protobuf, store
from services.controlplane.registry.definition import Reference, RegistryCode, SchemaType, failure, invalid
from services.controlplane.registry.names import qualified, split
from services.controlplane.registry.reading import Import, Understood, understand
from services.controlplane.registry.store import Stored

# Models of this many schemas are kept: a 200-field one takes about 200 KB.
KEPT = 1000
MAX_REFERENCES = 1000
T = TypeVar("T")


class Library:
    """Finds schemas by id and understands them; understands new ones with what they refer to."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[int, Understood] = OrderedDict()
        self._stored: OrderedDict[int, Stored] = OrderedDict()
        # Grows when ids come to mean something else, which only a restored backup does: what was kept of them elsewhere is stale.
        self.generation = 0

    def forget(self) -> None:
        """Forgets everything."""
        self._by_id.clear()
        self._stored.clear()
        self.generation += 1

    async def stored(self, connection: AsyncConnection, schema_id: int) -> Stored:
        """A schema as it is kept. Raises 40403."""
        found = self._stored.get(schema_id) or await store.schema(connection, schema_id)
        if found is None:
            raise failure(RegistryCode.SCHEMA_NOT_FOUND, f"Schema {schema_id} not found")
        _keep(self._stored, schema_id, found)
        return found

    async def understood(self, connection: AsyncConnection, schema_id: int) -> Understood:
        """A schema that is kept. Raises 40403."""
        found = self._by_id.get(schema_id)
        if found is None:
            stored = await self.stored(connection, schema_id)
            if stored.definition.type is SchemaType.PROTOBUF:
                found = await asyncio.to_thread(_compiled, stored)
            else:
                imports = await self.imports(connection, stored.definition.references)
                found = await asyncio.to_thread(understand, stored.definition, imports)
        _keep(self._by_id, schema_id, found)
        return found

    async def imports(self, connection: AsyncConnection, references: Sequence[Reference]) -> list[Import]:
        """What references lead to, each after what it refers to itself. Raises 42201 for one that leads nowhere."""
        found: dict[str, Import] = {}

        async def add(wanted: Sequence[Reference]) -> None:
            for each in wanted:
                if each.name in found:
                    continue
                if len(found) >= MAX_REFERENCES:
                    raise invalid("the schema cannot be read", f"it refers to over {MAX_REFERENCES} schemas")
                schema = await self.understood(connection, await _schema_id(connection, each))
                await add(schema.definition.references)
                found[each.name] = Import(each.name, schema)

        await add(references)
        return list(found.values())


async def resolved(connection: AsyncConnection, references: Sequence[Reference], subject: str) -> tuple[Reference, ...]:
    """References with the full names of their subjects, and -1 replaced by the newest version. Raises 42201."""
    context, done = split(subject)[0], []
    for each in references:
        target = qualified(each.subject, context)
        version = each.version
        if version == -1:
            known = await store.versions(connection, target)
            if not known:
                raise _nowhere(each)
            version = known[-1].version
        done.append(Reference(each.name, target, version))
    return tuple(done)


async def _schema_id(connection: AsyncConnection, reference: Reference) -> int:
    for known in await store.versions(connection, reference.subject, deleted=True):
        if known.version == reference.version:
            return known.schema_id
    raise _nowhere(reference)


def _nowhere(reference: Reference) -> Exception:
    return invalid(
        "the schema cannot be read", f"No schema reference found for subject {reference.subject} and version {reference.version}"
    )


def _compiled(stored: Stored) -> Understood:
    files = protobuf.parse_set(stored.file_descriptor_set)
    return Understood(stored.definition, "", protobuf.model(files), tuple(files))


def _keep(kept: OrderedDict[int, T], key: int, value: T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > KEPT:
        kept.popitem(last=False)
