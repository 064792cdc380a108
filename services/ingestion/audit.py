"""Audit by id: Kafka, raw, curated and OLAP compared record by record, through readers that share no code with the writers."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import Descriptor

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason
from chassis.topics import Topic
from chassis.wire import load_descriptor, message_descriptor
from services.ingestion import audit_readers
from services.ingestion.audit_readers import Bounds, Curated, KafkaLog
from services.ingestion.config import IngestionConfig
from services.ingestion.findings import ID_BYTES, Findings, Rows

# Findings named per topic and kind; the counts have all.
MAX_NAMED = 1000


@dataclass
class Question:
    """What is asked: topics, bounds of Kafka time, and the caller's acknowledged ids by topic."""

    topics: list[str] = field(default_factory=list)
    bounds: Bounds = field(default_factory=Bounds)
    ledgers: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def take(self, request: pb.AuditRequest) -> None:
        """Adds a part of the question."""
        self.topics += list(request.topics)
        if request.interval.HasField("start_time"):
            self.bounds = replace(self.bounds, start_us=request.interval.start_time.ToMicroseconds())
        if request.interval.HasField("end_time"):
            self.bounds = replace(self.bounds, end_us=request.interval.end_time.ToMicroseconds())
        if request.acknowledged_ids:
            self.ledgers[request.ledger_topic].append(request.acknowledged_ids)

    def ledger(self, topic: str) -> pa.Array:
        """Acknowledged records of a topic, 24 bytes each, as the caller sent them."""
        blob = b"".join(self.ledgers.get(topic, []))
        return pa.Array.from_buffers(pa.binary(ID_BYTES), len(blob) // ID_BYTES, [None, pa.py_buffer(blob)])


@dataclass(frozen=True)
class Stores:
    """What each store has of a topic, as of the end offsets at the start; None where the topic is not kept there."""

    kafka: KafkaLog
    raw: Rows
    curated: Curated | None
    olap: Rows | None
    # Sources of raw that a correction supersedes.
    superseded: list[str]

    def in_force(self) -> Rows:
        """Good rows of raw that must be in curated and OLAP."""
        return self.raw.good().without(self.superseded)


async def audit(config: IngestionConfig, desired: Desired, requests: AsyncIterator[pb.AuditRequest]) -> pb.AuditResponse:
    """Answers an audit; the work is done in a thread with a loop of its own. Adopted topics, and those of other languages, are left out.

    Events may flow meanwhile: everything is bounded by Kafka's end offsets at the start. What followers have not reached yet is missing.
    Files are audited whole, hence only without an interval.

    Raises:
        ArterialError: DEPENDENCY_UNAVAILABLE, Kafka does not answer; INVALID_REQUEST, a topic was asked for that cannot be audited.
    """
    question = Question()
    async for request in requests:
        question.take(request)
    unknown = [name for name in question.topics if name not in desired.topics]
    if unknown:
        raise ArterialError(Reason.INVALID_REQUEST, f"{', '.join(unknown)} is not a declared topic")
    names = question.topics or sorted(desired.topics)
    audited = {desired.topics[name]: _message(desired, desired.topics[name]) for name in names}
    foreign = [topic.name for topic, message in audited.items() if message is None and topic.name in question.topics]
    if foreign:
        why = "its records are identified by declared expressions, which an audit that shares no code with the writers cannot repeat"
        raise ArterialError(Reason.INVALID_REQUEST, f"{', '.join(foreign)} cannot be audited: {why}")
    return await asyncio.to_thread(asyncio.run, _audit(config, audited, question))


def _message(desired: Desired, topic: Topic) -> Descriptor | None:
    """The message of a topic's records; None if they are of another language, or were not made for Arterial."""
    if topic.adoption is not None:
        return None
    if not topic.schema:
        return message_descriptor(topic.message)
    declared = desired.schemas.get(topic.schema)
    status = declared.status.schema if declared is not None else None
    return load_descriptor(status.file_descriptor_set, status.message) if status is not None and status.file_descriptor_set else None


async def _audit(config: IngestionConfig, audited: Mapping[Topic, Descriptor | None], question: Question) -> pb.AuditResponse:
    response = pb.AuditResponse(exact=True)
    # One topic at a time: that bounds the memory.
    for topic, message in audited.items():
        if message is None:
            continue
        stores = await _read(config, topic, message, question.bounds)
        summary = _compare(topic, question.ledger(topic.name), stores)
        response.topics.append(summary)
        files = [_file(config, topic, source, stores) for source in stores.raw.sources() if source.startswith("file:")]
        response.files.extend(files)
        response.exact &= not (summary.missing_count or summary.duplicated_count)
        response.exact &= summary.kafka == summary.raw + summary.dead_lettered + summary.superseded + summary.erased
        response.exact &= all(
            file.rows == file.raw + file.dead_lettered + file.superseded and not file.missing_count + file.duplicated_count
            for file in files
        )
    return response


async def _read(config: IngestionConfig, topic: Topic, message: Descriptor, bounds: Bounds) -> Stores:
    """Reads in the direction of the flow, so that what a store has is in the stores read before it."""
    kafka = await audit_readers.read_kafka(config.kafka, topic, message, bounds)
    raw = (await asyncio.to_thread(audit_readers.read_raw, config.lake, topic, bounds)).before(topic.name, kafka.ends)
    superseded = await asyncio.to_thread(audit_readers.superseded, config.lake, topic, raw.sources())
    curated = await asyncio.to_thread(audit_readers.read_curated, config.lake, topic, bounds, raw.good()) if topic.curated else None
    olap = (await audit_readers.read_olap(config.olap, topic, bounds)).before(topic.name, kafka.ends) if topic.live else None
    return Stores(kafka, raw, curated, olap, superseded)


def _compare(topic: Topic, acknowledged: pa.Array, stores: Stores) -> pb.TopicAudit:
    findings = Findings()
    good = stores.in_force()
    # What Kafka has lost by retention can be compared no more; it still must be in curated and OLAP.
    live = stores.raw.of(topic.name).since(stores.kafka.begins)
    findings.coordinates("raw", expected=stores.kafka.rows, actual=live)
    findings.coordinates("kafka", expected=live, actual=stores.kafka.rows)
    for source in stores.raw.sources():
        findings.doubled("raw", stores.raw.of(source))
    ledger = _without_dead(acknowledged, stores, live)
    if stores.olap is not None:
        _compare_olap(findings, good, stores.olap, stores.superseded)
        findings.ids("olap", expected=ledger, actual=stores.olap)
    if stores.curated is not None:
        findings.ids("curated", expected=good.ids, actual=stores.curated.rows)
        findings.ids("curated", expected=ledger, actual=stores.curated.rows)
        findings.doubled_ids("curated", stores.curated.rows)
        findings.superseded("curated", stores.curated.rows.of_any(stores.superseded))
    findings.ids("raw", expected=ledger, actual=stores.raw.good())
    if stores.curated is not None:
        findings.ids("raw", expected=stores.curated.within.before(topic.name, stores.kafka.ends).ids, actual=stores.raw.good())
    return pb.TopicAudit(
        topic=topic.name,
        acked_ids=len(pc.unique(acknowledged)),
        acked_records=len(acknowledged),
        kafka=len(stores.kafka.rows),
        raw=len(live.good()),
        dead_lettered=len(live) - len(live.good()),
        curated_events=len(stores.curated.within) if stores.curated is not None else 0,
        olap=len(stores.olap) if stores.olap is not None else 0,
        missing=islice(findings.missing.values(), MAX_NAMED),
        duplicated=islice(findings.duplicated.values(), MAX_NAMED),
        missing_count=len(findings.missing),
        duplicated_count=len(findings.duplicated),
    )


def _compare_olap(findings: Findings, good: Rows, olap: Rows, superseded: Sequence[str]) -> None:
    findings.superseded("olap", olap.of_any(superseded))
    olap = olap.without(superseded)
    for source in sorted({*good.sources(), *olap.sources()}):
        findings.coordinates("olap", expected=good.of(source), actual=olap.of(source))
        findings.coordinates("raw", expected=olap.of(source), actual=good.of(source))
        findings.doubled("olap", olap.of(source))


def _without_dead(acknowledged: pa.Array, stores: Stores, live: Rows) -> pa.Array:
    """The ledger without what was dead-lettered; Kafka tells the ids of dead rows that have one, such as misrouted records."""
    buried = live.where(live.dead)
    if not len(buried) or not len(acknowledged):
        return acknowledged
    ids = stores.kafka.rows.where(np.isin(stores.kafka.rows.coordinates, buried.coordinates)).ids
    # An id that was buried once and taken once (resent rightly) is expected all the same.
    ids = ids.filter(pc.invert(pc.is_in(ids, value_set=stores.raw.good().ids)))
    return acknowledged.filter(pc.invert(pc.is_in(acknowledged, value_set=ids)))


def _file(config: IngestionConfig, topic: Topic, source: str, stores: Stores) -> pb.FileAudit:
    """Rows of a backfilled file: offsets are 0 to rows - 1, each once."""
    rows = stores.raw.of(source)
    total = audit_readers.file_progress(config.lake, topic, config.cell.kafka_cluster, source)
    distinct = np.unique(rows.offsets)
    good = len(rows.good())
    superseded = good if source in stores.superseded else 0
    return pb.FileAudit(
        source=source,
        topic=topic.name,
        rows=total,
        raw=good - superseded,
        dead_lettered=len(rows) - good,
        superseded=superseded,
        missing_count=int(np.setdiff1d(np.arange(total), distinct).size),
        duplicated_count=len(rows) - len(distinct),
    )
