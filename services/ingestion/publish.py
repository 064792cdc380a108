"""Publish: frames of records into Kafka, batched per partition over all callers, acknowledged record by record."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from chassis.desired import DesiredFeed
from chassis.errors import ArterialError, Reason, Violation
from chassis.judge import Dead, judge, route
from chassis.telemetry import TRACEPARENT, traceparent
from chassis.topics import Topic, as_it_is
from chassis.wire import prefix

# How long a record may wait for others of its partition: batches are what makes Kafka fast.
LINGER_SECONDS = 0.005
# What one process of a cell knows as declared, another may learn within this.
SOON_SECONDS = 3.0
# Records of one batch: bounds the memory of a partition that Kafka does not take.
MAX_BATCH_RECORDS = 20_000


@dataclass(frozen=True)
class Acknowledged:
    """Partition and offset of each record of a frame, -1 for a rejected one."""

    partitions: list[int]
    offsets: list[int]
    rejected: list[Dead]


@dataclass
class _Batch:
    """A batch under way: its records' offsets are the base offset plus their place."""

    builder: object
    count: int = 0
    base: "asyncio.Future[int]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Publisher:
    """Collects records per partition and sends them in batches; one for all streams of a process."""

    def __init__(self, producer: AIOKafkaProducer, feed: DesiredFeed) -> None:
        self._producer = producer
        self._feed = feed
        self._open: dict[tuple[str, int], _Batch] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def publish(self, topic_name: str, records: Sequence[bytes], schema_id: int) -> Acknowledged:
        """Publishes a frame; returns when all replicas have its records.

        Raises:
            ArterialError: INVALID_REQUEST for an unknown topic or schema, REFUSED if the partition of a record does not exist,
                DEPENDENCY_UNAVAILABLE if Kafka does not take it.
        """
        topic = self._feed.current.topics.get(topic_name) or await self._declared_soon(topic_name)
        if topic is None:
            raise _invalid("topic", f"{topic_name} is not a declared topic")
        schema_id = schema_id or self._feed.schemas.id_of(topic) or 0
        if not await self._feed.find_schema(schema_id):
            raise _invalid("schema_id", f"schema {schema_id} is not known")
        head = prefix(schema_id)
        values = [head + record for record in records]
        judged = judge(topic, self._feed.schemas, values, None)
        partitions = np.full(len(values), -1, np.int32)
        partitions[judged.good] = await self._routes(topic, judged.columns)
        keys = (
            [None] * len(values) if topic.key_is_partition else _keys(judged.columns[topic.key_field].to_pylist(), judged.good, len(values))
        )
        placed = self._place(topic, values, keys, partitions.tolist())
        offsets = [-1] * len(values)
        try:
            for batch, places in placed:
                base = await asyncio.shield(batch.base)
                for index, place in places:
                    offsets[index] = base + place
        except KafkaError as error:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"Kafka did not take the frame: {error}") from error
        return Acknowledged(partitions.tolist(), offsets, judged.dead)

    async def _declared_soon(self, name: str) -> Topic | None:
        """A topic that was declared a moment ago, which other processes of the cell may know already."""
        self._feed.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON_SECONDS):
                while name not in self._feed.current.topics:
                    await self._feed.changed()
        return self._feed.current.topics.get(name)

    async def _routes(self, topic: Topic, columns: pa.RecordBatch) -> NDArray[np.int32]:
        """Partitions of records, of those that there are."""
        try:
            there = len(await self._producer.partitions_for(topic.name))
        except KafkaError as error:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"Kafka does not know {topic.name}: {error!r}") from error
        routes = route(as_it_is(topic, there), columns)
        if len(routes) and routes.max() >= there:
            why = f"{topic.name} has {there} partitions in Kafka, {topic.partitions} are declared: partition {routes.max()} does not exist"
            raise ArterialError(Reason.REFUSED, why)
        return routes

    def _place(
        self, topic: Topic, values: Sequence[bytes], keys: Sequence[bytes | None], partitions: Sequence[int]
    ) -> list[tuple[_Batch, list[tuple[int, int]]]]:
        """Puts records into open batches; for each batch, the (index in the frame, place in the batch) of its records."""
        trace = traceparent()
        headers = [(TRACEPARENT, trace.encode())] if trace else []
        placed: dict[int, tuple[_Batch, list[tuple[int, int]]]] = {}
        for index, partition in enumerate(partitions):
            if partition < 0:
                continue
            batch = self._append((topic.name, partition), keys[index], values[index], headers)
            placed.setdefault(id(batch), (batch, []))[1].append((index, batch.count - 1))
        if self._flushing is None and self._open:
            self._flushing = asyncio.create_task(self._flush_soon())
        return list(placed.values())

    def _append(self, target: tuple[str, int], key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]) -> _Batch:
        for _ in range(2):
            batch = self._open.get(target)
            if batch is None:
                batch = self._open[target] = _Batch(self._producer.create_batch())
            if batch.count < MAX_BATCH_RECORDS and batch.builder.append(timestamp=None, key=key, value=value, headers=headers) is not None:  # type: ignore[attr-defined]
                batch.count += 1
                return batch
            self._send(target)
        raise _invalid("records", f"a record of {len(value)} bytes is larger than a batch may be")

    async def _flush_soon(self) -> None:
        await asyncio.sleep(LINGER_SECONDS)
        self._flushing = None
        for target in list(self._open):
            self._send(target)

    def _send(self, target: tuple[str, int]) -> None:
        batch = self._open.pop(target)
        task = asyncio.create_task(self._deliver(target, batch))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, target: tuple[str, int], batch: _Batch) -> None:
        try:
            delivered = await self._producer.send_batch(batch.builder, target[0], partition=target[1])
            batch.base.set_result((await delivered).offset)
        except Exception as error:
            batch.base.set_exception(error)
            batch.base.exception()  # callers that gave up do not retrieve it


def _keys(found: Iterable[object], good: "np.ndarray[tuple[int], np.dtype[np.int64]]", count: int) -> list[bytes | None]:
    keys: list[bytes | None] = [None] * count
    for index, key in zip(good.tolist(), found, strict=True):
        keys[index] = str(key).encode()
    return keys


def _invalid(name: str, why: str) -> ArterialError:
    return ArterialError(Reason.INVALID_REQUEST, why, violations=[Violation(name, why)])
