"""Role `features` of a service: computes the declared features that name it, and follows their declarations without a restart.

Nothing is kept but the topic itself: whoever gets a partition reads again what its windows reach back to, and goes on. The same log
gives the same values, whoever reads it.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import NoOffsetForPartitionError
from redis.exceptions import RedisError

from chassis import kafka, kv
from chassis.adoption import columns_of
from chassis.config import KafkaConfig, StreamingConfig
from chassis.desired import Desired, DesiredFeed, follow_desired
from chassis.expressions import ExpressionError
from chassis.features.lineage import feature_job, job_name
from chassis.features.store import FeatureStore, Position
from chassis.features.windows import SECOND_US, Feature, FeatureWindows
from chassis.judge import Judged, judge
from chassis.lineage.emitter import Lineage, emitting
from chassis.logs import logger
from chassis.process import Context
from chassis.reporting import Standing
from chassis.streaming.deduplication import Deduplication
from chassis.topics import Topic, as_it_is

POLL_MS = 100
TICK_SECONDS = 1.0
# Without records for so long, time goes on by the wall clock.
IDLE_SECONDS = 10.0
# A topic that cannot be read is tried again: a broker may come back.
RETRY_SECONDS = 15.0
# An event dated further ahead of its Kafka time has a clock that cannot be trusted.
FUTURE_US = 300 * SECOND_US
# What is read again besides the windows: events that came late, and what repeats them.
SPARE_US = 60 * SECOND_US
_log = logger(__name__)


async def features(config: StreamingConfig, context: Context, service: str) -> None:
    """Runs until the process is stopped."""
    redis = kv.connect(config.kv)
    try:
        async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
            worker = FeatureWorker(Setup(service, config.kafka, FeatureStore(redis)), context, feed, lineage)
            await worker.run()
    finally:
        await redis.aclose()


class _Partition:
    """State of a partition: the windows of every feature of its topic, and which events it has seen; told once it has read up to `end`."""

    def __init__(self, topic: Topic, declared: Sequence[Feature], offset: int, end: int) -> None:
        self.topic = topic
        self.windows = [(feature, FeatureWindows(feature)) for feature in declared]
        self.misfits: dict[str, str] = {}
        self.offset = offset
        self.end = end
        self.last_record = time.monotonic()
        self._repeats = Deduplication(topic.dedup_offsets)

    def add(self, records: Sequence[ConsumerRecord], judged: Judged) -> dict[str, int]:
        """Takes records in; returns how many were repeats, from the future or late. A feature that they do not fit has a misfit."""
        offsets = np.fromiter((records[index].offset for index in judged.good), np.int64, len(judged.good))
        kafka_us = np.fromiter((records[index].timestamp * 1000 for index in judged.good), np.int64, len(judged.good))
        ids = judged.columns["event_id"].to_pylist()
        times = np.asarray(judged.columns["event_time"].cast("int64"), np.int64)
        order = np.argsort(offsets, kind="stable")
        keys = [ids[index] + int(times[index]).to_bytes(8, "big", signed=True) for index in order]
        fresh = np.array([not self._repeats.is_repeat(key, int(offsets[index])) for key, index in zip(keys, order, strict=True)], bool)
        present = times[order] <= kafka_us[order] + FUTURE_US
        events = judged.columns.take(order[fresh & present])
        late = 0
        for feature, windows in self.windows:
            try:
                late += windows.add(events)
                self.misfits.pop(feature.name, None)
            except ExpressionError as error:
                self.misfits[feature.name] = str(error)
        self.offset, self.last_record = records[-1].offset + 1, time.monotonic()
        self._repeats.forget_below(self.offset)
        return {"repeat": int((~fresh).sum()), "future": int((fresh & ~present).sum()), "late": late}


# A topic, and its features.
Declared = tuple[Topic, tuple[Feature, ...]]


@dataclass(frozen=True)
class Setup:
    """Whose features are computed, where their events are, and where their values go."""

    service: str
    kafka: KafkaConfig
    store: FeatureStore


class FeatureWorker:
    """One process; partitions are shared out by the consumer group."""

    def __init__(self, setup: Setup, context: Context, feed: DesiredFeed, lineage: Lineage) -> None:
        self._context = context
        self._feed = feed
        self._kafka = setup.kafka
        self._store = setup.store
        self._lineage = lineage
        self._service = setup.service
        self._assignment = kafka.Assignment()
        self._declared: dict[str, Declared] = {}
        # Why the topic of a feature cannot be read as declared, and when that is tried again.
        self._failed: dict[str, str] = {}
        self._retry_at = 0.0
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._consumer: AIOKafkaConsumer = kafka.consumer(setup.kafka, group_id=f"{setup.service}-features")
        self._skipped = context.telemetry.meter.create_counter(
            "features.skipped", description="Events that count for no feature, by reason"
        )

    async def run(self) -> None:
        """Runs until the process is stopped."""
        await self._consumer.start()
        desired: Desired | None = None
        told = 0.0
        try:
            while not self._context.stopping.is_set():
                if desired is not self._feed.current or (self._failed and time.monotonic() > self._retry_at):
                    desired = self._feed.current
                    await self._declare(desired)
                await self._take_over()
                await self._fetch()
                self._say(desired)
                if time.monotonic() - told >= TICK_SECONDS:
                    told = time.monotonic()
                    await self._tell()
        finally:
            await self._consumer.stop()

    async def _declare(self, desired: Desired) -> None:
        """Subscribes to the topics of the features; those whose features changed are read again."""
        by_topic: dict[str, list[Feature]] = defaultdict(list)
        for name, spec in sorted(desired.features.items()):
            if spec.service == self._service and spec.topic in desired.topics:
                by_topic[spec.topic].append(Feature(name, spec))
        wanted = await self._readable({name: (desired.topics[name], tuple(declared)) for name, declared in by_topic.items()})
        changed = {name for name in wanted if self._declared.get(name) != wanted[name]}
        if wanted.keys() != self._declared.keys():
            if wanted:
                self._consumer.subscribe(list(wanted), listener=self._assignment)
            else:
                self._consumer.unsubscribe()
                self._partitions.clear()
        self._end(desired, {feature.name for declared in by_topic.values() for feature in declared})
        self._declared = wanted
        for partition in {partition for partition in self._consumer.assignment() if partition.topic in changed}:
            self._partitions.pop(partition, None)
            self._assignment.fresh.add(partition)
        for name in sorted(changed):
            topic, declared = wanted[name]
            for feature in declared:
                columns = columns_of(topic, self._feed.schemas)
                self._lineage.emit_from(job_name(self._service, feature.name), partial(feature_job, self._service, feature, columns))

    async def _readable(self, wanted: dict[str, Declared]) -> dict[str, Declared]:
        """Without the topics that cannot be read as declared: one that was read goes on as it was."""
        new = [topic for name, (topic, _) in wanted.items() if name not in self._declared]
        refused = await kafka.try_topics(self._kafka, new) if new else {}
        self._failed, self._retry_at = {}, time.monotonic() + RETRY_SECONDS
        found = {}
        for name, (topic, declared) in wanted.items():
            try:
                if name in refused:
                    raise refused[name]
                columns_of(topic, self._feed.schemas)
                found[name] = topic, declared
            except (kafka.KafkaError, LookupError) as error:
                _log.warning("topic of features cannot be read", topic=name, error=str(error))
                self._failed |= {feature.name: f"{name}: {error}" for feature in declared}
                if name in self._declared:
                    found[name] = self._declared[name]
        return found

    def _say(self, desired: Desired) -> None:
        for name, why in self._failed.items():
            self._feed.say(desired, "Feature", name, Standing(False, "TopicFailed", why))
        misfits = {name: why for state in self._partitions.values() for name, why in state.misfits.items()}
        for _, declared in self._declared.values():
            for name in (feature.name for feature in declared if feature.name not in self._failed):
                holds = Standing(False, "Misfit", misfits[name]) if name in misfits else Standing(True, "Computing")
                self._feed.say(desired, "Feature", name, holds)

    def _end(self, desired: Desired, staying: Collection[str]) -> None:
        for _, declared in self._declared.values():
            for feature in declared:
                if feature.name not in staying:
                    # Another service may compute it now.
                    self._feed.say(desired, "Feature", feature.name, None)
                    self._lineage.end(job_name(self._service, feature.name))

    async def _take_over(self) -> None:
        """Begins fresh partitions where their windows do; what a rebalance took and gave back goes on where it was."""
        revoked, fresh = self._assignment.take()
        fresh = {partition for partition in fresh if partition.topic in self._declared and partition in self._consumer.assignment()}
        kept = {partition for partition in revoked & fresh if partition in self._partitions}
        for partition in revoked - kept:
            self._partitions.pop(partition, None)
        for partition in kept:
            self._consumer.seek(partition, self._partitions[partition].offset)
        fresh -= kept
        if not fresh:
            return
        now_us = int(self._context.clock.now() * SECOND_US)
        begins = {partition: (now_us - self._reach_us(partition.topic)) // 1000 for partition in fresh}
        found = await self._consumer.offsets_for_times(begins)
        ends = await self._consumer.end_offsets(list(fresh))
        for partition in sorted(fresh):
            offset = found[partition].offset if found.get(partition) is not None else ends[partition]
            if partition in self._consumer.assignment():
                self._partitions[partition] = _Partition(*self._declared[partition.topic], offset, ends[partition])
                self._consumer.seek(partition, offset)

    def _reach_us(self, topic: str) -> int:
        return max(feature.reach_us + feature.spec.grace_seconds * SECOND_US for feature in self._declared[topic][1]) + SPARE_US

    async def _fetch(self) -> None:
        if not self._declared:
            await asyncio.sleep(POLL_MS / 1000)
            return
        try:
            fetched: Mapping[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=POLL_MS)
        except NoOffsetForPartitionError:
            # The client looks for a committed offset as soon as a partition is assigned; ours is sought next.
            return
        for partition, records in fetched.items():
            state = self._partitions.get(partition)
            if state is not None and partition not in self._assignment.fresh and records and records[0].offset >= state.offset:
                await self._add(partition, state, records)

    async def _add(self, partition: TopicPartition, state: _Partition, records: Sequence[ConsumerRecord]) -> None:
        await self._feed.find_schemas(state.topic, (record.value for record in records))
        topic = as_it_is(state.topic, len(self._consumer.partitions_for_topic(partition.topic) or ()))
        judged = await asyncio.to_thread(_judged, topic, self._feed, records)
        if judged.waiting:  # the schema may come yet: what stands before it is taken, and the rest asked for again
            if partition not in self._consumer.assignment():
                return
            records = records[: min(judged.waiting)]
            self._consumer.seek(partition, state.offset if not records else records[-1].offset + 1)
            if not records:
                return
            judged = await asyncio.to_thread(_judged, topic, self._feed, records)
        skipped = await asyncio.to_thread(state.add, records, judged)
        for reason, count in (skipped | {"undecodable": len(judged.dead)}).items():
            if count:
                self._skipped.add(count, {"topic": state.topic.name, "reason": reason})

    async def _tell(self) -> None:
        now = time.monotonic()
        idle_us = int((self._context.clock.now() - IDLE_SECONDS) * SECOND_US)
        for partition, state in self._partitions.items():
            if not await self._caught_up(partition, state):
                continue
            position = Position(state.topic.incarnation, partition.partition, state.offset)
            for feature, windows in state.windows:
                if now - state.last_record > IDLE_SECONDS:
                    windows.advance(idle_us)
                changed = await asyncio.to_thread(windows.changes)
                try:
                    await self._store.write(feature, changed, windows.as_of_us, position)
                except (RedisError, OSError) as error:
                    _log.warning("the online store does not answer, trying again", error=repr(error))
                    windows.untold()

    async def _caught_up(self, partition: TopicPartition, state: _Partition) -> bool:
        """False while it reads again what was there when it took over: values of it are of windows that are not whole, and the store, which
        has those of later positions, refuses them."""
        if state.end and partition in self._consumer.assignment() and await self._consumer.position(partition) >= state.end:
            state.end = 0
        return not state.end


def _judged(topic: Topic, feed: DesiredFeed, records: Sequence[ConsumerRecord]) -> Judged:
    partitions = np.fromiter((record.partition for record in records), np.int32, len(records))
    return judge(topic, feed.schemas, [record.value for record in records], partitions)
