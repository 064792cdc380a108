"""From a definition and what it refers to, to a schema that is understood: what is kept of it, and what compares."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from services.controlplane.registry import avro, json_schema, protobuf, prototext
from services.controlplane.registry.avro import AvroDocument
from services.controlplane.registry.definition import Definition, SchemaType, fingerprint, invalid
from services.controlplane.registry.json_schema import JsonDocument
from services.controlplane.registry.protobuf import ProtoSchema

# Files that every client has: no reference is needed for them.
CLIENTS_KNOW = ("google/protobuf/", "google/type/", "confluent/")
MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Import:
    """What a reference leads to: the name that it is imported under, and the schema; those that it needs stand before it."""

    name: str
    schema: "Understood"


@dataclass(frozen=True)
class Understood:
    """A schema: as it is kept, in its canonical form, and as a model. Of Protobuf also its files, and the name of its message."""

    definition: Definition
    canonical: str = field(repr=False)
    body: ProtoSchema | JsonDocument | AvroDocument = field(repr=False)
    files: tuple[FileDescriptorProto, ...] = field(default=(), repr=False)

    @property
    def fingerprint(self) -> bytes:
        """Equal for equal schemas."""
        return fingerprint(self.definition, self.canonical)

    @property
    def file_descriptor_set(self) -> bytes:
        """Of Protobuf: all files, each after its imports, serialised; else nothing."""
        return FileDescriptorSet(file=self.files).SerializeToString() if self.files else b""

    @property
    def message(self) -> str:
        """Of Protobuf: full name of the first message; "" if the file has none."""
        return self.body.messages[0] if isinstance(self.body, ProtoSchema) and self.body.messages else ""

    def unreferenced(self) -> list[FileDescriptorProto]:
        """Of Protobuf: imported files that neither clients know nor references name, each after its imports."""
        named = {reference.name for reference in self.definition.references}
        return [file for file in self.files[:-1] if file.name not in named and not file.name.startswith(CLIENTS_KNOW)]


def understand(definition: Definition, imports: Sequence[Import] = (), *, normalize: bool = False) -> Understood:
    """Reads a definition; a step for a thread: Protobuf text is compiled.

    Raises:
        ArterialError: 42201 with all that is wrong with it.
    """
    if len(definition.text.encode()) > MAX_BYTES:
        raise invalid("the schema cannot be read", f"it has over {MAX_BYTES} bytes")
    if definition.type is SchemaType.PROTOBUF:
        known = _files(imports)
        return of_files(protobuf.closure(protobuf.parse(definition.text, known), known), definition, normalize=normalize)
    texts = {each.name: each.schema.definition.text for each in imports}
    body: JsonDocument | AvroDocument
    if definition.type is SchemaType.AVRO:
        body = avro.parse(definition.text, texts)
        canonical = avro.canonical(body, normalize=normalize)
    else:
        body = json_schema.parse(definition.text, texts)
        canonical = json_schema.canonical(body, normalize=normalize)
    return Understood(replace(definition, text=canonical), canonical, body)


def of_files(files: Sequence[FileDescriptorProto], definition: Definition | None = None, *, normalize: bool = False) -> Understood:
    """The schema of linked files, the last of which is meant. Raises 42201 for one that cannot be printed."""
    if normalize:
        files = [*files[:-1], _sorted(files[-1])]
    try:
        canonical = prototext.text(FileDescriptorSet(file=files))
    except (TypeError, KeyError, ValueError) as error:
        raise invalid("the schema cannot be read", str(error)) from error
    given = definition or Definition(SchemaType.PROTOBUF, "")
    written = bool(given.text) and "{" in given.text and not normalize
    kept = replace(given, text=given.text if written else canonical)
    return Understood(kept, canonical, protobuf.model(files), tuple(files))


def serialized(schema: Understood) -> str:
    """Of Protobuf: base64 of the FileDescriptorProto, which Confluent calls the format "serialized"; else the text."""
    return base64.b64encode(schema.files[-1].SerializeToString()).decode() if schema.files else schema.definition.text


def _files(imports: Sequence[Import]) -> Mapping[str, FileDescriptorProto]:
    """Imported files by the names that they are imported under."""
    found: dict[str, FileDescriptorProto] = {}
    for each in imports:
        if not each.schema.files:
            raise invalid("the schema cannot be read", f"{each.name} is no Protobuf schema")
        for file in each.schema.files[:-1]:
            found.setdefault(file.name, file)
        named = FileDescriptorProto()
        named.CopyFrom(each.schema.files[-1])
        named.name = each.name
        found[each.name] = named
    return found


def _sorted(file: FileDescriptorProto) -> FileDescriptorProto:
    """The file with its imports by name and the fields of its messages by number."""
    done = FileDescriptorProto()
    done.CopyFrom(file)
    public = {file.dependency[place] for place in file.public_dependency}
    del done.dependency[:], done.public_dependency[:], done.weak_dependency[:]
    done.dependency.extend(sorted(file.dependency))
    done.public_dependency.extend(place for place, name in enumerate(done.dependency) if name in public)
    waiting = list(done.message_type)
    while waiting:
        message = waiting.pop()
        message.field.sort(key=lambda each: each.number)
        waiting += message.nested_type
    return done
