"""Pins of cells as the registry sees them: the schema that such a cell is shown, and the versions that must therefore stay."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.logs import logger
from services.controlplane.registry import store
from services.controlplane.registry.definition import RegistryCode, failure
from services.controlplane.registry.names import qualified
from services.controlplane.registry.store import VERSIONS, Stored, Version
from services.controlplane.resources.pinning import pins_of, subject_of
from services.controlplane.resources.store import of_kind

Resource = resource_pb2.Resource
_log = logger(__name__)


async def shown(connection: AsyncConnection, cells: Mapping[str, Resource]) -> Mapping[str, Mapping[str, bytes]]:
    """Of these cells, by their names, the schemas that they pin, serialised as they see them: by Schema resource, then by cell.

    A version that is not there, as after a restore of half a database, is said so, and the cell sees what is declared.
    """
    pins = [(cell, name, version) for cell, resource in cells.items() for name, version in pins_of(resource).items()]
    if not pins:
        return {}
    schemas = await of_kind(connection, "Schema", [name for _, name, _ in pins])
    stored = await _stored(connection, {(qualified(subject_of(schemas[name])), version) for _, name, version in pins if name in schemas})
    found: dict[str, dict[str, bytes]] = {}
    for cell, name, version in pins:
        kept = stored.get((qualified(subject_of(schemas[name])), version)) if name in schemas else None
        if kept is None:
            _log.error("pinned version is not there, the cell goes by what is declared", cell=cell, schema=name, version=version)
        else:
            found.setdefault(name, {})[cell] = _at(schemas[name], version, kept).SerializeToString(deterministic=True)
    return found


async def refuse_pinned(connection: AsyncConnection, gone: Sequence[Version]) -> None:
    """Raises 42206 if cells pin what goes."""
    cells = await of_kind(connection, "Cell")
    schemas = await of_kind(connection, "Schema", [name for cell in cells.values() for name in pins_of(cell)])
    subjects = {name: qualified(subject_of(schema)) for name, schema in schemas.items()}
    for each in gone:
        wanted = each.subject, each.version
        users = sorted(
            cell for cell, found in cells.items() for name, version in pins_of(found).items() if (subjects.get(name), version) == wanted
        )
        if users:
            where = f"{{subject={each.subject},version={each.version}}}"
            raise failure(RegistryCode.REFERENCE_EXISTS, f"One or more cells pin the schema {where}: {', '.join(users)}")


async def _stored(connection: AsyncConnection, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], Stored]:
    query = sa.select(VERSIONS).where(sa.tuple_(VERSIONS.c.subject, VERSIONS.c.version).in_(sorted(wanted)))
    versions = [Version(*row) for row in await connection.execute(query)]
    found = await store.schemas(connection, {each.schema_id for each in versions})
    return {(each.subject, each.version): found[each.schema_id] for each in versions}


def _at(declared: Resource, version: int, stored: Stored) -> Resource:
    """The Schema resource as it would be were this version declared."""
    pinned = Resource()
    pinned.CopyFrom(declared)
    pinned.schema.type = specs_pb2.SchemaType.Value(f"SCHEMA_TYPE_{stored.definition.type}")
    pinned.schema.definition = stored.definition.text
    pinned.status.schema.CopyFrom(status_of(version, stored))
    return pinned


def status_of(version: int, stored: Stored) -> resource_pb2.SchemaStatus:
    """What the registry made of a schema, as its resource says it."""
    return resource_pb2.SchemaStatus(
        schema_id=stored.schema_id, version=version, message=stored.message, file_descriptor_set=stored.file_descriptor_set or b""
    )
