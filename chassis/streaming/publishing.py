"""What becomes of a partial: values to the online store, then to Kafka with what came too late."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition

from chassis import kafka
from chassis.process import Context
from chassis.streaming.cells import CellEmission, CellOutput
from chassis.streaming.online import CellStore, Head
from chassis.topics import Topic

V = TypeVar("V")


class CellPublisher(Generic[V]):
    """Publishes what partials led to; the same again changes nothing."""

    def __init__(
        self, form: CellOutput[V], topics: Mapping[str, Topic], store: CellStore[V], producer: AIOKafkaProducer, context: Context
    ) -> None:
        self._form = form
        self._incarnation = topics[form.partials_topic].incarnation
        self._store = store
        self._producer = producer
        self._context = context
        self._freshness = context.telemetry.meter.create_histogram(
            f"{form.service}.freshness", unit="ms", description="Oldest Kafka time taken in, to Redis write"
        )

    async def __call__(self, partial: Any, emission: CellEmission, offset: int) -> None:
        """Serves first: readers wait for the online store, the archive can wait."""
        with self._context.telemetry.tracer.start_as_current_span("redis write"):
            await self._serve(partial, emission, offset)
        position = (self._incarnation, offset)
        outputs = self._form.records(partial, emission, position)
        late = self._form.late_records(partial, emission.taken, position)
        for topic, records in ((self._form.outputs_topic, outputs), (self._form.late_topic, late)):
            if records:
                await kafka.send_all(self._producer, TopicPartition(topic, partial.partition), records)

    async def _serve(self, partial: Any, emission: CellEmission, offset: int) -> None:
        now_us, taken = int(self._context.clock.now() * 1e6), emission.taken
        head = Head(taken.watermark_us, now_us, taken.kafka_us, self._incarnation, partial.partition, offset)
        ticks = np.full(len(emission.cells), emission.tick_seconds)
        written = await self._store.write_cells(head, emission.cells, np.column_stack([emission.values, ticks]), emission.gone)
        if written and partial.counts and taken.kafka_us:
            self._freshness.record((now_us - taken.kafka_us) / 1000)
