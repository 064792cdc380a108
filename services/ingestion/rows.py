"""Rows of the raw zone: good and dead records of one batch, with their coordinates."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chassis.judge import Judged
from chassis.lineage.definition import JobDefinition, Output, identity

PARTITION_BY = ("ingest_date", "region", "dead")
HEADERS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
COORDINATES = [
    pa.field("_topic", pa.string()),
    pa.field("_incarnation", pa.int32()),
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_kafka_time", pa.timestamp("us", "UTC")),
    pa.field("_schema_id", pa.int32()),
    pa.field("_crc", pa.int64()),
    # Set for dead rows only.
    pa.field("_key", pa.binary()),
    pa.field("_value", pa.binary()),
    pa.field("_headers", HEADERS),
    pa.field("_error", pa.string()),
]
PARTITION_FIELDS = [pa.field("ingest_date", pa.date32()), pa.field("region", pa.string()), pa.field("dead", pa.bool_())]


@dataclass(frozen=True)
class Records:
    """Records of one source, as they came: n entries each; `times_us` are Kafka's, microseconds since 1970."""

    source: str
    incarnation: int
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    times_us: NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Sequence[tuple[str, bytes]]]


def crc(value: bytes | None) -> int:
    """Checksum of a value, by which a recreated topic is recognised."""
    return zlib.crc32(value or b"")


def payload_columns(columns: pa.RecordBatch) -> pa.RecordBatch:
    """The payload's own `region` gives way to the cell's: it becomes `payload_region`."""
    return columns.rename_columns(["payload_region" if name == "region" else name for name in columns.schema.names])


def raw_job(source: str, topic: str, columns: pa.Schema, *, name: str = "", known: bool = True) -> JobDefinition:
    """What the raw table of a topic is made from: the records of a dataset, column by column, if they are `known` there."""
    names = dict(zip(payload_columns(pa.RecordBatch.from_pylist([], schema=columns)).schema.names, columns.names, strict=True))
    types = {field.name: str(field.type) for field in raw_schema(columns)}
    output = Output(f"lake/raw/{topic}", identity(source, names) if known else {}, types)
    return JobDefinition(name or f"ingestion.raw.{topic}", (source,), (output,))


def raw_schema(columns: pa.Schema) -> pa.Schema:
    """Columns of a raw table whose events have these."""
    payload = [pa.field("payload_region" if field.name == "region" else field.name, field.type) for field in columns]
    return pa.schema([*COORDINATES, *payload, *PARTITION_FIELDS])


def raw_rows(records: Records, judged: Judged, region: str) -> pa.Table:
    """One row per judged record, good ones first. `region` is the cell's."""
    good = pa.Table.from_batches([payload_columns(judged.columns)])
    for field, column in reversed(list(zip(COORDINATES, _coordinates(records, judged.good, judged.schema_ids), strict=False))):
        good = good.add_column(0, field, column)
    parts = [_partitioned(good, region, dead=False)] if good.num_rows else []
    if judged.dead:
        parts.append(_partitioned(_dead_rows(records, judged), region, dead=True))
    if not parts:
        return _partitioned(good, region, dead=False)
    return pa.concat_tables(parts, promote_options="default")


def _coordinates(records: Records, index: NDArray[np.int64], schema_ids: NDArray[np.int32] | None) -> list[pa.Array]:
    count = len(index)
    return [
        pa.repeat(pa.scalar(records.source), count),
        pa.repeat(pa.scalar(records.incarnation, pa.int32()), count),
        pa.array(records.partitions[index], pa.int32()),
        pa.array(records.offsets[index], pa.int64()),
        pa.array(records.times_us[index], pa.int64()).cast(pa.timestamp("us", "UTC")),
        pa.nulls(count, pa.int32()) if schema_ids is None else pa.array(schema_ids, pa.int32()),
        pa.array(_checksums(records.values, index), pa.int64()),
    ]


def _checksums(values: Sequence[bytes | None], index: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.fromiter((crc(values[place]) for place in index.tolist()), np.int64, len(index))


def _dead_rows(records: Records, judged: Judged) -> pa.Table:
    index = np.array([dead.index for dead in judged.dead], np.int64)
    columns = _coordinates(records, index, None)
    columns += [
        pa.array([records.keys[place] for place in index], pa.binary()),
        pa.array([records.values[place] for place in index], pa.binary()),
        pa.array([[{"name": name, "value": value} for name, value in records.headers[place]] for place in index], HEADERS),
        pa.array([f"{dead.reason}: {dead.message}" for dead in judged.dead], pa.string()),
    ]
    return pa.table(columns, schema=pa.schema(COORDINATES))


def _partitioned(rows: pa.Table, region: str, *, dead: bool) -> pa.Table:
    count = rows.num_rows
    rows = rows.append_column(PARTITION_FIELDS[0], rows["_kafka_time"].cast(pa.date32(), safe=False))
    rows = rows.append_column(PARTITION_FIELDS[1], pa.repeat(pa.scalar(region), count))
    return rows.append_column(PARTITION_FIELDS[2], pa.repeat(pa.scalar(dead), count))
