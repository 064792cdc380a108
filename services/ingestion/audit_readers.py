"""Readers of the audit: Kafka, Delta and ClickHouse by their own plain clients; nothing is shared with the code that writes them."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import clickhouse_connect
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from aiokafka import AIOKafkaConsumer, TopicPartition
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from chassis.config import KafkaConfig, LakeConfig, OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.topics import Topic
from services.ingestion.findings import ID_BYTES, Rows, ids_of, rows_table

# Kafka that gives nothing for so long counts as away: an audit must end.
QUIET_SECONDS = 20.0
MAX_POLL_RECORDS = 10_000
_FOREVER = 1 << 62
_COLUMNS = ["_topic", "_incarnation", "_partition", "_offset", "event_id", "event_time"]


@dataclass(frozen=True)
class Bounds:
    """What an audit looks at: Kafka time in [start_us, end_us), microseconds since 1970."""

    start_us: int = -_FOREVER
    end_us: int = _FOREVER

    @property
    def limited(self) -> bool:
        """True if not everything is looked at."""
        return (self.start_us, self.end_us) != (-_FOREVER, _FOREVER)


@dataclass(frozen=True)
class KafkaLog:
    """Records of a topic, and by partition the first offset that Kafka has and the exclusive end at the start of the audit."""

    rows: Rows
    begins: Mapping[int, int]
    ends: Mapping[int, int]


async def read_kafka(config: KafkaConfig, topic: Topic, message: Descriptor, bounds: Bounds) -> KafkaLog:
    """Every committed record up to the end offsets of now, while others go on writing.

    Raises:
        ArterialError: DEPENDENCY_UNAVAILABLE, Kafka gave nothing for QUIET_SECONDS.
    """
    client = AIOKafkaConsumer(
        topic.name, **config.client_options(), isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await client.start()
    try:
        numbers = client.partitions_for_topic(topic.name) or range(topic.partitions)
        client.unsubscribe()  # known now are the partitions that there are, whatever is declared
        partitions = [TopicPartition(topic.name, number) for number in sorted(numbers)]
        ends: dict[TopicPartition, int] = await client.end_offsets(partitions)
        begins: dict[TopicPartition, int] = await client.beginning_offsets(partitions)
        client.assign(partitions)
        for partition in partitions:
            client.seek(partition, begins[partition])
        if bounds.start_us > 0:
            found = await client.offsets_for_times(dict.fromkeys(partitions, bounds.start_us // 1000))
            for partition, start in found.items():
                client.seek(partition, start.offset if start is not None else ends[partition])
        rows = await _drain(client, message, bounds, ends)
    finally:
        await client.stop()
    return KafkaLog(rows, {p.partition: offset for p, offset in begins.items()}, {p.partition: offset for p, offset in ends.items()})


async def _drain(client: AIOKafkaConsumer, message: Descriptor, bounds: Bounds, ends: Mapping[TopicPartition, int]) -> Rows:
    parse = message_factory.GetMessageClass(message).FromString
    coordinates: tuple[list[int], list[int]] = ([], [])
    ids: list[bytes | None] = []
    waiting = set(ends)
    heard = time.monotonic()
    while True:
        for partition in list(waiting):
            if await client.position(partition) >= ends[partition]:
                waiting.discard(partition)
                client.pause(partition)
                heard = time.monotonic()
        if not waiting:
            break
        fetched = await client.getmany(*waiting, timeout_ms=500, max_records=MAX_POLL_RECORDS)
        if fetched:
            heard = time.monotonic()
        elif time.monotonic() - heard > QUIET_SECONDS:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"Kafka gave nothing of {sorted(waiting)[0]} for {QUIET_SECONDS:.0f} s")
        for partition, records in fetched.items():
            end = ends[partition]
            for record in records:
                if record.offset < end and bounds.start_us <= record.timestamp * 1000 < bounds.end_us:
                    coordinates[0].append(partition.partition)
                    coordinates[1].append(record.offset)
                    ids.append(_identity(parse, record.value))
    names = pa.repeat(pa.scalar(next(iter(ends)).topic), len(ids))
    return rows_table(names, coordinates[0], coordinates[1], pa.array(ids, pa.binary(ID_BYTES)))


def _identity(parse: Callable[[bytes], Any], value: bytes | None) -> bytes | None:
    """(event_id, event_time) of a record in 24 bytes, or None if it cannot be told. Framing and payload are read by the plain rules."""
    if value is None or len(value) < 6 or value[0] != 0 or value[5] != 0:
        return None
    try:
        event = parse(value[6:])
    except DecodeError:
        return None
    if len(event.event_id) != 16 or not event.HasField("event_time"):
        return None
    micros = event.event_time.seconds * 1_000_000 + event.event_time.nanos // 1000
    return bytes(event.event_id) + int(micros).to_bytes(8, "big", signed=True) if -(1 << 63) <= micros < 1 << 63 else None


def read_raw(config: LakeConfig, topic: Topic, bounds: Bounds) -> Rows:
    """All rows of the raw table within the bounds, dead ones marked. Blocks."""
    table = _open(config, f"raw/{topic.name}")
    if table is None:
        return _none()
    times = ds.field("_kafka_time")
    within = None
    if bounds.limited:
        within = (times >= _instant(bounds.start_us)) & (times < _instant(bounds.end_us)) & (ds.field("_topic") == topic.name)
    rows = table.to_pyarrow_dataset().to_table(columns=[*_COLUMNS, "dead"], filter=within)
    return _rows(topic, rows, np.asarray(rows["dead"].to_numpy(), bool))


@dataclass(frozen=True)
class Curated:
    """Rows of a curated event table: those within the bounds, and all among which the events of the bounds are looked for."""

    within: Rows
    rows: Rows


def read_curated(config: LakeConfig, topic: Topic, bounds: Bounds, good: Rows) -> Curated:
    """Curated events. Blocks.

    A resend within the bounds may have its one row from before them; it has the same event time, so that bounds what is read.
    """
    table = _open(config, f"curated/{topic.name}")
    if table is None:
        return Curated(_none(), _none())
    near = None
    if bounds.limited:
        span = good.event_span_us()
        times = ds.field("event_time")
        near = ds.scalar(False) if span is None else (times >= _instant(span[0])) & (times <= _instant(span[1]))
    found = table.to_pyarrow_dataset().to_table(columns=[*_COLUMNS, "_kafka_time"], filter=near)
    rows = _rows(topic, found)
    micros = found["_kafka_time"].cast(pa.int64()).to_numpy()
    within = (micros >= bounds.start_us) & (micros < bounds.end_us)
    if bounds.limited:
        within &= np.asarray(pc.equal(rows.source, topic.name).to_numpy(), bool)
    return Curated(rows.where(within), rows)


def _none() -> Rows:
    return rows_table([], [], [], pa.array([], pa.binary(ID_BYTES)))


async def read_olap(config: OlapConfig, topic: Topic, bounds: Bounds) -> Rows:
    """All rows of the live table within the bounds."""
    tls = config.tls
    client = await clickhouse_connect.get_async_client(
        host=config.host,
        port=config.port,
        username=config.username,
        password=config.password,
        secure=tls is not None,
        ca_cert=str(tls.ca_file) if tls and tls.ca_file else None,
        client_cert=str(tls.cert_file) if tls and tls.cert_file else None,
        client_cert_key=str(tls.key_file) if tls and tls.key_file else None,
    )
    sql = (
        "SELECT _topic, _incarnation, _partition, _offset, event_id, toUnixTimestamp64Micro(event_time) AS event_time "
        f"FROM `{config.database}`.`{topic.name}`"
    )
    if bounds.limited:
        micros = "toUnixTimestamp64Micro(_kafka_time)"
        sql += f" WHERE _topic = '{topic.name}' AND {micros} >= {bounds.start_us} AND {micros} < {bounds.end_us}"
    try:
        if not int(str(await client.command(f"EXISTS TABLE `{config.database}`.`{topic.name}`"))):
            return _none()
        rows = await client.query_arrow(sql, use_strings=False)
    finally:
        await client.close()
    return await asyncio.to_thread(_rows, topic, rows)


def _rows(topic: Topic, rows: pa.Table, dead: np.typing.NDArray[np.bool_] | None = None) -> Rows:
    """Rows by source; what is of another incarnation of the topic than today's is a source of its own."""
    source = rows["_topic"].cast(pa.string())
    stale = pc.and_(pc.equal(source, topic.name), pc.not_equal(rows["_incarnation"], topic.incarnation))
    if pc.any(stale).as_py():
        source = pc.if_else(stale, pc.binary_join_element_wise(source, rows["_incarnation"].cast(pa.string()), "#"), source)
    ids = ids_of(rows["event_id"], rows["event_time"])
    return rows_table(source, rows["_partition"].to_numpy(), rows["_offset"].to_numpy(), ids, dead)


def file_progress(config: LakeConfig, topic: Topic, cluster: str, source: str) -> int:
    """Rows of a file that its table says are loaded."""
    table = _open(config, f"raw/{topic.name}")
    return 0 if table is None else table.transaction_version(f"{cluster}/{source}#0/0") or 0


def superseded(config: LakeConfig, topic: Topic, sources: Sequence[str]) -> list[str]:
    """Those of the sources that the raw table has a correction of."""
    table = _open(config, f"raw/{topic.name}")
    return [] if table is None else [source for source in sources if table.transaction_version(f"superseded/{source}") is not None]


def _open(config: LakeConfig, name: str) -> DeltaTable | None:
    try:
        return DeltaTable(config.table(name), storage_options=config.storage_options or None)
    except TableNotFoundError:
        return None


def _instant(micros: int) -> pa.Scalar:
    return pa.scalar(micros, pa.timestamp("us", "UTC"))
