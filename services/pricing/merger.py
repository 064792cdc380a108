"""The merger: partials in, multipliers out to Redis and Kafka, checkpoints every minute of the log's own time."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from aiokafka import AIOKafkaProducer, TopicPartition
from google.protobuf.message import DecodeError

from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis import kafka
from chassis.config import LakeConfig
from chassis.logs import logger
from chassis.process import Context
from chassis.streaming.checkpoint import Checkpoints
from chassis.telemetry import TRACEPARENT, context_from
from chassis.topics import Topic
from chassis.wire import FrameError, split
from services.pricing.outputs import late_records, surge_records
from services.pricing.partials import SCHEMA_ID
from services.pricing.state import BadPartial, Emission, SurgeState
from services.pricing.store import Head, SurgeStore, Value

DEAD_PARTIALS = "pricing_partials_dead_v1"
CHECKPOINT_SECONDS = 60
# What Redis or Kafka refuse is tried again: the log waits, nothing is skipped.
RETRY_SECONDS = 0.5
_log = logger(__name__)


class SurgeMerger:
    """The `Merger` of surge: one state per partition."""

    def __init__(
        self, topics: Mapping[str, Topic], checkpoints: LakeConfig, store: SurgeStore, producer: AIOKafkaProducer, *, context: Context
    ) -> None:
        self._partials = topics["pricing_partials_v1"]
        self._outputs = topics["pricing_outputs_v1"]
        self._late = topics["pricing_late_v1"]
        self._checkpoints = checkpoints
        self._store = store
        self._producer = producer
        self._context = context
        self._states: dict[int, SurgeState] = {}
        self._saved_seconds: dict[int, int] = {}
        meter = context.telemetry.meter
        self._freshness = meter.create_histogram("pricing.freshness", unit="ms", description="Oldest Kafka time taken in, to Redis write")

    async def restore(self, partition: int) -> int:
        """State and offset of the newest checkpoint; a new state and 0 without one."""
        loaded = await asyncio.to_thread(self._archive(partition).load)
        self._saved_seconds.pop(partition, None)
        if loaded is None:
            self._states[partition] = SurgeState()
            return 0
        offset, arrays = loaded
        self._states[partition] = SurgeState.from_arrays(arrays)
        return offset

    async def handle(self, partition: int, offset: int, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        """Takes one partial. A bad one is dead-lettered with its coordinates; everything else is tried until it is done."""
        state = self._states.setdefault(partition, SurgeState())
        parent = context_from(headers.get(TRACEPARENT))
        with self._context.telemetry.tracer.start_as_current_span("merge", context=parent):
            try:
                partial = _parse(value)
                emission = state.merge(partial)
            except (BadPartial, FrameError, DecodeError) as error:
                why = str(error)
                await self._until_done(lambda: self._bury(partition, offset, value, why))
                return
            await self._until_done(lambda: self._publish(partial, emission, state, offset))
        await self._checkpoint(partition, offset, partial, state)

    async def _publish(self, partial: PricingPartial, emission: Emission, state: SurgeState, offset: int) -> None:
        with self._context.telemetry.tracer.start_as_current_span("redis write"):
            await self._serve(partial, emission, offset)
        incarnation = self._partials.incarnation
        outputs = surge_records(partial, emission, state, incarnation, offset)
        late = late_records(partial, emission, incarnation, offset)
        for topic, records in ((self._outputs, outputs), (self._late, late)):
            if records:
                await kafka.send_all(self._producer, TopicPartition(topic.name, partial.partition), records)

    async def _serve(self, partial: PricingPartial, emission: Emission, offset: int) -> None:
        now_us = int(self._context.clock.now() * 1e6)
        head = Head(emission.watermark_us, now_us, emission.kafka_us, self._partials.incarnation, partial.partition, offset)
        values: dict[int, list[Value]] = defaultdict(list)
        columns = (emission.multiplier_milli, emission.demand_milli, emission.supply_milli)
        for (city, cell), price, demand, supply in zip(emission.cells.tolist(), *(column.tolist() for column in columns), strict=True):
            values[city].append(Value(cell, price, demand, supply, emission.tick_seconds, now_us, partial.partition, offset))
        gone: dict[int, list[int]] = defaultdict(list)
        for city, cell in emission.gone.tolist():
            gone[city].append(cell)
        for city in values.keys() | gone.keys():
            if await self._store.write(city, head, values[city], gone[city]) and partial.counts and emission.kafka_us:
                self._freshness.record((now_us - emission.kafka_us) / 1000)

    async def _bury(self, partition: int, offset: int, value: bytes | None, why: str) -> None:
        _log.error("bad partial", partition=partition, offset=offset, error=why)
        headers = [("source", f"{self._partials.name}#{self._partials.incarnation}/{partition}@{offset}".encode()), ("error", why.encode())]
        await kafka.send_all(self._producer, TopicPartition(DEAD_PARTIALS, partition), [(None, value or b"")], headers)

    async def _until_done(self, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await action()
            except Exception:
                if self._context.stopping.is_set():
                    raise
                _log.exception("output failed, trying again")
                await self._context.clock.sleep(RETRY_SECONDS)

    async def _checkpoint(self, partition: int, offset: int, partial: PricingPartial, state: SurgeState) -> None:
        now = partial.combined_at.seconds
        if now - self._saved_seconds.setdefault(partition, now) < CHECKPOINT_SECONDS:
            return
        self._saved_seconds[partition] = now
        arrays = {name: array.copy() for name, array in state.arrays().items()}
        await asyncio.to_thread(self._archive(partition).save, offset + 1, arrays)

    def _archive(self, partition: int) -> Checkpoints:
        return Checkpoints(self._checkpoints, self._partials.name, self._partials.incarnation, partition)


def _parse(value: bytes | None) -> PricingPartial:
    if value is None:
        raise FrameError("the value is null")
    schema_id, index, payload = split(value)
    if schema_id != SCHEMA_ID or index != (0,):
        raise FrameError(f"schema {schema_id} is not that of partials")
    return PricingPartial.FromString(payload)
