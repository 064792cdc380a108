"""Columns of events, and their bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chassis.wire import Schema, Schemas

MESSAGE_OF_TOPIC = {
    "trip_events_v2": "arterial.api.events.v1.TripEvent",
    "gps_pings_v1": "arterial.api.events.v1.GpsPing",
    "payment_events_v1": "arterial.api.events.v1.PaymentEvent",
    "marketplace_events_v1": "arterial.api.events.v1.MarketplaceEvent",
    "app_telemetry_v1": "arterial.api.events.v1.AppTelemetryEvent",
}
_SCHEMAS = Schemas()


@dataclass
class Events:
    """Events of one topic as columns by field name; all columns have `count` entries."""

    columns: dict[str, pa.Array]
    count: int

    @classmethod
    def join(cls, parts: Sequence["Events"]) -> "Events":
        """One after another; a column that a part lacks is null there."""
        filled = [part for part in parts if part.count]
        if len(filled) == 1:
            return filled[0]
        tables = [pa.table(part.columns) for part in filled]
        if not tables:
            return cls({}, 0)
        whole = pa.concat_tables(tables, promote_options="default").combine_chunks()
        return cls({name: whole[name].combine_chunks() for name in whole.column_names}, whole.num_rows)

    def encode(self, topic: str) -> list[bytes]:
        """Serialised messages, in order."""
        schema = schema_of(topic)
        return schema.encode({name: _filled(column) for name, column in self.columns.items()}, self.count)

    def identities(self) -> bytes:
        """(event_id, event_time) of each event, 24 bytes each, as an audit's ledger has them."""
        octets = np.frombuffer(b"".join(self.columns["event_id"].to_pylist()), np.uint8).reshape(-1, 16)
        micros = np.ascontiguousarray(self.columns["event_time"].cast(pa.int64()).to_numpy().astype(">i8")).view(np.uint8).reshape(-1, 8)
        return np.ascontiguousarray(np.hstack([octets, micros])).tobytes()


def schema_of(topic: str) -> Schema:
    """The built-in schema of a topic."""
    return _SCHEMAS.builtin(MESSAGE_OF_TOPIC[topic])


def _filled(column: pa.Array) -> pa.Array:
    """Scalars have no null in the contracts: absent is zero."""
    if not column.null_count or pa.types.is_timestamp(column.type):
        return column
    if pa.types.is_struct(column.type):
        children = [_filled(child) for child in column.flatten()]
        fields = [pa.field(field.name, field.type, nullable=False) for field in column.type]
        return pa.StructArray.from_arrays(children, fields=fields, mask=pc.is_null(column))
    return pc.fill_null(column, "" if pa.types.is_string(column.type) else 0)


def times(micros: NDArray[np.int64]) -> pa.Array:
    """Timestamps from microseconds since 1970."""
    return pa.array(micros, pa.int64()).cast(pa.timestamp("us", "UTC"))


def names(prefix: str, numbers: NDArray[np.int64]) -> pa.Array:
    """Opaque identifiers: prefix and number."""
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "-")


def positions(degrees: NDArray[np.float64]) -> pa.Array:
    """Position messages from (latitude, longitude), shape (n, 2)."""
    fields = [pa.field("latitude", pa.float64(), nullable=False), pa.field("longitude", pa.float64(), nullable=False)]
    return pa.StructArray.from_arrays([pa.array(np.ascontiguousarray(degrees[:, place])) for place in (0, 1)], fields=fields)


def money(minor: NDArray[np.int64]) -> pa.Array:
    """Money messages in US cents."""
    fields = [pa.field("amount_minor", pa.int64(), nullable=False), pa.field("currency_code", pa.string(), nullable=False)]
    return pa.StructArray.from_arrays([pa.array(minor), pa.repeat("USD", len(minor))], fields=fields)


def event_ids(micros: NDArray[np.int64], random: np.random.Generator) -> pa.Array:
    """UUIDs of version 7: milliseconds, then random bits."""
    octets = random.integers(0, 256, (len(micros), 16), np.uint8)
    octets[:, :6] = np.ascontiguousarray((micros // 1000).astype(">i8")).view(np.uint8).reshape(-1, 8)[:, 2:]
    octets[:, 6] = 0x70 | (octets[:, 6] & 0x0F)
    octets[:, 8] = 0x80 | (octets[:, 8] & 0x3F)
    return pa.Array.from_buffers(pa.binary(16), len(micros), [None, pa.py_buffer(octets.tobytes())]).cast(pa.binary())
