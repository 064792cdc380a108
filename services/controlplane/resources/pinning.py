"""Versions of schemas that cells stay at. Pure functions on resources."""

from collections.abc import Mapping

from arterial.api.controlplane.v1 import resource_pb2
from services.controlplane.registry.names import SUFFIX

Resource = resource_pb2.Resource


def subject_of(schema: Resource) -> str:
    """Subject of the registry that a Schema resource stands for."""
    return schema.schema.subject or schema.metadata.name + SUFFIX


def pins_of(cell: Resource | None) -> Mapping[str, int]:
    """Version by Schema resource; none of what is no Cell."""
    return {pin.schema: pin.version for pin in cell.cell.schema_pins} if cell is not None else {}


def repinned(before: Resource | None, after: Resource | None) -> set[str]:
    """Schema resources that a cell sees otherwise after it was changed, created or removed (None: it is not there)."""
    old, new = pins_of(before), pins_of(after)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def condition(cell: Resource, schema: Resource) -> resource_pb2.Condition:
    """The pin of a cell as a condition of the schema that it pins."""
    version, newest = pins_of(cell)[schema.metadata.name], schema.status.schema.version
    told = resource_pb2.Condition(
        type="Pinned",
        status="True",
        reason="SchemaPin",
        message=f"cell {cell.metadata.name} stays at version {version}; declared is version {newest}",
        cell=cell.metadata.name,
        component="arterial-controlplane",
        observed_generation=schema.metadata.generation,
    )
    told.last_transition_time.CopyFrom(cell.metadata.updated_at)
    return told
