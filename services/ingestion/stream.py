"""Role `stream`: Kafka to the raw zone, exactly once. Progress lives in the tables; the consumer group only shares the partitions out."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import NoOffsetForPartitionError

from arterial.api.controlplane.v1 import specs_pb2
from chassis import kafka
from chassis.adoption import columns_of
from chassis.desired import Desired, DesiredFeed, follow_desired
from chassis.lake import Step, Superseded
from chassis.lineage import Lineage, emitting
from chassis.logs import logger
from chassis.process import Context
from chassis.telemetry import TRACEPARENT, links_from
from chassis.topics import Topic
from services.ingestion.config import IngestionConfig
from services.ingestion.continuity import Continuity
from services.ingestion.producers import Producers
from services.ingestion.raw import RawTable
from services.ingestion.rows import Records, raw_job
from services.ingestion.standing import say_raw

GROUP = "ingestion-raw"
# One fetch's worth of records at most, so that signals and rebalances are heard between fetches.
MAX_POLL_RECORDS = 50_000
POLL_MS = 100
# A table that could not be opened is tried again: a store may come back.
RETRY_SECONDS = 15.0
DEFAULT_PIPELINE = specs_pb2.PipelineSpec(interval_ms=1000, max_batch_rows=250_000)
_log = logger(__name__)


async def stream(config: IngestionConfig, context: Context) -> None:
    """Runs until the process is stopped."""
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        await RawStream(config, context, feed, lineage).run()


class RawStream:
    """One worker: fetches, buffers, commits a topic when its interval is over or its buffer is full."""

    def __init__(self, config: IngestionConfig, context: Context, feed: DesiredFeed, lineage: Lineage) -> None:
        self._config = config
        self._lineage = lineage
        self._producers = Producers(lineage)
        self._context = context
        self._feed = feed
        self._assignment = kafka.Assignment()
        self._tables: dict[str, RawTable] = {}
        self._buffers: dict[str, dict[TopicPartition, list[ConsumerRecord]]] = defaultdict(dict)
        self._since: dict[str, float] = {}
        # Why a topic cannot be read into its table as declared, and when that is tried again.
        self._failed: dict[str, str] = {}
        self._retry_at = 0.0
        # Why the last commit of a topic failed: it is no better for being tried again.
        self._untaken: dict[str, str] = {}
        # Per partition: progress in the table, and the offset up to which records were taken into a buffer.
        self._progress: dict[TopicPartition, int | None] = {}
        self._taken: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer = kafka.consumer(
            config.kafka, group_id=GROUP, max_poll_interval_ms=600_000, session_timeout_ms=10_000
        )
        self._continuity = Continuity(config.kafka)
        self._rows = context.telemetry.meter.create_counter("ingestion.raw.rows", description="Rows committed to the raw zone")

    async def run(self) -> None:
        """Runs until the process is stopped; what is buffered then is read again by the next worker."""
        await self._consumer.start()
        desired: Desired | None = None
        try:
            while not self._context.stopping.is_set():
                if desired is not self._feed.current or (self._failed and time.monotonic() > self._retry_at):
                    desired = self._feed.current
                    await self._subscribe(desired)
                await self._take_over()
                positioned = Counter(partition.topic for partition in self._progress) if self._assignment.settled else None
                say_raw(self._feed, desired, positioned, self._untaken | self._failed, self._differing())
                await self._fetch()
                for name in self._due():
                    try:
                        await self._commit(name)
                        self._untaken.pop(name, None)
                    except Exception as error:
                        self._park(name, error)
                        self._untaken[name] = self._failed[name]
        finally:
            await self._consumer.stop()

    async def _subscribe(self, desired: Desired) -> None:
        topics = {name: topic for name, topic in desired.topics.items() if desired.pipeline(specs_pb2.PIPELINE_ROLE_RAW, name) is not None}
        for name in self._tables.keys() - topics.keys():
            self._leave(name)
        refused = await kafka.try_topics(self._config.kafka, topics.values())
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._failed = {name: f"Kafka: {error}" for name, error in refused.items()}
        for name, topic in topics.items():
            known = self._tables.get(name)
            if name not in refused and (known is None or known.topic != topic):
                await self._open(name, topic)
                for partition in {partition for partition in self._consumer.assignment() if partition.topic == name}:
                    self._forget(partition)
                    self._assignment.fresh.add(partition)
        topics = {name: topic for name, topic in topics.items() if name in self._tables}
        if topics.keys() != (self._consumer.subscription() or set()):
            if topics:
                self._consumer.subscribe(list(topics), listener=self._assignment)
            else:
                self._consumer.unsubscribe()
        for partition in self._consumer.assignment():
            if partition in self._taken:
                self._pause_or_resume(partition)
            elif partition.topic in topics:
                self._assignment.fresh.add(partition)

    async def _open(self, name: str, topic: Topic) -> None:
        """Opens a topic's table. One that cannot be opened keeps none of the others from being read; it is tried again."""
        try:
            self._tables[name] = await asyncio.to_thread(RawTable, self._config.cell, self._config.lake, topic, self._feed.schemas)
            self._untaken.pop(name, None)
            self._lineage.emit(raw_job(f"kafka/{name}", name, columns_of(topic, self._feed.schemas)))
        except Exception as error:
            _log.exception("table cannot be opened", topic=name)
            self._failed[name] = f"{type(error).__name__}: {error}"

    def _leave(self, name: str) -> None:
        """Forgets a topic that is declared no longer: declared again, its table may be another one."""
        del self._tables[name]
        self._lineage.end(f"ingestion.raw.{name}")
        self._since.pop(name, None)
        self._untaken.pop(name, None)
        for partition in [partition for partition in self._taken if partition.topic == name]:
            self._forget(partition)

    def _pipeline(self, topic: str) -> specs_pb2.PipelineSpec:
        return self._feed.current.pipeline(specs_pb2.PIPELINE_ROLE_RAW, topic) or DEFAULT_PIPELINE

    def _pause_or_resume(self, partition: TopicPartition) -> None:
        (self._consumer.pause if self._pipeline(partition.topic).paused else self._consumer.resume)(partition)

    def _partitions(self, topic: str) -> int:
        """How many partitions Kafka has of a topic, as the client knows; 0 if it does not."""
        return len(self._consumer.partitions_for_topic(topic) or ())

    def _differing(self) -> Mapping[str, int]:
        """Partitions that there are, of topics of which others are declared."""
        counts = {name: self._partitions(name) for name in self._tables}
        return {name: count for name, count in counts.items() if count and count != self._tables[name].topic.partitions}

    async def _take_over(self) -> None:
        """Positions fresh partitions at the tables' progress, after their logs were found to be the ones that the tables know.

        What a rebalance took and gave back, as it does whenever the topics change, goes on where it was: had somebody else written
        meanwhile, the next commit would find out.
        """
        revoked, fresh = self._assignment.take()
        kept = {partition for partition in revoked & fresh if partition in self._taken}
        for partition in revoked - kept:
            self._forget(partition)
        for partition in kept & self._consumer.assignment():
            self._consumer.seek(partition, self._taken[partition])
            self._pause_or_resume(partition)
        fresh = {partition for partition in fresh - kept if partition.topic in self._tables}
        by_topic: dict[str, list[TopicPartition]] = defaultdict(list)
        for partition in sorted(fresh):
            by_topic[partition.topic].append(partition)
        for name, partitions in by_topic.items():
            try:
                await self._position(self._tables[name], partitions)
            except Exception as error:
                self._park(name, error)

    def _park(self, name: str, error: Exception) -> None:
        """Reads nothing of a topic until that is tried again; the others go on."""
        _log.error("topic cannot be read into its table", topic=name, exc_info=error)
        self._failed[name], self._retry_at = f"{type(error).__name__}: {error}", time.monotonic() + RETRY_SECONDS
        for partition in [partition for partition in self._consumer.assignment() if partition.topic == name]:
            self._forget(partition)
            # Anywhere: while it is without a position, fetches of all fail.
            self._consumer.seek(partition, 0)
            self._consumer.pause(partition)

    async def _position(self, table: RawTable, partitions: list[TopicPartition]) -> None:
        await asyncio.to_thread(table.table.refresh)
        progress = {p.partition: table.progress(p.topic, table.topic.incarnation, p.partition) for p in partitions}
        starts = await self._continuity.starts(table, progress)
        for partition in partitions:
            self._forget(partition)
            if partition not in self._consumer.assignment():
                continue
            self._progress[partition] = progress[partition.partition]
            self._taken[partition] = starts[partition.partition]
            self._consumer.seek(partition, starts[partition.partition])
            self._pause_or_resume(partition)

    def _forget(self, partition: TopicPartition) -> None:
        self._buffers[partition.topic].pop(partition, None)
        self._progress.pop(partition, None)
        self._taken.pop(partition, None)

    async def _fetch(self) -> None:
        if not self._consumer.subscription():
            # The client would wait for a subscription, however long.
            await asyncio.sleep(POLL_MS / 1000)
            return
        try:
            fetched: Mapping[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(
                timeout_ms=POLL_MS, max_records=MAX_POLL_RECORDS
            )
        except NoOffsetForPartitionError:
            # The client looks for a committed offset as soon as a partition is assigned; ours are in the tables, and sought next.
            return
        for partition, records in fetched.items():
            expected = self._taken.get(partition)
            if expected is None or partition in self._assignment.fresh or not records:
                continue  # fetched before its position was known
            if records[0].offset < expected:
                continue
            self._taken[partition] = records[-1].offset + 1
            self._buffers[partition.topic].setdefault(partition, []).extend(records)
            self._since.setdefault(partition.topic, time.monotonic())

    def _due(self) -> list[str]:
        now = time.monotonic()
        due = []
        for name, buffer in self._buffers.items():
            rows = sum(len(records) for records in buffer.values())
            pipeline = self._pipeline(name)
            waited = (now - self._since.get(name, now)) * 1000
            if rows and (rows >= pipeline.max_batch_rows or waited >= pipeline.interval_ms):
                due.append(name)
        return due

    async def _commit(self, name: str) -> None:
        table, buffer = self._tables[name], self._buffers.pop(name)
        self._since.pop(name, None)
        await self._feed.find_schemas(table.topic, (record.value for records in buffer.values() for record in records))
        links = links_from(_traceparents(buffer)) if self._context.telemetry.enabled else []
        with self._context.telemetry.tracer.start_as_current_span("lake commit", links=links) as span:
            span.set_attribute("arterial.table", table.table.name)
            try:
                committed = await asyncio.to_thread(self._write, table, buffer)
            except Superseded as error:
                _log.warning("superseded, beginning again at the table's progress", topic=name, error=str(error))
                await self._position(table, sorted(buffer))
                return
        self._rows.add(sum(len(records) for records in buffer.values()), {"topic": name})
        for records in buffer.values():
            self._producers.heard(name, records[-1].headers)  # a sample: whoever writes much is met soon
        for partition, end in committed.items():
            self._progress[partition] = end
            if end < self._taken.get(partition, end) and partition in self._consumer.assignment():  # the rest waits for its schema
                self._taken[partition] = end
                self._consumer.seek(partition, end)

    def _write(self, table: RawTable, buffer: Mapping[TopicPartition, list[ConsumerRecord]]) -> dict[TopicPartition, int]:
        """Judges and appends (in a thread); returns the new progress of each partition."""
        for _ in range(2):
            rows, waiting = table.rows_of(_records(table.topic, buffer), partitions=self._partitions(table.topic.name))
            if not waiting:
                break
            buffer = _until(buffer, waiting)
        ends = {partition: records[-1].offset + 1 for partition, records in buffer.items() if records}
        if ends:
            steps = {partition.partition: Step(self._progress.get(partition), end) for partition, end in ends.items()}
            table.append(rows, table.topic.name, table.topic.incarnation, steps)
        return ends


def _records(topic: Topic, buffer: Mapping[TopicPartition, list[ConsumerRecord]]) -> Records:
    rows = [record for records in buffer.values() for record in records]
    count = len(rows)
    return Records(
        source=topic.name,
        incarnation=topic.incarnation,
        partitions=np.fromiter((record.partition for record in rows), np.int32, count),
        offsets=np.fromiter((record.offset for record in rows), np.int64, count),
        times_us=np.fromiter((record.timestamp for record in rows), np.int64, count) * 1000,
        keys=[record.key for record in rows],
        values=[record.value for record in rows],
        headers=[record.headers for record in rows],
    )


def _until(buffer: Mapping[TopicPartition, list[ConsumerRecord]], waiting: list[int]) -> dict[TopicPartition, list[ConsumerRecord]]:
    """What comes, in each partition, before its first record that must wait."""
    stopped, index = set(waiting), 0
    kept: dict[TopicPartition, list[ConsumerRecord]] = {}
    for partition, records in buffer.items():
        first = next((place for place in range(len(records)) if index + place in stopped), len(records))
        kept[partition] = records[:first]
        index += len(records)
    return kept


def _traceparents(buffer: Mapping[TopicPartition, list[ConsumerRecord]]) -> Iterable[bytes]:
    return (value for records in buffer.values() for record in records for name, value in record.headers if name == TRACEPARENT)
