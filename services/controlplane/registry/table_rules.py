"""Stricter rules for the schemas of declared topics: their raw, curated and live tables are made from them.

A field that was there stays, with its name (it is a column), number, type and label, unless its number is reserved; fields do not move
between oneofs; enum values that were there stay. Adding fields, values and messages is compatible. They count in whatever direction the
subject's level looks, unless that is NONE.
"""

from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from services.controlplane.registry.definition import SchemaViolation, invalid
from services.controlplane.registry.protobuf import Enum, Field, Message, ProtoSchema

# Beyond it no engine of the lake or of OLAP goes well; and messages in messages could make millions of them.
MAX_COLUMNS = 10_000


def violations(old: ProtoSchema, new: ProtoSchema) -> list[SchemaViolation]:
    """Every rule that the change from `old` to `new` breaks, with paths of columns: "fare.amount_minor".

    Raises:
        ArterialError: 42201 if `new` makes a table of over MAX_COLUMNS columns.
    """
    if not old.messages or not new.messages:
        return []
    if _count(new, new.message, {}) > MAX_COLUMNS:
        raise invalid("the schema cannot be a table's", f"nested messages are columns, and it has over {MAX_COLUMNS}")
    return _message(old, new, (old.message, new.message), "", frozenset())


def _count(schema: ProtoSchema, name: str, known: dict[str, int]) -> int:
    """Columns that a message makes, those of messages inside it included."""
    message = schema.types[name]
    if not isinstance(message, Message):
        return 1
    if name not in known:
        known[name] = 0
        known[name] = sum(_count(schema, field.type_name, known) if field.type_name else 1 for field in message.fields.values())
    return known[name]


def _message(old: ProtoSchema, new: ProtoSchema, names: tuple[str, str], path: str, seen: frozenset[str]) -> list[SchemaViolation]:
    before, after = old.types[names[0]], new.types[names[1]]
    if not isinstance(before, Message) or not isinstance(after, Message) or names[0] in seen:
        return []
    found: list[SchemaViolation] = []
    for number, field in before.fields.items():
        now = after.fields.get(number)
        if now is field and not field.type_name:
            continue
        where = f"{path}.{field.name}" if path else field.name
        if now is None:
            if not any(start <= number < end for start, end in after.reserved):
                found.append(SchemaViolation(where, "field_removed", f"field {number} was removed without reserving its number"))
            continue
        found += _field(where, field, now)
        if field.type_name and now.type_name:
            found += _enum(where, old.types[field.type_name], new.types[now.type_name])
            found += _message(old, new, (field.type_name, now.type_name), where, seen | {names[0]})
    return found


def _field(where: str, old: Field, new: Field) -> Iterable[SchemaViolation]:
    if old.name != new.name:
        yield SchemaViolation(where, "field_renamed", f"field {old.number} was {old.name} and is {new.name}: it is the name of a column")
    if old.type != new.type:
        yield SchemaViolation(where, "field_type_changed", f"the type of field {old.number} changed")
    strict = (FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.LABEL_REQUIRED)
    if old.label != new.label and (old.label in strict or new.label in strict):
        yield SchemaViolation(where, "field_label_changed", f"field {old.number} changed between singular, repeated and required")
    if old.oneof != new.oneof:
        yield SchemaViolation(where, "field_moved_oneof", f"field {old.number} moved from oneof {old.oneof!r} to {new.oneof!r}")


def _enum(where: str, old: Message | Enum, new: Message | Enum) -> Iterable[SchemaViolation]:
    if isinstance(old, Enum) and isinstance(new, Enum):
        for number, name in old.values.items():
            if number not in new.values:
                yield SchemaViolation(f"{where}.{name}", "enum_value_removed", f"value {number} was removed")


def changes(old: ProtoSchema, new: ProtoSchema) -> list[SchemaViolation]:
    """What compatible changes do to the columns of tables: added, no longer filled, null where there was a default."""
    if not old.messages or not new.messages or max(_count(each, each.message, {}) for each in (old, new)) > MAX_COLUMNS:
        return []
    before, after = dict(_columns(old, old.message, "", ())), dict(_columns(new, new.message, "", ()))
    added = [SchemaViolation(path, "column_added", "a column is added to the tables") for path in after if path not in before]
    gone = [SchemaViolation(path, "column_no_longer_filled", "new rows have no value") for path in before if path not in after]
    nullable = [
        SchemaViolation(path, "column_nullability_changed", f"what is absent {'is null' if after[path] else 'has a default'} in new rows")
        for path in after
        if path in before and before[path] != after[path]
    ]
    return [*added, *gone, *nullable]


def _columns(schema: ProtoSchema, name: str, path: str, inside: tuple[str, ...]) -> Iterable[tuple[str, bool]]:
    """Paths of columns, and whether they are null where the record has no value."""
    message = schema.types[name]
    if not isinstance(message, Message) or name in inside:
        return
    for field in message.fields.values():
        where = f"{path}.{field.name}" if path else field.name
        nested = schema.types.get(field.type_name)
        if isinstance(nested, Message) and not nested.is_map and field.label != FieldDescriptorProto.LABEL_REPEATED:
            yield from _columns(schema, field.type_name, where, (*inside, name))
        else:
            yield where, bool(field.oneof) or field.optional or isinstance(nested, Message)
