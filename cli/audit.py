"""`arterial audit`: is everything where it should be, once? Id by id, against the producer's own ledger."""

import argparse
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from google.protobuf import json_format

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from arterial.api.ingestion.v1 import ingestion_service_pb2_grpc
from arterial.channel import Channel
from cli.connect import show, table, to_service
from simulator.producer import Ledger

TIMEOUT_SECONDS = 300.0
# Bytes of ids in one request: a multiple of 24, below the contract's limit.
CHUNK_BYTES = 24 * 100_000


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    audit = commands.add_parser("audit", help="compare Kafka, raw, curated and OLAP record by record")
    audit.add_argument("--ledger", type=Path, help="folder of a producer's ledger (default DATA_DIR/ledger)")
    audit.set_defaults(run=run)


async def ask(channel: Channel, ledgers: Mapping[str, bytes], *, topics: Sequence[str] = (), end_us: int | None = None) -> pb.AuditResponse:
    """The audit of topics (all for none), up to a Kafka time (microseconds since 1970); files are audited only without such a bound."""

    async def requests() -> AsyncIterator[pb.AuditRequest]:
        first = pb.AuditRequest(topics=topics)
        if end_us is not None:
            first.interval.end_time.FromMicroseconds(end_us)
        yield first
        for topic, ids in ledgers.items():
            for start in range(0, len(ids), CHUNK_BYTES):
                yield pb.AuditRequest(ledger_topic=topic, acknowledged_ids=ids[start : start + CHUNK_BYTES])

    reply: pb.AuditResponse = await ingestion_service_pb2_grpc.IngestionServiceStub(channel).Audit(requests(), timeout=TIMEOUT_SECONDS)
    return reply


def verdict(reply: pb.AuditResponse) -> list[str]:
    """The answer for people."""
    rows = [["topic", "acked ids", "acked", "kafka", "raw", "dead", "curated", "olap", "missing", "doubled"]]
    rows += [
        [
            topic.topic,
            *(f"{value:,}" for value in (topic.acked_ids, topic.acked_records, topic.kafka, topic.raw, topic.dead_lettered)),
            *(f"{value:,}" for value in (topic.curated_events, topic.olap, topic.missing_count, topic.duplicated_count)),
        ]
        for topic in reply.topics
    ]
    lines = table(rows)
    for file in reply.files:
        lines.append(
            f"{file.source[:17]}… of {file.topic}: rows {file.rows:,} = raw {file.raw:,} + dead {file.dead_lettered:,} "
            f"+ superseded {file.superseded:,}; "
            f"missing {file.missing_count:,}, doubled {file.duplicated_count:,}"
        )
    for topic in reply.topics:
        for kind, found in (("missing", topic.missing), ("doubled", topic.duplicated)):
            lines += [
                f"  {kind} in {item.place}: {item.event_id.hex() or '?'} {item.source}/{item.partition}@{item.offset}"
                for item in found[:10]
            ]
    return [*lines, "exact: nothing lost, nothing doubled" if reply.exact else "NOT EXACT"]


async def run(arguments: argparse.Namespace) -> int:
    """Exit status 1 if anything is missing or doubled."""
    ledger = Ledger(arguments.ledger or arguments.data_dir / "ledger").read()
    async with to_service(arguments, "ingestion") as channel:
        reply = await ask(channel, ledger)
    show(arguments, json_format.MessageToDict(reply), verdict(reply))
    return 0 if reply.exact else 1
