"""Records that were not made for Arterial: what identifies and dates them, by the expressions of their topic."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from chassis.expressions import TIMESTAMP, ExpressionError, parse
from chassis.topics import Adoption, Topic
from chassis.wire import Schemas

ID, TIME = "event_id", "event_time"
ID_TYPE = pa.binary()


def columns_of(topic: Topic, schemas: Schemas) -> pa.Schema:
    """Columns of a topic's events, identity and time included. Raises LookupError if its schema is not known."""
    arrow = schemas.of(topic).arrow
    if topic.adoption is None:
        return arrow
    return pa.schema([pa.field(ID, ID_TYPE), pa.field(TIME, TIMESTAMP), *_renamed(arrow)])


def identified(topic: Topic, adoption: Adoption, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with an event_id and an event_time of each record; null where the expressions give none.

    An id of 16 bytes stays what it is; of any other a UUID of version 8 is made, from the topic and the id, so that a repeat has the same.
    Columns of these names that the records have themselves get the prefix `payload_`.
    """
    try:
        ids, times = parse(adoption.identity).values(batch), parse(adoption.time).values(batch)
        moments = times.cast(TIMESTAMP)
    except (ExpressionError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        ids, moments = pa.nulls(batch.num_rows, pa.string()), pa.nulls(batch.num_rows, TIMESTAMP)
    schema = pa.schema([pa.field(ID, ID_TYPE), pa.field(TIME, TIMESTAMP), *_renamed(batch.schema)])
    return pa.RecordBatch.from_arrays([_uuids(topic.name, ids), moments, *batch.columns], schema=schema)


def _renamed(schema: pa.Schema) -> list[pa.Field]:
    return [pa.field(f"payload_{field.name}" if field.name in (ID, TIME) else field.name, field.type) for field in schema]


def _uuids(topic: str, ids: pa.Array) -> pa.Array:
    if pa.types.is_binary(ids.type) or pa.types.is_fixed_size_binary(ids.type):
        widths = pc.binary_length(ids.cast(pa.binary()))
        if pc.all(pc.equal(widths, 16)).as_py():
            return ids.cast(ID_TYPE)
        texts = [None if value is None else value for value in ids.cast(pa.binary()).to_pylist()]
    else:
        texts = [None if value is None else value.encode() for value in ids.cast(pa.string()).to_pylist()]
    return pa.array([None if not text else derived(topic, text) for text in texts], ID_TYPE)


def derived(topic: str, identity: bytes) -> bytes:
    """A UUID of version 8 (RFC 9562) of a record's own identity within its topic."""
    digest = bytearray(hashlib.sha256(topic.encode() + b"\0" + identity).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return bytes(digest)
