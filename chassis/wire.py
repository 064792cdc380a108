"""The form of a Kafka value (Confluent framing) and the schemas that values are written with."""

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import ptars
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor

from chassis.topics import Topic

MAGIC = 0
HEADER_BYTES = 5
# Microseconds are what events promise; the library's default of nanoseconds saturates in silence.
PTARS = ptars.PtarsConfig(timestamp_unit="us")
BUILTIN_IDS: Mapping[str, int] = json.loads(Path(__file__).with_name("schema_ids.json").read_text())


class FrameError(ValueError):
    """The bytes are not Confluent framing."""


def frame(schema_id: int, payload: bytes) -> bytes:
    """The value of a record: magic byte, schema id, index of the first message, payload."""
    return prefix(schema_id) + payload


def prefix(schema_id: int) -> bytes:
    """What stands before the payload, for the first message of a schema."""
    return b"\0" + schema_id.to_bytes(4, "big") + b"\0"


def split(value: bytes) -> tuple[int, tuple[int, ...], bytes]:
    """Schema id, message index and payload of a value.

    Raises:
        FrameError: the value is too short, has another magic byte or a broken index.
    """
    if len(value) <= HEADER_BYTES or value[0] != MAGIC:
        raise FrameError("not framed: magic byte 0 and a schema id expected")
    count, position = _varint(value, HEADER_BYTES)
    if count < 0 or count > 64:
        raise FrameError("broken message index")
    index = []
    for _ in range(count):
        step, position = _varint(value, position)
        index.append(step)
    return int.from_bytes(value[1:HEADER_BYTES], "big"), tuple(index) or (0,), value[position:]


def _varint(value: bytes, position: int) -> tuple[int, int]:
    """A zigzag varint, as Confluent writes message indexes."""
    result = shift = 0
    while True:
        if position >= len(value) or shift > 28:
            raise FrameError("broken message index")
        octet = value[position]
        result |= (octet & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not octet & 0x80:
            return (result >> 1) ^ -(result & 1), position


class Decodes(Protocol):
    """A writer's schema, of any language."""

    @property
    def schema_id(self) -> int:
        """Its id."""

    @property
    def name(self) -> str:
        """What its records are called."""

    @property
    def arrow(self) -> pa.Schema:
        """The columns of `decode`."""

    def decode(self, payloads: list[bytes]) -> pa.RecordBatch:
        """Payloads as columns. Raises ValueError if at least one is malformed."""


@dataclass(frozen=True)
class Schema:
    """A writer's schema of Protobuf: a message, and how to turn its payloads into columns."""

    schema_id: int
    descriptor: Descriptor

    @property
    def name(self) -> str:
        """Full name of the message."""
        return str(self.descriptor.full_name)

    @cached_property
    def handler(self) -> Any:
        """The columnar decoder and encoder (ptars)."""
        return ptars.HandlerPool([self.descriptor.file], PTARS).get_for_message(self.descriptor)

    def decode(self, payloads: list[bytes]) -> pa.RecordBatch:
        """Payloads as columns, nested messages flattened.

        Raises:
            ValueError: at least one payload is malformed; which one is not known.
        """
        return flatten(self.handler.list_to_record_batch(payloads))

    def encode(self, columns: Mapping[str, pa.Array], count: int) -> list[bytes]:
        """`count` messages, serialised, from columns by field name (nested messages as structs); what is not given is absent or zero."""
        wanted = self.handler.schema()
        arrays = [columns[field.name].cast(field.type) if field.name in columns else _default(field, count) for field in wanted]
        payloads: list[bytes] = self.handler.record_batch_to_array(pa.RecordBatch.from_arrays(arrays, schema=wanted)).to_pylist()
        return payloads

    @cached_property
    def arrow(self) -> pa.Schema:
        """The columns of `decode`."""
        return flatten(pa.RecordBatch.from_pylist([], schema=self.handler.schema())).schema


def _default(field: pa.Field, count: int) -> pa.Array:
    if field.nullable:
        return pa.nulls(count, field.type)
    zero = {pa.string(): "", pa.binary(): b"", pa.bool_(): False}.get(field.type, 0)
    return pa.repeat(pa.scalar(zero, field.type), count)


def flatten(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Nested messages become columns joined by "_" (`fare_amount_minor`), null where the message is absent."""
    while any(pa.types.is_struct(field.type) for field in batch.schema):
        names, columns = [], []
        for field, column in zip(batch.schema, batch.columns, strict=True):
            if pa.types.is_struct(field.type):
                names += [f"{field.name}_{child.name}" for child in field.type]
                columns += column.flatten()
            else:
                names.append(field.name)
                columns.append(column)
        batch = pa.RecordBatch.from_arrays(columns, names=names)
    return pa.RecordBatch.from_arrays(batch.columns, schema=pa.schema([pa.field(f.name, f.type) for f in batch.schema]))


class Schemas:
    """Schemas by id: the built-in ones, and those that were registered."""

    def __init__(self, registered: Mapping[int, tuple[bytes, str]] | None = None) -> None:
        """`registered` maps an id to a serialised FileDescriptorSet and the message's full name."""
        self._registered = dict(registered or {})
        self._known: dict[tuple[int, tuple[int, ...]], Decodes | None] = {}
        self._declared: dict[str, int] = {}

    def get(self, schema_id: int, index: tuple[int, ...] = (0,)) -> "Decodes | None":
        """The schema, or None if the id or the index is unknown."""
        key = (schema_id, index)
        if key not in self._known:
            self._known[key] = self._find(schema_id, index)
        return self._known[key]

    def add(self, schema_id: int, file_descriptor_set: bytes, message: str) -> None:
        """Makes a registered schema known; what is known as the same keeps its decoder."""
        if self._registered.get(schema_id) == (file_descriptor_set, message):
            return
        self._registered[schema_id] = (file_descriptor_set, message)
        self._known = {key: value for key, value in self._known.items() if key[0] != schema_id}

    def give(self, schema: "Decodes") -> None:
        """Makes a schema of another language known."""
        self._known[schema.schema_id, (0,)] = schema

    def declare(self, name: str, schema_id: int) -> None:
        """Makes a registered schema the one that a Schema resource stands for."""
        self._declared[name] = schema_id

    def id_of(self, topic: Topic) -> int | None:
        """Id of the schema that a topic is written with; None if it is not known."""
        return self._declared.get(topic.schema) if topic.schema else BUILTIN_IDS.get(topic.message)

    def of(self, topic: Topic) -> "Decodes":
        """The schema that a topic is written with.

        Raises:
            LookupError: it is not known.
        """
        schema_id = self.id_of(topic)
        schema = None if schema_id is None else self.get(schema_id)
        if schema is None:
            raise LookupError(f"the schema of {topic.name} is not known: {topic.schema or topic.message}")
        return schema

    def builtin(self, message: str) -> Schema:
        """The built-in schema of a message, by full name.

        Raises:
            LookupError: there is none.
        """
        schema = self.get(BUILTIN_IDS.get(message, 0))
        if not isinstance(schema, Schema):
            raise LookupError(message)
        return schema

    def _find(self, schema_id: int, index: tuple[int, ...]) -> Schema | None:
        if schema_id in self._registered:
            descriptor = load_descriptor(*self._registered[schema_id])
        else:
            name = next((name for name, known in BUILTIN_IDS.items() if known == schema_id), None)
            if name is None:
                return None
            descriptor = message_descriptor(name)
        messages = list(descriptor.file.message_types_by_name.values())
        found: Descriptor | None = descriptor if index == (0,) else None
        for step in index if found is None else ():
            if not 0 <= step < len(messages):
                return None
            found = messages[step]
            messages = list(found.nested_types)
        return None if found is None else Schema(schema_id, found)


def descriptor_set(message: Descriptor) -> bytes:
    """The serialised FileDescriptorSet of a message, dependencies first."""
    files = descriptor_pb2.FileDescriptorSet()
    added: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name not in added:
            added.add(file.name)
            for dependency in file.dependencies:
                add(dependency)
            file.CopyToProto(files.file.add())

    add(message.file)
    return files.SerializeToString()


def load_descriptor(file_descriptor_set: bytes, message: str) -> Descriptor:
    """The message of a FileDescriptorSet. Raises KeyError, TypeError or DecodeError for one that cannot be read."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set).file:
        pool.Add(file)
    return pool.FindMessageTypeByName(message)


def message_descriptor(name: str) -> Descriptor:
    """The descriptor of a built-in event by full name; it stands first in the file of its own name.

    Raises:
        LookupError: the contracts have no such message.
    """
    package, _, message = name.rpartition(".")
    module = re.sub(r"(?<!^)(?=[A-Z])", "_", message).lower()
    try:
        importlib.import_module(f"{package}.{module}_pb2")
        return descriptor_pool.Default().FindMessageTypeByName(name)
    except (ImportError, KeyError) as error:
        raise LookupError(f"the contracts have no message {name}") from error
