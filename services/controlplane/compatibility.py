"""Backward compatibility of protobuf schemas: can readers of the new version, and tables made from it, take what the old one wrote?

Rules: a field that was there stays, with its name (it is a column), number, type and label, unless its number is reserved; fields do
not move between oneofs; enum values that were there stay. Adding fields, values and messages is compatible.
"""

from collections.abc import Iterable

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto

from arterial.api.controlplane.v1.schema_registry_service_pb2 import SchemaViolation


def violations(old: Descriptor, new: Descriptor, path: str = "", seen: frozenset[str] = frozenset()) -> list[SchemaViolation]:
    """Every rule that the change from `old` to `new` breaks."""
    if old.full_name in seen:
        return []
    seen |= {old.full_name}
    found: list[SchemaViolation] = []
    numbers = {field.number: field for field in new.fields}
    for field in old.fields:
        where = f"{path}.{field.name}" if path else field.name
        after = numbers.get(field.number)
        if after is None:
            if not _reserved(new, field.number):
                found.append(_violation(where, "field_removed", f"field {field.number} was removed without reserving its number"))
            continue
        found += _field(where, field, after)
        if field.message_type is not None and after.message_type is not None:
            found += violations(field.message_type, after.message_type, where, seen)
        if field.enum_type is not None and after.enum_type is not None:
            found += _enum(where, field.enum_type, after.enum_type)
    return found


def _field(where: str, old: FieldDescriptor, new: FieldDescriptor) -> Iterable[SchemaViolation]:
    if old.name != new.name:
        yield _violation(where, "field_renamed", f"field {old.number} was {old.name} and is {new.name}: it is the name of a column")
    if old.type != new.type:
        yield _violation(where, "field_type_changed", f"the type of field {old.number} changed")
    if (old.is_repeated, old.is_required) != (new.is_repeated, new.is_required):
        yield _violation(where, "field_label_changed", f"field {old.number} changed between singular, repeated and required")
    names = [field.containing_oneof.name if field.containing_oneof is not None else "" for field in (old, new)]
    if names[0] != names[1]:
        yield _violation(where, "field_moved_oneof", f"field {old.number} moved from oneof {names[0]!r} to {names[1]!r}")


def _enum(where: str, old: EnumDescriptor, new: EnumDescriptor) -> Iterable[SchemaViolation]:
    kept = {value.number for value in new.values}
    for value in old.values:
        if value.number not in kept:
            yield _violation(f"{where}.{value.name}", "enum_value_removed", f"value {value.number} was removed")


def _reserved(message: Descriptor, number: int) -> bool:
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return any(part.start <= number < part.end for part in proto.reserved_range)


def _violation(path: str, rule: str, message: str) -> SchemaViolation:
    return SchemaViolation(path=path, rule=rule, message=message)
