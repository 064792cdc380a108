"""Judges records: decodable, identified, storable, rightly routed. By the schema alone, a batch at a time; values are never judged."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chassis.adoption import columns_of, identified
from chassis.partitioning import partitions_of
from chassis.topics import Topic
from chassis.wire import HEADER_BYTES, Decodes, FrameError, Schema, Schemas, split

# Timestamps of protobuf are defined for the years 1 to 9999; what lies beyond has no calendar date.
TOMBSTONE = "the value is null; events are never deleted"
MIN_MICROS, MAX_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999


@dataclass(frozen=True)
class Dead:
    """A record that cannot be taken: its index in the batch, a stable reason, a message for people."""

    index: int
    reason: str
    message: str


@dataclass(frozen=True)
class Judged:
    """`columns` has one row per good record, whose index in the batch is in `good` and whose schema id is in `schema_ids`."""

    columns: pa.RecordBatch
    good: NDArray[np.int64]
    schema_ids: NDArray[np.int32]
    dead: list[Dead]
    # Indexes of records whose schema is unknown, if the topic's policy is to wait; they are neither good nor dead.
    waiting: list[int]


def judge(topic: Topic, schemas: Schemas, values: Sequence[bytes | None], partitions: NDArray[np.int32] | None) -> Judged:
    """Judges records; `partitions` holds the partition of each, shape (n,), or is None for records that have none yet."""
    dead: list[Dead] = []
    waiting: list[int] = []
    parts: list[pa.RecordBatch] = []
    goods: list[NDArray[np.int64]] = []
    ids: list[NDArray[np.int32]] = []
    for schema, indexes, payloads in _by_schema(topic, schemas, values, dead, waiting):
        batch, good = _decode(schema, indexes, payloads, dead)
        if topic.adoption is not None:
            batch = identified(topic, topic.adoption, batch)
        batch, good = _screen(topic, batch, good, partitions, dead)
        parts.append(batch)
        goods.append(good)
        ids.append(np.full(len(good), schema.schema_id, np.int32))
    if len(parts) == 1:
        return Judged(parts[0], goods[0], ids[0], dead, waiting)
    if not parts:
        empty = pa.RecordBatch.from_pylist([], schema=columns_of(topic, schemas))
        return Judged(empty, np.zeros(0, np.int64), np.zeros(0, np.int32), dead, waiting)
    columns = pa.concat_tables([pa.Table.from_batches([part]) for part in parts], promote_options="permissive").combine_chunks()
    rows = columns.to_batches() or [pa.RecordBatch.from_pylist([], schema=columns.schema)]
    return Judged(rows[0], np.concatenate(goods), np.concatenate(ids), dead, waiting)


def _empty(schema: Decodes) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema.arrow)


def _by_schema(
    topic: Topic, schemas: Schemas, values: Sequence[bytes | None], dead: list[Dead], waiting: list[int]
) -> list[tuple[Decodes, NDArray[np.int64], list[bytes]]]:
    """Payloads grouped by the schema that they were written with; almost always there is one group."""
    if topic.adoption is not None and not topic.adoption.framed:
        return _plain(schemas.of(topic), values, dead)
    if topic.schema and not isinstance(schemas.of(topic), Schema):
        return _framed_without_index(topic, schemas, values, dead, waiting)
    heads = {value[:6] if value is not None else None for value in values}
    if len(heads) == 1:
        head = heads.pop()
        schema = schemas.get(int.from_bytes(head[1:5], "big")) if head is not None and len(head) == 6 and head[0] == head[5] == 0 else None
        if schema is not None:
            return [(schema, np.arange(len(values)), [value[6:] for value in values if value is not None])]
    groups: dict[tuple[int, tuple[int, ...]], tuple[list[int], list[bytes]]] = defaultdict(lambda: ([], []))
    for index, value in enumerate(values):
        if value is None:
            dead.append(Dead(index, "tombstone", TOMBSTONE))
            continue
        try:
            schema_id, path, payload = split(value)
        except FrameError as error:
            dead.append(Dead(index, "undecodable", str(error)))
            continue
        group = groups[schema_id, path]
        group[0].append(index)
        group[1].append(payload)
    known = []
    for (schema_id, path), (indexes, payloads) in groups.items():
        schema = schemas.get(schema_id, path)
        if schema is not None:
            known.append((schema, np.array(indexes, np.int64), payloads))
        else:
            _unknown(topic, indexes, f"schema id {schema_id}, message index {list(path)} is not known", dead, waiting)
    return known


def _plain(schema: Decodes, values: Sequence[bytes | None], dead: list[Dead]) -> list[tuple[Decodes, NDArray[np.int64], list[bytes]]]:
    """Payloads without framing."""
    there = [(index, value) for index, value in enumerate(values) if value is not None]
    dead.extend(Dead(index, "tombstone", TOMBSTONE) for index, value in enumerate(values) if value is None)
    return [(schema, np.array([index for index, _ in there], np.int64), [value for _, value in there])] if there else []


def _framed_without_index(
    topic: Topic, schemas: Schemas, values: Sequence[bytes | None], dead: list[Dead], waiting: list[int]
) -> list[tuple[Decodes, NDArray[np.int64], list[bytes]]]:
    """Payloads of Avro and JSON, whose framing has no message index, by the schema that they were written with."""
    groups: dict[int, tuple[list[int], list[bytes]]] = defaultdict(lambda: ([], []))
    for index, value in enumerate(values):
        if value is None:
            dead.append(Dead(index, "tombstone", TOMBSTONE))
        elif len(value) < HEADER_BYTES or value[0] != 0:
            dead.append(Dead(index, "undecodable", "not framed: magic byte 0 and a schema id expected"))
        else:
            group = groups[int.from_bytes(value[1:HEADER_BYTES], "big")]
            group[0].append(index)
            group[1].append(value[HEADER_BYTES:])
    known: list[tuple[Decodes, NDArray[np.int64], list[bytes]]] = []
    for schema_id, (indexes, payloads) in groups.items():
        schema = schemas.get(schema_id)
        if schema is not None:
            known.append((schema, np.array(indexes, np.int64), payloads))
        else:
            _unknown(topic, indexes, f"schema id {schema_id} is not known", dead, waiting)
    return known


def _unknown(topic: Topic, indexes: Sequence[int], why: str, dead: list[Dead], waiting: list[int]) -> None:
    if topic.wait_for_schema:
        waiting.extend(indexes)
    else:
        dead.extend(Dead(index, "unknown_schema", why) for index in indexes)


def _decode(
    schema: Decodes, indexes: NDArray[np.int64], payloads: list[bytes], dead: list[Dead]
) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Decodes a group; one malformed message fails a whole batch, so a failing batch is halved until the culprits are alone."""
    try:
        return schema.decode(payloads), indexes
    except ValueError as error:
        if len(payloads) == 1:
            dead.append(Dead(int(indexes[0]), "undecodable", f"not a {schema.name}: {error}"))
            return _empty(schema), np.zeros(0, np.int64)
    middle = len(payloads) // 2
    halves = [_decode(schema, indexes[part], payloads[part], dead) for part in (slice(None, middle), slice(middle, None))]
    table = pa.Table.from_batches([batch for batch, _ in halves], schema=schema.arrow).combine_chunks()
    return (table.to_batches() or [_empty(schema)])[0], np.concatenate([good for _, good in halves])


def _screen(
    topic: Topic, batch: pa.RecordBatch, indexes: NDArray[np.int64], partitions: NDArray[np.int32] | None, dead: list[Dead]
) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Keeps what is identified, storable and in its partition."""
    keep = np.ones(batch.num_rows, bool)

    def bury(bad: NDArray[np.bool_], reason: str, message: str) -> None:
        dead.extend(Dead(int(index), reason, message) for index in indexes[bad & keep])
        np.logical_and(keep, ~bad, out=keep)

    if batch.num_rows == 0:
        return batch, indexes
    if "event_id" not in batch.schema.names or "event_time" not in batch.schema.names or topic.key_field not in batch.schema.names:
        bury(keep.copy(), "unidentified", f"the schema lacks event_id, event_time or {topic.key_field}")
        return batch.slice(0, 0), indexes[keep]
    bury(_not(pc.equal(pc.binary_length(batch["event_id"]), 16)), "unidentified", "event_id must have 16 bytes")
    bury(_not(pc.is_valid(batch["event_time"])), "unidentified", "event_time is absent")
    for field in batch.schema:
        if pa.types.is_timestamp(field.type):
            micros = batch[field.name].cast(pa.int64())
            if pc.min(micros).as_py() is not None and (pc.min(micros).as_py() < MIN_MICROS or pc.max(micros).as_py() > MAX_MICROS):
                inside = pc.and_(pc.greater_equal(micros, MIN_MICROS), pc.less_equal(micros, MAX_MICROS)).fill_null(True)
                bury(_not(inside), "unstorable", f"{field.name} is outside the years 1 to 9999")
    if partitions is not None and not topic.any_partition:
        bury(route(topic, batch) != partitions[indexes], "misrouted", f"the partition is not that of the key {topic.key_field}")
    if keep.all():
        return batch, indexes
    return batch.filter(pa.array(keep)), indexes[keep]


def route(topic: Topic, batch: pa.RecordBatch) -> NDArray[np.int32]:
    """The partition where each record belongs."""
    keys = batch[topic.key_field]
    if topic.key_is_partition:
        return np.asarray(keys.to_numpy(zero_copy_only=False), np.int32)
    return partitions_of(keys, topic.partitions)


def _not(mask: pa.BooleanArray) -> NDArray[np.bool_]:
    return ~np.asarray(mask.fill_null(False).to_numpy(zero_copy_only=False), bool)
