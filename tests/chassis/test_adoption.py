"""Records that were not made for Arterial: framed or plain, of Avro or JSON, identified and dated by the topic's expressions."""

import io
import json
import uuid
from collections.abc import Sequence

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from chassis.adoption import columns_of, derived
from chassis.judge import judge
from chassis.languages import AvroSchema, JsonSchema, UnsupportedSchema
from chassis.topics import Adoption, Topic
from chassis.wire import Schemas

AVRO = {
    "type": "record",
    "name": "company.Order",
    "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "created", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "total", "type": ["null", "double"], "default": None},
        {"name": "place", "type": {"type": "record", "name": "Place", "fields": [{"name": "city", "type": "int"}]}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "DONE"]}},
    ],
}
JSON = {
    "title": "order",
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "created_ms": {"type": ["integer", "null"]},
        "event_time": {"type": "string"},
        "place": {"$ref": "#/$defs/place"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {"place": {"properties": {"city": {"type": "integer"}}}},
}
ROW = {"order_id": "o-1", "created": 1_500, "total": None, "place": {"city": 7}, "state": "NEW"}
SCHEMA_ID = 1001


def topic(identity: str, time: str, *, framed: bool, wait_for_schema: bool = False) -> Topic:
    """An adopted topic."""
    return Topic(
        "orders",
        "",
        "place_city",
        schema="orders",
        any_partition=True,
        wait_for_schema=wait_for_schema,
        adoption=Adoption(framed, identity, time),
    )


def schemas(schema: AvroSchema | JsonSchema) -> Schemas:
    """Schemas with a declared one."""
    known = Schemas()
    known.give(schema)
    known.declare("orders", SCHEMA_ID)
    return known


def avro(row: dict[str, object]) -> bytes:
    """A record of Avro."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, AVRO, row)
    return stream.getvalue()


def framed(payload: bytes, schema_id: int = SCHEMA_ID) -> bytes:
    """As serialisers of schema registries write it."""
    return b"\0" + schema_id.to_bytes(4, "big") + payload


def partitions(values: Sequence[object]) -> np.ndarray:
    """Any."""
    return np.zeros(len(values), np.int32)


def test_avro_with_framing_is_decoded_identified_and_dated() -> None:
    """Nested records become columns; a repeat has the same id; what cannot be decoded is dead, alone."""
    values = [framed(avro(ROW)), framed(avro(ROW | {"total": 2.5})), framed(b"\x80"), avro(ROW), framed(avro(ROW), 99_999), None]
    known = schemas(AvroSchema(SCHEMA_ID, json.dumps(AVRO)))
    judged = judge(topic("order_id", "created", framed=True), known, values, partitions(values))
    assert judged.good.tolist() == [0, 1] and set(judged.schema_ids.tolist()) == {SCHEMA_ID}
    assert sorted((dead.index, dead.reason) for dead in judged.dead) == [
        (2, "undecodable"),
        (3, "undecodable"),
        (4, "unknown_schema"),
        (5, "tombstone"),
    ]
    rows = judged.columns.to_pylist()
    assert {row["event_id"] for row in rows} == {derived("orders", b"o-1")} and uuid.UUID(bytes=rows[0]["event_id"]).version == 8
    assert (rows[1]["total"], rows[0]["place_city"], rows[0]["state"]) == (2.5, 7, "NEW")
    assert judged.columns["event_time"].cast(pa.int64()).to_pylist() == [1_500_000, 1_500_000]


def test_plain_json_is_decoded_by_the_declared_schema() -> None:
    """What the schema does not name is left out; own columns of a reserved name are kept under another; without a time it is dead."""
    known = schemas(JsonSchema(SCHEMA_ID, json.dumps(JSON)))
    rows = [
        {"id": 1, "created_ms": 2_000, "event_time": "x", "place": {"city": 7}, "tags": ["a"], "unknown": 1},
        {"id": 2, "place": {"city": 8}},
        {"id": 3, "created_ms": 1},
    ]
    values = [json.dumps(row).encode() for row in rows] + [b'{"id": "text"}', b"[1", b"", json.dumps(rows[0], indent=1).encode()]
    expression = "concat('order ', toString(id))"
    judged = judge(topic(expression, "fromUnixTimestamp64Milli(created_ms)", framed=False), known, values, partitions(values))
    assert judged.good.tolist() == [0, 2, 6]
    reasons = {dead.index: dead.reason for dead in judged.dead}
    assert reasons == {1: "unidentified", 3: "undecodable", 4: "undecodable", 5: "undecodable"}
    first = judged.columns.to_pylist()[0]
    assert first["event_id"] == derived("orders", b"order 1") and first["payload_event_time"] == "x" and first["tags"] == ["a"]


def test_an_unknown_schema_waits_if_the_topic_says_so() -> None:
    """It is neither good nor dead."""
    known = schemas(AvroSchema(SCHEMA_ID, json.dumps(AVRO)))
    waiting = topic("order_id", "created", framed=True, wait_for_schema=True)
    judged = judge(waiting, known, [framed(avro(ROW), 99_999)], partitions([0]))
    assert judged.waiting == [0] and not judged.dead


def test_an_id_of_sixteen_bytes_stays_what_it_is() -> None:
    """A UUID of the company's own."""
    schema = {"type": "record", "name": "E", "fields": [{"name": "event_id", "type": "bytes"}, {"name": "t", "type": "long"}]}
    stream, own = io.BytesIO(), uuid.uuid4().bytes
    fastavro.schemaless_writer(stream, schema, {"event_id": own, "t": 5})
    known = schemas(AvroSchema(SCHEMA_ID, json.dumps(schema)))
    adopted = Topic("orders", "", "t", schema="orders", any_partition=True, adoption=Adoption(False, "event_id", "fromUnixTimestamp(t)"))
    (row,) = judge(adopted, known, [stream.getvalue()], partitions([0])).columns.to_pylist()
    assert row["event_id"] == own and row["payload_event_id"] == own


def test_columns_are_known_before_a_record_comes() -> None:
    """Those of the decoded records, identity and time first."""
    known = schemas(JsonSchema(SCHEMA_ID, json.dumps(JSON)))
    adopted = topic("id", "created_ms", framed=False)
    assert columns_of(adopted, known).names[:2] == ["event_id", "event_time"] and "place_city" in columns_of(adopted, known).names


@pytest.mark.parametrize("field", [["int", "string"], {"type": "array", "items": ["int", "string"]}])
def test_what_columns_cannot_hold_is_refused(field: object) -> None:
    """A union of several types."""
    with pytest.raises(UnsupportedSchema):
        _ = AvroSchema(1, json.dumps({"type": "record", "name": "E", "fields": [{"name": "a", "type": field}]})).arrow
