"""The combiner: partition p of a fixed list of topics becomes partials, each committed in one Kafka transaction with its source offsets."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from chassis import kafka
from chassis.config import KafkaConfig
from chassis.judge import Judged, judge
from chassis.logs import logger
from chassis.process import Context
from chassis.streaming.deduplication import Deduplication
from chassis.telemetry import TRACEPARENT, links_from, traceparent
from chassis.topics import Topic
from chassis.wire import Schemas

POLL_MS = 50
# Kafka aborts a transaction that takes longer: its owner is stuck, and readers wait behind it.
TRANSACTION_TIMEOUT_MS = 10_000
HEARTBEAT_SECONDS = 1.0
# An event dated further ahead of its Kafka time has a clock that cannot be trusted.
FUTURE_US = 300_000_000
_log = logger(__name__)


@dataclass
class SourceState:
    """What a combiner knows of one source, since the beginning and since its last partial."""

    topic: Topic
    offset: int
    repeats: Deduplication
    max_event_us: int | None = None
    min_kafka_us: int = 0
    last_record: float = field(default_factory=time.time)
    start: int = 0
    records: int = 0
    duplicates: int = 0
    future: int = 0
    undecodable: int = 0
    ignored: int = 0

    def begin(self) -> None:
        """Begins the next partial."""
        self.start = self.offset
        self.min_kafka_us = self.records = self.duplicates = self.future = self.undecodable = self.ignored = 0


class Features(Protocol):
    """What a service makes of the records: its measures and its partial."""

    def add(self, partition: int, source: SourceState, columns: pa.RecordBatch) -> int:
        """Adds events to the partial under way; returns how many mean nothing to these features."""

    def take(self, partition: int, sources: Sequence[SourceState], now: float) -> bytes:
        """The framed partial, and the beginning of the next one."""

    def reset(self, partition: int) -> None:
        """Drops what is under way of a partition."""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self) -> None:
        self.changed = False

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.changed = True

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.changed = True


@dataclass(frozen=True)
class CombinerSetup:
    """Whose combiner it is, its one fixed list of topics, and the topic of its partials."""

    service: str
    topics: Sequence[Topic]
    target: Topic
    schemas: Schemas


class Combiner:
    """One process of a service's combiners. A failure in any step ends it; the next owner begins at what was committed."""

    def __init__(self, setup: CombinerSetup, config: KafkaConfig, context: Context, features: Features) -> None:
        self._service = setup.service
        self._config = config
        self._context = context
        self._topics = {topic.name: topic for topic in setup.topics}
        self._target = setup.target
        self._schemas = setup.schemas
        self._features = features
        self._group = f"{setup.service}-combiner"
        self._listener = _Listener()
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._sources: dict[int, dict[str, SourceState]] = {}
        self._traces: dict[int, set[bytes]] = {}
        self._sent: dict[int, float] = {}
        self._consumer: AIOKafkaConsumer = kafka.consumer(
            config, group_id=self._group, partition_assignment_strategy=(RangePartitionAssignor,), session_timeout_ms=10_000
        )
        self.interval_seconds = 0.25

    async def run(self) -> None:
        """Combines until the process is stopped."""
        await self._consumer.start()
        self._consumer.subscribe(list(self._topics), listener=self._listener)
        due = time.monotonic()
        try:
            while not self._context.stopping.is_set():
                if self._listener.changed:
                    self._listener.changed = False
                    await self._take_over()
                await self._fetch()
                if time.monotonic() >= due:
                    due = time.monotonic() + self.interval_seconds
                    await self._commit_due()
        finally:
            await self._release(list(self._producers))
            await self._consumer.stop()

    async def _take_over(self) -> None:
        """Fences the former owner, then reads its committed offsets, rebuilds deduplication and seeks (design, section 4)."""
        assigned: dict[str, set[int]] = {name: set() for name in self._topics}
        for tp in self._consumer.assignment():
            assigned[tp.topic].add(tp.partition)
        numbers = next(iter(assigned.values()))
        if any(other != numbers for other in assigned.values()):
            raise RuntimeError(
                f"assignment differs between topics: {assigned}; all topics of {self._group} need the same number of partitions"
            )
        await self._release([partition for partition in self._producers if partition not in numbers])
        fresh = sorted(numbers - self._producers.keys())
        await asyncio.gather(*(self._fence(partition) for partition in fresh))
        for partition in fresh:
            self._sources[partition] = {}
            self._features.reset(partition)
            for topic in self._topics.values():
                await self._position(partition, topic)
        if fresh:
            await self._rebuild(fresh)
        if fresh:
            _log.info("combining", partitions=fresh)

    async def _fence(self, partition: int) -> None:
        producer = kafka.producer(
            self._config, transactional_id=f"{self._service}-combiner-{partition}", transaction_timeout_ms=TRANSACTION_TIMEOUT_MS
        )
        await producer.start()
        self._producers[partition] = producer

    async def _position(self, partition: int, topic: Topic) -> None:
        tp = TopicPartition(topic.name, partition)
        committed = await self._consumer.committed(tp)
        if committed is None:
            committed = (await self._consumer.beginning_offsets([tp]))[tp]
        self._consumer.seek(tp, committed)
        state = SourceState(topic, committed, Deduplication(topic.dedup_offsets))
        state.begin()
        self._sources[partition][topic.name] = state

    async def _rebuild(self, partitions: Sequence[int]) -> None:
        """Reads the reach before every committed offset again, for its keys only."""
        client = kafka.consumer(self._config)
        await client.start()
        try:
            open_sources: dict[TopicPartition, SourceState] = {}
            tps = {TopicPartition(name, partition): state for partition in partitions for name, state in self._sources[partition].items()}
            begins = await client.beginning_offsets(list(tps))
            for tp, state in tps.items():
                if begins[tp] < state.offset:
                    open_sources[tp] = state
            client.assign(list(open_sources))
            for tp, state in open_sources.items():
                client.seek(tp, max(begins[tp], state.offset - state.topic.dedup_offsets))
            while open_sources:
                for tp, records in (await client.getmany(timeout_ms=POLL_MS)).items():
                    if tp in open_sources:
                        self._remember(open_sources[tp], [record for record in records if record.offset < open_sources[tp].offset])
                for tp in list(open_sources):
                    if await client.position(tp) >= open_sources[tp].offset:
                        del open_sources[tp]
                        client.pause(tp)
        finally:
            await client.stop()

    def _remember(self, state: SourceState, records: list[ConsumerRecord]) -> None:
        if not records:
            return
        judged = self._judge(state.topic, records)
        offsets = np.fromiter((record.offset for record in records), np.int64, len(records))[judged.good]
        for key, offset in zip(_keys(judged.columns), offsets.tolist(), strict=True):
            state.repeats.is_repeat(key, offset)

    def _judge(self, topic: Topic, records: list[ConsumerRecord]) -> Judged:
        partitions = np.full(len(records), records[0].partition, np.int32)
        return judge(topic, self._schemas, [record.value for record in records], partitions)

    async def _fetch(self) -> None:
        try:
            fetched: Mapping[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=20_000)
        except NoOffsetForPartitionError:
            return  # looked for by the client before the position was set
        for tp, records in fetched.items():
            state = self._sources.get(tp.partition, {}).get(tp.topic)
            if state is None or self._listener.changed or not records or records[0].offset < state.offset:
                continue  # fetched before its position was known, or no longer ours
            self._take(tp.partition, state, records)

    def _take(self, partition: int, state: SourceState, records: list[ConsumerRecord]) -> None:
        judged = self._judge(state.topic, records)
        offsets = np.fromiter((record.offset for record in records), np.int64, len(records))
        kafka_us = np.fromiter((record.timestamp for record in records), np.int64, len(records)) * 1000
        state.records += len(records)
        state.undecodable += len(records) - len(judged.good)
        state.offset, state.last_record = records[-1].offset + 1, self._context.clock.now()
        state.min_kafka_us = min(state.min_kafka_us or (1 << 62), int(kafka_us.min()))
        repeats = np.fromiter(
            (
                state.repeats.is_repeat(key, offset)
                for key, offset in zip(_keys(judged.columns), offsets[judged.good].tolist(), strict=True)
            ),
            bool,
            len(judged.good),
        )
        state.repeats.forget_below(state.offset)
        event_us = judged.columns["event_time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
        future = ~repeats & (event_us > kafka_us[judged.good] + FUTURE_US)
        state.duplicates += int(repeats.sum())
        state.future += int(future.sum())
        keep = ~repeats & ~future
        if keep.any():
            state.max_event_us = max(int(event_us[keep].max()), state.max_event_us or -(1 << 62))
            columns = judged.columns if keep.all() else judged.columns.filter(pa.array(keep))
            state.ignored += self._features.add(partition, state, columns)
        if self._context.telemetry.enabled:
            found = self._traces.setdefault(partition, set())
            found.update(value for record in records for name, value in record.headers if name == TRACEPARENT)

    async def _commit_due(self) -> None:
        now = time.monotonic()
        due = [
            partition
            for partition, sources in self._sources.items()
            if any(state.offset > state.start for state in sources.values()) or now - self._sent.get(partition, 0.0) >= HEARTBEAT_SECONDS
        ]
        outcomes = await asyncio.gather(*(self._commit(partition) for partition in due), return_exceptions=True)
        for partition, outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, ProducerFenced):
                _log.warning("fenced by another combiner, dropping the partition's state", partition=partition)
                await self._release([partition])
                self._listener.changed = True
            elif isinstance(outcome, BaseException):
                raise outcome

    async def _commit(self, partition: int) -> None:
        """One transaction: the partial and the source offsets. It opens when all its bytes are ready."""
        states = list(self._sources[partition].values())
        links = links_from(self._traces.pop(partition, ()))
        with self._context.telemetry.tracer.start_as_current_span("combine", links=links) if links else nullcontext():
            value = self._features.take(partition, states, self._context.clock.now())
            offsets = {
                TopicPartition(state.topic.name, partition): OffsetAndMetadata(state.offset, str(state.topic.incarnation))
                for state in states
            }
            trace = traceparent()
            producer = self._producers[partition]
            async with producer.transaction():
                builder = producer.create_batch()
                builder.append(timestamp=None, key=None, value=value, headers=[(TRACEPARENT, trace.encode())] if trace else [])
                await (await producer.send_batch(builder, self._target.name, partition=partition))
                await producer.send_offsets_to_transaction(offsets, self._group)
        for state in states:
            state.begin()
        self._sent[partition] = time.monotonic()

    async def _release(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._sources.pop(partition, None)
            producer = self._producers.pop(partition, None)
            if producer is not None:
                try:
                    await producer.stop()
                except KafkaError as error:
                    _log.info("producer did not stop cleanly", partition=partition, error=str(error))


def _keys(columns: pa.RecordBatch) -> list[bytes]:
    """(event_id, event_time) of each event, as one key."""
    times = columns["event_time"].cast(pa.int64()).to_pylist()
    return [
        event_id + time_us.to_bytes(8, "big", signed=True) for event_id, time_us in zip(columns["event_id"].to_pylist(), times, strict=True)
    ]
