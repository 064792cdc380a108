"""The canonical text of a Protobuf file: the same for every way of writing the same file, and protoc takes it back.

Names are full, comments are gone, what stood in source order stays in it: the index of a message is part of Kafka's framing.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_encoding, text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

INDENT = "  "
_MAX_NUMBER = 536870911
_TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_LABELS = {
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
    FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
}


def text(files: FileDescriptorSet) -> str:
    """The last file of a set as text; the others are needed for its options."""
    printer = _Printer(files)
    return "\n".join(printer.file(files.file[-1])) + "\n"


class _Printer:
    """Prints one file; options are read with the extensions that the set declares."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self._files = files
        self._pool: descriptor_pool.DescriptorPool | None = None
        self._proto3 = True

    def file(self, file: FileDescriptorProto) -> Iterator[str]:
        syntax = file.syntax or "proto2"
        self._proto3 = syntax == "proto3"
        edition = descriptor_pb2.Edition.Name(file.edition).removeprefix("EDITION_")
        yield f'edition = "{edition}";' if syntax == "editions" else f'syntax = "{syntax}";'
        if file.package:
            yield f"package {file.package};"
        for place, name in enumerate(file.dependency):
            kind = "public " if place in file.public_dependency else "weak " if place in file.weak_dependency else ""
            yield f'import {kind}"{name}";'
        for option in self._options(file.options, "google.protobuf.FileOptions"):
            yield f"option {option};"
        for message in file.message_type:
            yield from self._message(message)
        for enum in file.enum_type:
            yield from self._enum(enum)
        yield from self._extensions(file.extension)
        for service in file.service:
            yield from self._service(service)

    def _message(self, message: DescriptorProto, keyword: str = "message", name: str = "", suffix: str = "") -> Iterator[str]:
        yield f"{keyword} {name or message.name}{suffix} {{"
        yield from _indented(self._body(message))
        yield "}"

    def _body(self, message: DescriptorProto) -> Iterator[str]:
        for option in self._options(message.options, "google.protobuf.MessageOptions"):
            yield f"option {option};"
        yield from _reserved(message)
        for enum in message.enum_type:
            yield from self._enum(enum)
        yield from self._fields(message)
        for extended in message.extension_range:
            yield f"extensions {_range(extended.start, extended.end)};"
        yield from self._extensions(message.extension)

    def _fields(self, message: DescriptorProto) -> Iterator[str]:
        """Fields and nested messages. Those that fields make (of maps and groups) keep their place among the others: it is an index."""
        entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
        groups = {_short(each) for each in message.field if each.type == FieldDescriptorProto.TYPE_GROUP}
        waiting = list(message.nested_type)
        printed: set[int] = set()
        for each in message.field:
            if _short(each) in entries.keys() | groups:
                while waiting and waiting[0].name != _short(each):
                    yield from self._message(waiting.pop(0))
                del waiting[:1]
            if not each.HasField("oneof_index") or each.proto3_optional:
                yield from self._field(each, message, entries)
            elif each.oneof_index not in printed:
                printed.add(each.oneof_index)
                yield from self._oneof(each.oneof_index, message, entries)
        for nested in waiting:
            yield from self._message(nested)

    def _oneof(self, place: int, message: DescriptorProto, entries: dict[str, DescriptorProto]) -> Iterator[str]:
        oneof = message.oneof_decl[place]
        yield f"oneof {oneof.name} {{"
        for option in self._options(oneof.options, "google.protobuf.OneofOptions"):
            yield f"{INDENT}option {option};"
        for each in message.field:
            if each.HasField("oneof_index") and each.oneof_index == place:
                yield from _indented(self._field(each, message, entries, label=False))
        yield "}"

    def _field(
        self, each: FieldDescriptorProto, message: DescriptorProto, entries: dict[str, DescriptorProto], label: bool = True
    ) -> Iterator[str]:
        entry = entries.get(_short(each)) if each.type == FieldDescriptorProto.TYPE_MESSAGE else None
        if each.type == FieldDescriptorProto.TYPE_GROUP:
            group = next(nested for nested in message.nested_type if nested.name == _short(each))
            yield from self._message(group, f"{self._label(each)}group", group.name, f" = {each.number}")
            return
        kind = f"map<{_type(entry.field[0])}, {_type(entry.field[1])}>" if entry else _type(each)
        before = "" if entry or not label else self._label(each)
        options = [*_own_options(each), *self._options(each.options, "google.protobuf.FieldOptions")]
        after = f" [{', '.join(options)}]" if options else ""
        yield f"{before}{kind} {each.name} = {each.number}{after};"

    def _label(self, each: FieldDescriptorProto) -> str:
        if each.label == FieldDescriptorProto.LABEL_OPTIONAL and self._proto3 and not each.proto3_optional:
            return ""
        return _LABELS[each.label]

    def _enum(self, enum: EnumDescriptorProto) -> Iterator[str]:
        yield f"enum {enum.name} {{"
        for option in self._options(enum.options, "google.protobuf.EnumOptions"):
            yield f"{INDENT}option {option};"
        ranges = [str(part.start) if part.start == part.end else f"{part.start} to {part.end}" for part in enum.reserved_range]
        if ranges:
            yield f"{INDENT}reserved {', '.join(ranges)};"
        if enum.reserved_name:
            yield INDENT + "reserved " + ", ".join(f'"{name}"' for name in enum.reserved_name) + ";"
        for value in enum.value:
            options = list(self._options(value.options, "google.protobuf.EnumValueOptions"))
            after = f" [{', '.join(options)}]" if options else ""
            yield f"{INDENT}{value.name} = {value.number}{after};"
        yield "}"

    def _extensions(self, extensions: Any) -> Iterator[str]:
        for each in extensions:
            yield f"extend {each.extendee} {{"
            yield from _indented(self._field(each, DescriptorProto(), {}))
            yield "}"

    def _service(self, service: ServiceDescriptorProto) -> Iterator[str]:
        yield f"service {service.name} {{"
        for option in self._options(service.options, "google.protobuf.ServiceOptions"):
            yield f"{INDENT}option {option};"
        for method in service.method:
            sent = ("stream " if method.client_streaming else "") + method.input_type
            answered = ("stream " if method.server_streaming else "") + method.output_type
            options = list(self._options(method.options, "google.protobuf.MethodOptions"))
            body = f" {{ {' '.join(f'option {option};' for option in options)} }}" if options else ";"
            yield f"{INDENT}rpc {method.name} ({sent}) returns ({answered}){body}"
        yield "}"

    def _options(self, options: Message, kind: str) -> Iterator[str]:
        encoded = options.SerializeToString(deterministic=True)
        if not encoded:
            return
        known = message_factory.GetMessageClass(self._extended().FindMessageTypeByName(kind)).FromString(encoded)
        for field, value in known.ListFields():
            if field.full_name == "google.protobuf.MessageOptions.map_entry":
                continue
            name = f"({field.full_name})" if field.is_extension else field.name
            for each in value if field.is_repeated else [value]:
                yield f"{name} = {_value(field, each)}"

    def _extended(self) -> descriptor_pool.DescriptorPool:
        """A pool with the set's files, in which options know their extensions."""
        if self._pool is None:
            self._pool = descriptor_pool.DescriptorPool()
            base = FileDescriptorProto()
            descriptor_pb2.DESCRIPTOR.CopyToProto(base)
            if all(file.name != base.name for file in self._files.file):
                self._pool.Add(base)
            for file in self._files.file:
                self._pool.Add(file)
        return self._pool


def _own_options(each: FieldDescriptorProto) -> Iterator[str]:
    """What stands among a field's options without being one."""
    if each.HasField("default_value"):
        quoted = each.type in (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES)
        escaped = each.default_value if each.type == FieldDescriptorProto.TYPE_BYTES else _escaped(each.default_value)
        yield f'default = "{escaped}"' if quoted else f"default = {each.default_value}"
    if each.json_name and each.json_name != _json_name(each.name) and not each.extendee:
        yield f'json_name = "{each.json_name}"'


def _json_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _short(each: FieldDescriptorProto) -> str:
    """Name of a field's type without what it is declared in."""
    return each.type_name.rsplit(".", 1)[-1]


def _type(each: FieldDescriptorProto) -> str:
    return each.type_name or _TYPES[each.type]


def _reserved(message: DescriptorProto) -> Iterator[str]:
    if message.reserved_range:
        yield "reserved " + ", ".join(_range(part.start, part.end) for part in message.reserved_range) + ";"
    if message.reserved_name:
        yield "reserved " + ", ".join(f'"{name}"' for name in message.reserved_name) + ";"


def _range(start: int, end: int) -> str:
    last = "max" if end > _MAX_NUMBER else str(end - 1)
    return str(start) if end - start == 1 else f"{start} to {last}"


def _value(field: Any, value: Any) -> str:
    if isinstance(value, Message):
        return "{ " + text_format.MessageToString(value, as_one_line=True) + " }"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{_escaped(value)}"'
    if isinstance(value, bytes):
        return f'"{text_encoding.CEscape(value, False)}"'
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    return str(value)


def _escaped(value: str) -> str:
    return str(text_encoding.CEscape(value, True))  # type: ignore[arg-type]


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (INDENT + line for line in lines)
