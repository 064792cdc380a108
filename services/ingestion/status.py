"""What became of events: progress of every table, lag behind Kafka, dead letters."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from aiokafka import TopicPartition

from chassis import kafka
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason
from chassis.lake import Table
from chassis.topics import Topic
from services.ingestion.config import IngestionConfig
from services.ingestion.raw import app_id, table_name


@dataclass(frozen=True)
class Progress:
    """Progress of one partition of a topic into raw, and of the raw table's followers."""

    topic: Topic
    partition: int
    raw_end: int
    raw_version: int
    newest: datetime | None


def topics_of(desired: Desired, name: str) -> list[Topic]:
    """The topic of that name, or all. Raises NOT_FOUND."""
    if name and name not in desired.topics:
        raise ArterialError(Reason.NOT_FOUND, f"topic {name} is not declared")
    return [desired.topics[name]] if name else [desired.topics[key] for key in sorted(desired.topics)]


async def progress(config: IngestionConfig, topics: Sequence[Topic]) -> list[Progress]:
    """Progress of all partitions of the topics, from the tables themselves."""
    return [row for rows in await asyncio.gather(*(asyncio.to_thread(_progress, config, topic) for topic in topics)) for row in rows]


def _progress(config: IngestionConfig, topic: Topic) -> list[Progress]:
    table = Table.open(config.lake, table_name(topic.name))
    if table is None:
        return [Progress(topic, partition, 0, -1, None) for partition in range(topic.partitions)]
    newest = _newest(table)
    return [
        Progress(
            topic, partition, table.progress(app_id(config.cell, topic.name, topic.incarnation, partition)) or 0, table.version, newest
        )
        for partition in range(topic.partitions)
    ]


def _newest(table: Table) -> datetime | None:
    """Largest Kafka time of the table, from the statistics of its files."""
    actions = pa.table(table.handle.get_add_actions(flatten=True))
    times = actions["max._kafka_time"] if "max._kafka_time" in actions.column_names and actions.num_rows else None
    return max((time for time in times.to_pylist() if time is not None), default=None) if times is not None else None


async def lag(config: IngestionConfig, topics: Sequence[Topic]) -> list[tuple[Progress, int]]:
    """Progress and Kafka's end offset of every partition that there is."""
    try:
        ends = await kafka.end_offsets(config.kafka, topics)
    except kafka.KafkaError as error:
        raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"Kafka does not answer: {error}") from error
    counts = Counter(partition.topic for partition in ends)
    there = [replace(topic, partitions=counts.get(topic.name, topic.partitions)) for topic in topics]
    return [(row, ends.get(TopicPartition(row.topic.name, row.partition), 0)) for row in await progress(config, there)]


def dead_letters(config: IngestionConfig, topics: Sequence[Topic], source: str) -> list[dict[str, Any]]:
    """Dead rows of the topics' raw tables, newest first; of one source, if it is named."""
    rows: list[dict[str, Any]] = []
    for topic in topics:
        table = Table.open(config.lake, table_name(topic.name))
        if table is None:
            continue
        condition = ds.field("dead") == True  # noqa: E712 - an expression, not a truth value
        if source:
            condition &= ds.field("_topic") == source
        columns = ["_topic", "_incarnation", "_partition", "_offset", "_kafka_time", "_key", "_value", "_headers", "_error"]
        rows += table.handle.to_pyarrow_dataset().to_table(columns=columns, filter=condition).to_pylist()
    return sorted(rows, key=lambda row: (row["_kafka_time"], row["_topic"], row["_partition"], row["_offset"]), reverse=True)


def age_seconds(newest: datetime | None, now: float) -> float:
    """Age of the newest row; -1 for none."""
    return -1.0 if newest is None else max(0.0, now - newest.astimezone(UTC).timestamp())
