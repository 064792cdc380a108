"""Protobuf schemas: from text or descriptors to one model that compares fast, and to a canonical text.

Text is compiled by protoc (grpcio-tools: the official compiler, with wheels for every platform), in a process of its own: 26 ms, its
messages can be read, and what it makes of hostile input stays out of this process.
"""

import base64
import binascii
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from services.controlplane.registry.definition import invalid

COMPILE_SECONDS = 10
# Of what everybody may import without a reference. Generated modules know them: `google/protobuf/any.proto` is google.protobuf.any_pb2.
KNOWN = ("google/protobuf/", "google/type/", "google/rpc/", "google/api/", "buf/validate/", "arterial/api/types/")
MAIN = "main.proto"
# Lines of the compiler's own log, which are no errors of a schema.
_LOGGED = re.compile(r"WARNING: |[IW][0-9]{4} ")
_PROTOC = "import sys; from grpc_tools._protoc_compiler import run_main; sys.exit(run_main([word.encode() for word in sys.argv]))"
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=*\s*")
_QUOTED = re.compile(r"""["']([^"'\n]+)["']""")


@dataclass(frozen=True)
class Field:
    """A field. `type_name` is the full name of its message or enum; of a map, key and value are the fields of its entry."""

    name: str
    number: int
    type: int
    label: int
    type_name: str
    oneof: str
    # Of proto3: written as `optional`, so that absent is not zero.
    optional: bool = False


@dataclass(frozen=True)
class Message:
    """A message, by its place in its file: "Outer.Inner"."""

    name: str
    package: str
    file: str
    fields: Mapping[int, Field]
    oneofs: Mapping[str, tuple[int, ...]]
    nested: tuple[str, ...]
    enums: tuple[str, ...]
    is_map: bool
    reserved: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Enum:
    """An enum: names of its values by number."""

    name: str
    package: str
    values: Mapping[int, str]


@dataclass(frozen=True)
class ProtoSchema:
    """A compiled schema: its file, and all types by full name, those of its imports included."""

    package: str
    messages: tuple[str, ...]
    enums: tuple[str, ...]
    types: Mapping[str, Message | Enum] = field(repr=False)
    files: bytes = field(repr=False)

    @property
    def message(self) -> str:
        """Full name of the first message. Raises 42201 if there is none."""
        if not self.messages:
            raise invalid("the schema declares no message", "a record is a message: the first one of the file")
        return self.messages[0]


def parse(text: str, imports: Mapping[str, FileDescriptorProto]) -> FileDescriptorProto:
    """The file of a text, or of base64 of a FileDescriptorProto, linked with what it imports.

    Raises:
        ArterialError: 42201 with the compiler's messages.
    """
    sent = _decoded(text)
    return _linked(sent, imports) if sent is not None else _compiled(text, imports)


def parse_set(encoded: bytes) -> list[FileDescriptorProto]:
    """The files of a FileDescriptorSet, each after those that it imports, linked. Raises 42201."""
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(encoded).file
    except DecodeError as error:
        raise invalid("the schema cannot be read", f"not a FileDescriptorSet: {error}") from error
    known: dict[str, FileDescriptorProto] = {}
    for file in files:
        known[file.name] = _linked(file, known)
    if not known:
        raise invalid("the schema cannot be read", "the FileDescriptorSet has no file")
    return list(known.values())


def imported(name: str) -> FileDescriptorProto | None:
    """A file that everybody may import, if `name` is one."""
    if not name.startswith(KNOWN):
        return None
    try:
        importlib.import_module(f"{name.removesuffix('.proto').replace('/', '.').replace('-', '_')}_pb2")
        found = FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(name).CopyToProto(found)
    except (ImportError, KeyError):
        return None
    return found


def closure(file: FileDescriptorProto, imports: Mapping[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """What a file imports, and those import, each after its own imports; then the file. Raises 42201 for one that nobody knows."""
    found: dict[str, FileDescriptorProto] = {}

    def add(wanted: FileDescriptorProto, importing: tuple[str, ...]) -> None:
        for name in wanted.dependency:
            if name in importing:
                raise invalid(f"{name} imports itself", f"by way of {', '.join(importing)}")
            if name not in found:
                known = imports.get(name) or imported(name)
                if known is None:
                    raise invalid(f"the import {name} is not known", f'name it in "references": [{{"name": "{name}", ...}}]')
                add(known, (*importing, name))
                found[name] = known

    add(file, (file.name,))
    return [*found.values(), file]


def model(files: Sequence[FileDescriptorProto]) -> ProtoSchema:
    """The model of the last file; the others are what it imports."""
    types: dict[str, Message | Enum] = {}
    for file in files:
        types.update(_types(file))
    main = files[-1]
    prefix = f"{main.package}." if main.package else ""
    return ProtoSchema(
        main.package,
        tuple(prefix + message.name for message in main.message_type),
        tuple(prefix + enum.name for enum in main.enum_type),
        types,
        descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(),
    )


def _decoded(text: str) -> FileDescriptorProto | None:
    if not _BASE64.fullmatch(text):
        return None
    try:
        found = FileDescriptorProto.FromString(base64.b64decode(text, validate=False))
    except (binascii.Error, DecodeError):
        return None
    found.name = found.name or MAIN
    found.ClearField("source_code_info")
    return found


def _linked(file: FileDescriptorProto, imports: Mapping[str, FileDescriptorProto]) -> FileDescriptorProto:
    """The file with all names resolved."""
    pool = descriptor_pool.DescriptorPool()
    try:
        for needed in closure(file, imports):
            pool.Add(needed)
        found = FileDescriptorProto()
        pool.FindFileByName(file.name).CopyToProto(found)
    except (TypeError, KeyError) as error:
        raise invalid("the schema cannot be read", str(error)) from error
    return found


def _compiled(text: str, imports: Mapping[str, FileDescriptorProto]) -> FileDescriptorProto:
    needed = closure(FileDescriptorProto(name=MAIN, dependency=_mentioned(text, imports)), imports)[:-1]
    with tempfile.TemporaryDirectory(prefix="arterial-schema-") as name:
        folder = Path(name)
        (folder / MAIN).write_text(text)
        (folder / "imports.binpb").write_bytes(descriptor_pb2.FileDescriptorSet(file=needed).SerializeToString())
        words = [sys.executable, "-I", "-c", _PROTOC, "--descriptor_set_in=imports.binpb", "-I.", "--descriptor_set_out=out.binpb", MAIN]
        try:
            done = subprocess.run(words, cwd=folder, capture_output=True, timeout=COMPILE_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise invalid("the schema cannot be read", f"compiling it takes over {COMPILE_SECONDS} s") from error
        if done.returncode != 0:
            told = done.stderr.decode(errors="replace").splitlines()
            lines = [line for line in told if ": warning: " not in line and not _LOGGED.match(line)]
            raise invalid("the schema cannot be read", *(lines or ["protoc failed"]))
        return descriptor_pb2.FileDescriptorSet.FromString((folder / "out.binpb").read_bytes()).file[0]


def _mentioned(text: str, imports: Mapping[str, FileDescriptorProto]) -> list[str]:
    """What a text may import: every known file that it names anywhere. What it imports beyond them, protoc complains of."""
    return [name for name in dict.fromkeys(_QUOTED.findall(text)) if name in imports or imported(name) is not None]


def _types(file: FileDescriptorProto) -> Iterator[tuple[str, Message | Enum]]:
    prefix = f"{file.package}." if file.package else ""
    for enum in file.enum_type:
        yield prefix + enum.name, _enum(enum, enum.name, file)
    for message in file.message_type:
        yield from _message(message, message.name, file)


def _message(proto: DescriptorProto, name: str, file: FileDescriptorProto) -> Iterator[tuple[str, Message | Enum]]:
    prefix = f"{file.package}." if file.package else ""
    fields = {each.number: _field(each, proto) for each in proto.field}
    oneofs: dict[str, tuple[int, ...]] = {}
    for each in fields.values():
        if each.oneof:
            oneofs[each.oneof] = (*oneofs.get(each.oneof, ()), each.number)
    yield (
        prefix + name,
        Message(
            name=name,
            package=file.package,
            file=file.name,
            fields=fields,
            oneofs=oneofs,
            nested=tuple(f"{prefix}{name}.{each.name}" for each in proto.nested_type),
            enums=tuple(f"{prefix}{name}.{each.name}" for each in proto.enum_type),
            is_map=proto.options.map_entry,
            reserved=tuple((each.start, each.end) for each in proto.reserved_range),
        ),
    )
    for nested in proto.nested_type:
        yield from _message(nested, f"{name}.{nested.name}", file)
    for enum in proto.enum_type:
        yield f"{prefix}{name}.{enum.name}", _enum(enum, f"{name}.{enum.name}", file)


def _enum(proto: EnumDescriptorProto, name: str, file: FileDescriptorProto) -> Enum:
    return Enum(name, file.package, {value.number: value.name for value in reversed(proto.value)})


def _field(proto: FieldDescriptorProto, message: DescriptorProto) -> Field:
    # The oneof that protoc makes of a proto3 `optional` is none for whoever wrote the schema.
    real = proto.HasField("oneof_index") and not proto.proto3_optional
    oneof = message.oneof_decl[proto.oneof_index].name if real else ""
    return _same(Field(proto.name, proto.number, proto.type, proto.label, proto.type_name.removeprefix("."), oneof, proto.proto3_optional))


@lru_cache(maxsize=100_000)
def _same(field: Field) -> Field:
    """The same object for the same field: versions of a schema share most of theirs, and compare them by identity."""
    return field
