"""Audit by id: Kafka, raw, curated and OLAP compared record by record, through readers that share no code with the writers."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import clickhouse_connect
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka import AIOKafkaConsumer, TopicPartition
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from chassis.desired import Desired
from chassis.topics import Topic
from chassis.wire import message_descriptor
from services.ingestion.config import IngestionConfig
from services.ingestion.findings import Findings, Rows, ids_of, rows_table

# Findings named per topic and kind; the counts have all.
MAX_NAMED = 1000
# Reading one partition to its end may pause this long before Kafka counts as away.
QUIET_SECONDS = 20.0


@dataclass
class Question:
    """What is asked: topics, bounds of Kafka time (microseconds), and the caller's acknowledged ids by topic."""

    topics: list[str] = field(default_factory=list)
    start_us: int = -(1 << 62)
    end_us: int = 1 << 62
    ledgers: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def ledger(self, topic: str) -> pa.Array:
        """Acknowledged records of a topic, 24 bytes each, as the caller sent them."""
        blob = b"".join(self.ledgers.get(topic, []))
        return pa.Array.from_buffers(pa.binary(24), len(blob) // 24, [None, pa.py_buffer(blob)])


async def audit(config: IngestionConfig, desired: Desired, requests: AsyncIterator[pb.AuditRequest]) -> pb.AuditResponse:
    """Answers an audit; the work is done in a thread with a loop of its own."""
    question = Question()
    async for request in requests:
        question.topics += list(request.topics)
        if request.interval.HasField("start_time"):
            question.start_us = request.interval.start_time.ToMicroseconds()
        if request.interval.HasField("end_time"):
            question.end_us = request.interval.end_time.ToMicroseconds()
        if request.acknowledged_ids:
            question.ledgers[request.ledger_topic].append(request.acknowledged_ids)
    names = question.topics or sorted(desired.topics)
    topics = [desired.topics[name] for name in names if name in desired.topics]
    return await asyncio.to_thread(asyncio.run, _audit(config, topics, question))


async def _audit(config: IngestionConfig, topics: list[Topic], question: Question) -> pb.AuditResponse:
    response = pb.AuditResponse(exact=True)
    for topic in topics:
        in_kafka = await _read_kafka(config, topic, question)
        in_raw = await asyncio.to_thread(_read_delta, config, f"raw/{topic.name}", question)
        in_curated = await asyncio.to_thread(_read_delta, config, f"curated/{topic.name}", question) if topic.curated else None
        in_olap = await _read_olap(config, topic, question) if topic.live else None
        summary, files = _compare(config, topic, question, Stores(in_kafka, in_raw, in_curated, in_olap))
        response.topics.append(summary)
        response.files.extend(files)
        response.exact &= not (summary.missing_count or summary.duplicated_count)
        response.exact &= summary.kafka == summary.raw + summary.dead_lettered + summary.superseded + summary.erased
        response.exact &= all(
            file.rows == file.raw + file.dead_lettered and not file.missing_count + file.duplicated_count for file in files
        )
    return response


@dataclass(frozen=True)
class Stores:
    """What each store has of a topic; None where the topic is not kept there."""

    kafka: Rows
    raw: Rows
    curated: Rows | None
    olap: Rows | None


async def _read_kafka(config: IngestionConfig, topic: Topic, question: Question) -> Rows:
    """Every committed record up to the end offsets of now."""
    client = AIOKafkaConsumer(
        **config.kafka.client_options(), isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await client.start()
    descriptor_pool.Default()
    parse = message_factory.GetMessageClass(message_descriptor(topic.message)).FromString
    columns: tuple[list[int], list[int], list[bytes | None]] = ([], [], [])
    try:
        partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        ends = await client.end_offsets(partitions)
        begins = await client.beginning_offsets(partitions)
        open_partitions = {partition for partition in partitions if begins[partition] < ends[partition]}
        client.assign(list(open_partitions))
        while open_partitions:
            fetched = await asyncio.wait_for(client.getmany(timeout_ms=500, max_records=20_000), QUIET_SECONDS)
            for partition, records in fetched.items():
                for record in records:
                    if record.offset < ends[partition] and question.start_us <= record.timestamp * 1000 < question.end_us:
                        columns[0].append(partition.partition)
                        columns[1].append(record.offset)
                        columns[2].append(_identity(parse, record.value))
            for partition in list(open_partitions):
                if await client.position(partition) >= ends[partition]:
                    open_partitions.discard(partition)
                    client.pause(partition)
    finally:
        await client.stop()
    return rows_table([topic.name] * len(columns[0]), columns[0], columns[1], pa.array(columns[2], pa.binary(24)))


def _identity(parse, value: bytes | None) -> bytes | None:  # type: ignore[no-untyped-def]
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


def _read_delta(config: IngestionConfig, name: str, question: Question) -> Rows:
    """All rows of a Delta table within the bounds."""
    try:
        table = DeltaTable(config.lake.table(name), storage_options=config.lake.storage_options or None)
    except TableNotFoundError:
        return rows_table([], [], [], pa.array([], pa.binary(24)))
    columns = ["_topic", "_partition", "_offset", "_kafka_time", "event_id", "event_time"] + (["dead"] if name.startswith("raw/") else [])
    rows = table.to_pyarrow_dataset().to_table(columns=columns)
    times = rows["_kafka_time"].cast(pa.int64())
    rows = rows.filter(pc.and_(pc.greater_equal(times, question.start_us), pc.less(times, question.end_us)))
    dead = rows["dead"].to_numpy() if "dead" in rows.column_names else None
    return rows_table(
        rows["_topic"], rows["_partition"].to_numpy(), rows["_offset"].to_numpy(), ids_of(rows["event_id"], rows["event_time"]), dead
    )


async def _read_olap(config: IngestionConfig, topic: Topic, question: Question) -> Rows:
    """All rows of the live table within the bounds."""
    tls = config.olap.tls
    client = await clickhouse_connect.get_async_client(
        host=config.olap.host, port=config.olap.port, username=config.olap.username, password=config.olap.password, secure=tls is not None
    )
    try:
        if not int(str(await client.command(f"EXISTS TABLE `{config.olap.database}`.`{topic.name}`"))):
            return rows_table([], [], [], pa.array([], pa.binary(24)))
        rows = await client.query_arrow(
            f"SELECT _topic, _partition, _offset, hex(event_id) AS event_id, toUnixTimestamp64Micro(event_time) AS event_time "
            f"FROM `{config.olap.database}`.`{topic.name}` "
            f"WHERE toUnixTimestamp64Micro(_kafka_time) >= {question.start_us} AND toUnixTimestamp64Micro(_kafka_time) < {question.end_us}"
        )
    finally:
        await client.close()
    octets = np.frombuffer(bytes.fromhex("".join(rows["event_id"].to_pylist())), np.uint8)
    binary = pa.Array.from_buffers(pa.binary(16), rows.num_rows, [None, pa.py_buffer(octets.tobytes())])
    return rows_table(
        rows["_topic"].cast(pa.string()), rows["_partition"].to_numpy(), rows["_offset"].to_numpy(), ids_of(binary, rows["event_time"])
    )


def _compare(config: IngestionConfig, topic: Topic, question: Question, stores: Stores) -> tuple[pb.TopicAudit, list[pb.FileAudit]]:
    findings = Findings()
    raw, good = stores.raw, stores.raw.good()
    live = raw.of(topic.name)
    findings.coordinates("raw", expected=stores.kafka, actual=live)
    findings.coordinates("kafka", expected=live.at_or_after(stores.kafka), actual=stores.kafka, doubles=False)
    ledger = question.ledger(topic.name)
    findings.ids("raw", expected=ledger, actual=good)
    if stores.curated is not None:
        findings.ids("curated", expected=good.ids, actual=stores.curated, doubles=True)
        findings.ids("raw", expected=stores.curated.ids, actual=good)
    if stores.olap is not None:
        for source in sorted(set(good.sources()) | set(stores.olap.sources())):
            findings.coordinates("olap", expected=good.of(source), actual=stores.olap.of(source))
            findings.coordinates("raw", expected=stores.olap.of(source), actual=good.of(source), doubles=False)
        findings.ids("olap", expected=ledger, actual=stores.olap)
    summary = pb.TopicAudit(
        topic=topic.name,
        acked_ids=len(pc.unique(ledger)),
        acked_records=len(ledger),
        kafka=len(stores.kafka),
        raw=len(good.of(topic.name)),
        dead_lettered=len(live) - len(good.of(topic.name)),
        curated_events=len(stores.curated) if stores.curated is not None else 0,
        olap=len(stores.olap) if stores.olap is not None else 0,
        missing=_named(findings.missing.values()),
        duplicated=_named(findings.duplicated.values()),
        missing_count=len(findings.missing),
        duplicated_count=len(findings.duplicated),
    )
    files = [_file(config, topic, source, raw) for source in raw.sources() if source.startswith("file:")]
    return summary, files


def _named(found: Iterable[pb.AuditFinding]) -> list[pb.AuditFinding]:
    return list(found)[:MAX_NAMED]


def _file(config: IngestionConfig, topic: Topic, source: str, raw: Rows) -> pb.FileAudit:
    """Rows of a backfilled file: offsets are 0 to rows - 1, each once."""
    rows = raw.of(source)
    table = DeltaTable(config.lake.table(f"raw/{topic.name}"), storage_options=config.lake.storage_options or None)
    total = table.transaction_version(f"{config.cell.kafka_cluster}/{source}#0/0") or 0
    distinct = np.unique(rows.offsets)
    good = len(rows.good())
    return pb.FileAudit(
        source=source,
        topic=topic.name,
        rows=total,
        raw=good,
        dead_lettered=len(rows) - good,
        missing_count=total - len(distinct),
        duplicated_count=len(rows) - len(distinct),
    )
