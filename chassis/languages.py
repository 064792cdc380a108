"""Schemas that are not Protobuf: Avro and JSON Schema, decoded into columns as the others are."""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.json

from chassis.wire import flatten

_AVRO: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_AVRO_LOGICAL: Mapping[str, pa.DataType] = {
    "timestamp-millis": pa.timestamp("us", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "uuid": pa.string(),
}
_JSON: Mapping[str, pa.DataType] = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
# A row's worth of JSON may be as large as a Kafka record.
_BLOCK_BYTES = 16 * 1024 * 1024


class UnsupportedSchema(ValueError):
    """The schema has what columns cannot hold."""


class _Structured(ABC):
    """A schema whose records are structs before they are flattened."""

    @property
    @abstractmethod
    def _struct(self) -> pa.Schema:
        """The columns before. Raises UnsupportedSchema."""

    @cached_property
    def arrow(self) -> pa.Schema:
        """The columns of `decode`."""
        return flatten(pa.RecordBatch.from_pylist([], schema=self._struct)).schema


@dataclass(frozen=True)
class AvroSchema(_Structured):
    """Records of Avro, one by one: its binary form has no columns. Unions other than with null are not supported."""

    schema_id: int
    text: str

    @cached_property
    def _parsed(self) -> Any:
        return fastavro.parse_schema(json.loads(self.text))

    @property
    def name(self) -> str:
        """Full name of the record."""
        return str(self._parsed["name"])

    @cached_property
    def _struct(self) -> pa.Schema:
        found = _avro_type(self._parsed, {})
        if not pa.types.is_struct(found):
            raise UnsupportedSchema(f"{self.name} is no record")
        return pa.schema(list(found))

    def decode(self, payloads: Sequence[bytes]) -> pa.RecordBatch:
        """Payloads as columns, nested records flattened.

        Raises:
            ValueError: at least one payload is malformed.
        """
        try:
            rows = [self._read(payload) for payload in payloads]
        except (EOFError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"malformed: {error!r}") from error
        return flatten(pa.RecordBatch.from_pylist(rows, schema=self._struct))

    def _read(self, payload: bytes) -> Any:
        stream = io.BytesIO(payload)
        row = fastavro.schemaless_reader(stream, self._parsed, None)
        if stream.read(1):
            raise ValueError("bytes are left after the record")
        return row


@dataclass(frozen=True)
class JsonSchema(_Structured):
    """Objects of JSON, a batch at a time. What the schema does not name is left out; times stay texts."""

    schema_id: int
    text: str

    @cached_property
    def _document(self) -> Any:
        return json.loads(self.text)

    @property
    def name(self) -> str:
        """Title of the schema."""
        return str(self._document.get("title", "object"))

    @cached_property
    def _struct(self) -> pa.Schema:
        found = _json_type(self._document, self._document)
        if not pa.types.is_struct(found) or not found.num_fields:
            raise UnsupportedSchema(f"{self.name} has no properties")
        return pa.schema(list(found))

    def decode(self, payloads: Sequence[bytes]) -> pa.RecordBatch:
        """Payloads as columns, nested objects flattened.

        Raises:
            ValueError: at least one payload is malformed.
        """
        if any(b"\n" in payload or not payload.strip() for payload in payloads):
            payloads = [json.dumps(json.loads(payload)).encode() for payload in payloads]
        options = pa.json.ParseOptions(explicit_schema=self._struct, unexpected_field_behavior="ignore")
        table = pa.json.read_json(io.BytesIO(b"\n".join(payloads)), pa.json.ReadOptions(block_size=_BLOCK_BYTES), options)
        if table.num_rows != len(payloads):
            raise ValueError(f"{table.num_rows} objects in {len(payloads)} records")
        (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=self._struct)]
        return flatten(batch)


def _avro_type(schema: Any, named: dict[str, pa.DataType]) -> pa.DataType:
    if isinstance(schema, list):
        others = [each for each in schema if each != "null"]
        if len(others) != 1:
            raise UnsupportedSchema(f"a union of {len(others)} types cannot be a column")
        return _avro_type(others[0], named)
    kind = schema if isinstance(schema, str) else schema["type"]
    logical = str(schema.get("logicalType")) if isinstance(schema, dict) else ""
    simple = _AVRO_LOGICAL.get(logical) or _AVRO.get(kind) or named.get(kind)
    if logical == "decimal":
        return pa.decimal128(schema["precision"], schema.get("scale", 0))
    return simple if simple is not None else _avro_compound(kind, schema, named)


def _avro_compound(kind: str, schema: Any, named: dict[str, pa.DataType]) -> pa.DataType:
    if kind == "array":
        return pa.list_(_avro_type(schema["items"], named))
    if kind == "map":
        return pa.map_(pa.string(), _avro_type(schema["values"], named))
    if kind == "record":
        named[schema["name"]] = pa.struct([pa.field(field["name"], _avro_type(field["type"], named)) for field in schema["fields"]])
    elif kind == "enum":
        named[schema["name"]] = pa.string()
    elif kind == "fixed":
        named[schema["name"]] = pa.binary(schema["size"])
    else:
        raise UnsupportedSchema(f"{kind} cannot be a column")
    return named[schema["name"]]


def _json_type(schema: Any, document: Any) -> pa.DataType:
    if "$ref" in schema:
        target = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return _json_type(target, document)
    kinds = schema.get("type", "object" if "properties" in schema else None)
    names = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind not in ("null", None)]
    if len(names) != 1:
        raise UnsupportedSchema(f"types {names} cannot be one column")
    if names[0] == "object":
        return pa.struct([pa.field(name, _json_type(each, document)) for name, each in schema.get("properties", {}).items()])
    if names[0] == "array":
        return pa.list_(_json_type(schema.get("items", {}), document))
    return _JSON[names[0]]
