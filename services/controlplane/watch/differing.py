"""What not all cells see alike: changes that are rolled out cell by cell, and schemas that cells pin."""

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from arterial.api.controlplane.v1 import resource_pb2
from chassis.resources import Key
from services.controlplane.registry import pins
from services.controlplane.resources.store import of_kind
from services.controlplane.rollouts import rollout_rows
from services.controlplane.watch.frames import Held


async def differing(connection: AsyncConnection) -> Mapping[Key, Held]:
    """By resource, within one state of the database. A cell goes by the pins that itself was shown."""
    held = dict(await rollout_rows.held(connection))
    declared: dict[str, resource_pb2.Resource | None] = {name: None for kind, name in held if kind == "Cell"}
    declared |= await of_kind(connection, "Cell")
    cells = {name: _as_seen(name, cell, held.get(("Cell", name))) for name, cell in declared.items()}
    for name, bodies in (await pins.shown(connection, cells)).items():
        held[("Schema", name)] = replace(held.get(("Schema", name), Held(None, None)), pinned=bodies)
    return held


def _as_seen(name: str, cell: resource_pb2.Resource | None, held: Held | None) -> resource_pb2.Resource:
    """A cell's own resource (None: it was removed) as it sees it; one that it does not see pins nothing."""
    if held is None or held.shown is None or name in held.shown:
        return cell or resource_pb2.Resource()
    return resource_pb2.Resource.FromString(held.former or b"")
