"""What changed between two Protobuf schemas, by the rules and rule names of Confluent's schema registry.

Two rules are stricter than theirs: a field that becomes required, and fields of two oneofs that come to share one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from services.controlplane.registry.definition import SchemaViolation
from services.controlplane.registry.protobuf import Enum, Field, Message, ProtoSchema

T = TypeVar("T")
COMPATIBLE = frozenset(
    {
        "PACKAGE_CHANGED",
        "MESSAGE_ADDED",
        "MESSAGE_MOVED",
        "ENUM_ADDED",
        "ENUM_REMOVED",
        "ENUM_CONST_ADDED",
        "ENUM_CONST_CHANGED",
        "ENUM_CONST_REMOVED",
        "FIELD_ADDED",
        "FIELD_REMOVED",
        "FIELD_NAME_CHANGED",
        "FIELD_STRING_OR_BYTES_LABEL_CHANGED",
        "ONEOF_ADDED",
        "ONEOF_REMOVED",
        "ONEOF_FIELD_ADDED",
    }
)
TEXTS: Mapping[str, str] = {
    "PACKAGE_CHANGED": "the package changed",
    "MESSAGE_ADDED": "a message was added",
    "MESSAGE_REMOVED": "a message was removed",
    "MESSAGE_MOVED": "a message has another place in the file",
    "ENUM_ADDED": "an enum was added",
    "ENUM_REMOVED": "an enum was removed",
    "ENUM_CONST_ADDED": "a value was added",
    "ENUM_CONST_CHANGED": "a value has another name",
    "ENUM_CONST_REMOVED": "a value was removed",
    "FIELD_ADDED": "a field was added",
    "FIELD_REMOVED": "a field was removed",
    "FIELD_NAME_CHANGED": "a field has another name",
    "FIELD_KIND_CHANGED": "a field changed between scalar, message and map",
    "FIELD_SCALAR_KIND_CHANGED": "a field's type is written in another form on the wire",
    "FIELD_NAMED_TYPE_CHANGED": "a field's message is another, or changed incompatibly",
    "FIELD_NUMERIC_LABEL_CHANGED": "a number changed between singular and repeated, which are written in other forms",
    "FIELD_STRING_OR_BYTES_LABEL_CHANGED": "a field changed between singular and repeated",
    "FIELD_BECAME_REQUIRED": "a field became required: what was written without it cannot be read",
    "REQUIRED_FIELD_ADDED": "a required field was added: what was written before cannot be read",
    "REQUIRED_FIELD_REMOVED": "a required field was removed",
    "ONEOF_ADDED": "a oneof was added",
    "ONEOF_REMOVED": "a oneof was removed",
    "ONEOF_FIELD_ADDED": "a field was added to a oneof",
    "ONEOF_FIELD_REMOVED": "a field of a oneof was removed",
    "MULTIPLE_FIELDS_MOVED_TO_ONEOF": "fields that could be set together now exclude each other",
    "FIELD_MOVED_TO_EXISTING_ONEOF": "a field now excludes those of a oneof that it could be set with",
    "RESERVED_FIELD_REMOVED": "a field is no longer reserved by the metadata",
    "FIELD_CONFLICTS_WITH_RESERVED_FIELD": "a field has a name that the metadata reserves",
}
_F = FieldDescriptorProto
# Types of one group are written in one form: a reader of one reads the other.
_WIRE_GROUPS: Mapping[int, str] = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_INT64, _F.TYPE_UINT32, _F.TYPE_UINT64, _F.TYPE_BOOL, _F.TYPE_ENUM), "varint"),
    **dict.fromkeys((_F.TYPE_SINT32, _F.TYPE_SINT64), "zigzag"),
    **dict.fromkeys((_F.TYPE_STRING, _F.TYPE_BYTES), "text"),
    **dict.fromkeys((_F.TYPE_FIXED32, _F.TYPE_SFIXED32), "fixed32"),
    **dict.fromkeys((_F.TYPE_FIXED64, _F.TYPE_SFIXED64), "fixed64"),
    _F.TYPE_FLOAT: "float",
    _F.TYPE_DOUBLE: "double",
}
Pair = tuple[T | None, T | None]


def differences(old: ProtoSchema, new: ProtoSchema) -> list[SchemaViolation]:
    """Everything that changed from `old` to `new`; what is not in COMPATIBLE keeps readers of `new` from `old`'s data."""
    comparison = _Comparison(old, new)
    if old.package != new.package:
        comparison.add((), "PACKAGE_CHANGED")
    comparison.types((), (old.messages, new.messages), (old.enums, new.enums))
    return comparison.found


def reserved(old: frozenset[str], new: frozenset[str], schema: ProtoSchema) -> Iterator[SchemaViolation]:
    """Conflicts with the names that the metadata of both versions reserve."""
    if not old and not new:
        return
    main = {name for name in schema.types if not isinstance(schema.types[name], Enum)}
    inside = set(schema.messages)
    names: set[str] = set()
    for name in main:
        message = schema.types[name]
        if isinstance(message, Message) and (name in inside or any(name.startswith(f"{outer}.") for outer in inside)):
            names |= {field.name for field in message.fields.values()}
    yield from (violation((name,), "RESERVED_FIELD_REMOVED", bare=True) for name in sorted(old - new))
    yield from (violation((name,), "FIELD_CONFLICTS_WITH_RESERVED_FIELD", bare=True) for name in sorted(names & new))


def violation(path: Sequence[str], rule: str, *, bare: bool = False) -> SchemaViolation:
    """A difference at a path, in Confluent's form."""
    return SchemaViolation(path[0] if bare else "#/" + "/".join(path), rule, TEXTS[rule])


class _Comparison:
    """Walks two schemas together; `open` are the pairs of messages that the walk is inside of."""

    def __init__(self, old: ProtoSchema, new: ProtoSchema) -> None:
        self.old, self.new = old, new
        self.open: frozenset[tuple[str, str]] = frozenset()
        self.found: list[SchemaViolation] = []
        # Whether imported messages agree: each pair is compared, and told, where it is met first.
        self._agree: dict[tuple[str, str], bool] = {}

    def add(self, path: tuple[str, ...], rule: str) -> None:
        self.found.append(violation(path, rule))

    def types(
        self, path: tuple[str, ...], messages: tuple[Sequence[str], Sequence[str]], enums: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        """Messages and enums of two scopes, by their last names."""
        places = [{_last(name): place for place, name in enumerate(side)} for side in messages]
        for name, (before, after) in _pairs(messages[0], messages[1], _last):
            if before is not None and after is not None:
                self.message((*path, name), before, after)
                if places[0][name] != places[1][name]:
                    self.add((*path, name), "MESSAGE_MOVED")
            elif before is None and not self._is_map(self.new, after):
                self.add((*path, name), "MESSAGE_ADDED")
            elif after is None and not self._is_map(self.old, before):
                self.add((*path, name), "MESSAGE_REMOVED")
        for name, (before, after) in _pairs(enums[0], enums[1], _last):
            if before is not None and after is not None:
                self._enum((*path, name), self.old.types[before], self.new.types[after])
            else:
                self.add((*path, name), "ENUM_ADDED" if before is None else "ENUM_REMOVED")

    def message(self, path: tuple[str, ...], before: str, after: str) -> None:
        """Two messages, by full name."""
        old, new = self.old.types[before], self.new.types[after]
        if (before, after) in self.open or not isinstance(old, Message) or not isinstance(new, Message):
            return
        outer, self.open = self.open, self.open | {(before, after)}
        self._oneofs(path, old, new)
        for number in sorted(old.fields.keys() | new.fields.keys()):
            field = old.fields.get(number)
            # Most fields are the same, and most of those are scalars, with nothing inside them.
            if field is None or field is not new.fields.get(number) or field.type not in _WIRE_GROUPS:
                self._field(path, number, old, new)
        self.types(path, (old.nested, new.nested), (old.enums, new.enums))
        self.open = outer

    def _oneofs(self, path: tuple[str, ...], old: Message, new: Message) -> None:
        for name, numbers in new.oneofs.items():
            came_from = {old.fields[number].oneof or number for number in numbers if number in old.fields}
            singles = sum(isinstance(origin, int) for origin in came_from)
            if len(came_from) > 1:
                self.add((*path, name), "FIELD_MOVED_TO_EXISTING_ONEOF" if singles == 1 else "MULTIPLE_FIELDS_MOVED_TO_ONEOF")
        for name in [*old.oneofs, *(name for name in new.oneofs if name not in old.oneofs)]:
            if name not in new.oneofs or name not in old.oneofs:
                self.add((*path, name), "ONEOF_REMOVED" if name in old.oneofs else "ONEOF_ADDED")

    def _field(self, path: tuple[str, ...], number: int, old: Message, new: Message) -> None:
        before, after = old.fields.get(number), new.fields.get(number)
        if before is not None and after is not None:
            kept = before.oneof if before.oneof == after.oneof else ""
            if before.oneof and not after.oneof:
                self.add((*path, str(number)), "FIELD_ADDED")
            elif after.oneof and before.oneof and not kept and after.oneof in old.oneofs:
                self.add((*path, after.oneof, str(number)), "ONEOF_FIELD_ADDED")
            self._compare((*path, kept, str(number)) if kept else (*path, str(number)), before, after)
        elif after is not None:
            self._added(path, after, old)
        elif before is not None:
            self._removed(path, before, new)

    def _added(self, path: tuple[str, ...], after: Field, old: Message) -> None:
        if after.oneof:
            if after.oneof in old.oneofs:
                self.add((*path, after.oneof, str(after.number)), "ONEOF_FIELD_ADDED")
        else:
            self.add((*path, str(after.number)), "REQUIRED_FIELD_ADDED" if after.label == _F.LABEL_REQUIRED else "FIELD_ADDED")

    def _removed(self, path: tuple[str, ...], before: Field, new: Message) -> None:
        if before.oneof:
            if before.oneof in new.oneofs:
                self.add((*path, before.oneof, str(before.number)), "ONEOF_FIELD_REMOVED")
        else:
            self.add((*path, str(before.number)), "REQUIRED_FIELD_REMOVED" if before.label == _F.LABEL_REQUIRED else "FIELD_REMOVED")

    def _compare(self, path: tuple[str, ...], before: Field, after: Field) -> None:
        if before == after and after.type in _WIRE_GROUPS:
            return
        if before.name != after.name:
            self.add(path, "FIELD_NAME_CHANGED")
        if after.label == _F.LABEL_REQUIRED and before.label != _F.LABEL_REQUIRED:
            self.add(path, "FIELD_BECAME_REQUIRED")
        self._compare_types(path, before, after)

    def _compare_types(self, path: tuple[str, ...], before: Field, after: Field) -> None:
        kinds = self._kind(self.old, before), self._kind(self.new, after)
        if kinds[0] != kinds[1]:
            self.add(path, "FIELD_KIND_CHANGED")
        elif kinds[0] == "scalar":
            self._scalars(path, before, after)
        elif kinds[0] == "map":
            entries = self.old.types[before.type_name], self.new.types[after.type_name]
            if isinstance(entries[0], Message) and isinstance(entries[1], Message):
                for number in (1, 2):
                    self._compare_types(path, entries[0].fields[number], entries[1].fields[number])
        else:
            self._messages(path, before.type_name, after.type_name)

    def _scalars(self, path: tuple[str, ...], before: Field, after: Field) -> None:
        if _WIRE_GROUPS[before.type] != _WIRE_GROUPS[after.type]:
            self.add(path, "FIELD_SCALAR_KIND_CHANGED")
        elif (before.label == _F.LABEL_REPEATED) != (after.label == _F.LABEL_REPEATED):
            text = _WIRE_GROUPS[before.type] == "text"
            self.add(path, "FIELD_STRING_OR_BYTES_LABEL_CHANGED" if text else "FIELD_NUMERIC_LABEL_CHANGED")

    def _messages(self, path: tuple[str, ...], before: str, after: str) -> None:
        old, new = self.old.types[before], self.new.types[after]
        if old.name != new.name:
            self.add(path, "FIELD_NAMED_TYPE_CHANGED")
        elif not (_is_main(self.old, before) and _is_main(self.new, after)):
            # Types of the file itself are compared where they are declared; imported ones wherever they are used.
            if (before, after) not in self._agree:
                self._agree[before, after] = True
                told = len(self.found)
                self.message(tuple(old.name.split(".")), before, after)
                self._agree[before, after] = all(found.rule in COMPATIBLE for found in self.found[told:])
            if not self._agree[before, after]:
                self.add(path, "FIELD_NAMED_TYPE_CHANGED")

    def _enum(self, path: tuple[str, ...], old: Message | Enum, new: Message | Enum) -> None:
        if not isinstance(old, Enum) or not isinstance(new, Enum) or old.values == new.values:
            return
        for number in sorted(old.values.keys() | new.values.keys()):
            before, after = old.values.get(number), new.values.get(number)
            if before != after:
                rule = "ENUM_CONST_ADDED" if before is None else "ENUM_CONST_REMOVED" if after is None else "ENUM_CONST_CHANGED"
                self.add((*path, str(number)), rule)

    @staticmethod
    def _kind(schema: ProtoSchema, field: Field) -> str:
        if field.type in _WIRE_GROUPS:
            return "scalar"
        if field.type == _F.TYPE_GROUP:
            return "group"
        return "map" if _Comparison._is_map(schema, field.type_name) else "message"

    @staticmethod
    def _is_map(schema: ProtoSchema, name: str | None) -> bool:
        message = schema.types[name] if name else None
        return isinstance(message, Message) and message.is_map


def _is_main(schema: ProtoSchema, name: str) -> bool:
    return any(name == outer or name.startswith(f"{outer}.") for outer in schema.messages)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _pairs(old: Iterable[T], new: Iterable[T], key: Callable[[T], str]) -> Iterator[tuple[str, Pair[T]]]:
    """What two sides have by key: those of the old side in its order, then those that only the new one has."""
    before, after = {key(each): each for each in old}, {key(each): each for each in new}
    for name in [*before, *(name for name in after if name not in before)]:
        yield name, (before.get(name), after.get(name))
