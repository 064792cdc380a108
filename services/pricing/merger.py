"""What becomes of a partial: multipliers to Redis, then to Kafka with what came too late."""

from collections.abc import Mapping

from aiokafka import AIOKafkaProducer, TopicPartition

from arterial.api.pricing.v1.late_bucket_pb2 import LateBucket
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis import kafka
from chassis.process import Context
from chassis.streaming.late import late_records
from chassis.streaming.online import Head
from chassis.topics import Topic
from services.pricing.outputs import PRODUCER, VERSION, surge_records
from services.pricing.state import Emission
from services.pricing.store import SurgeStore, Value


class SurgePublisher:
    """Publishes what partials led to."""

    def __init__(self, topics: Mapping[str, Topic], store: SurgeStore, producer: AIOKafkaProducer, context: Context) -> None:
        self._incarnation = topics["pricing_partials_v1"].incarnation
        self._outputs = topics["pricing_outputs_v1"]
        self._late = topics["pricing_late_v1"]
        self._store = store
        self._producer = producer
        self._context = context
        meter = context.telemetry.meter
        self._freshness = meter.create_histogram("pricing.freshness", unit="ms", description="Oldest Kafka time taken in, to Redis write")

    async def __call__(self, partial: PricingPartial, emission: Emission, offset: int) -> None:
        """Serves first: readers wait for Redis, the archive can wait."""
        with self._context.telemetry.tracer.start_as_current_span("redis write"):
            await self._serve(partial, emission, offset)
        outputs = surge_records(partial, emission, self._incarnation, offset)
        late = late_records(LateBucket, (PRODUCER, VERSION), partial, emission.taken, (self._incarnation, offset))
        for topic, records in ((self._outputs, outputs), (self._late, late)):
            if records:
                await kafka.send_all(self._producer, TopicPartition(topic.name, partial.partition), records)

    async def _serve(self, partial: PricingPartial, emission: Emission, offset: int) -> None:
        now_us, taken = int(self._context.clock.now() * 1e6), emission.taken
        head = Head(taken.watermark_us, now_us, taken.kafka_us, self._incarnation, partial.partition, offset)
        columns = (emission.cells[:, 1], emission.multiplier_milli, emission.demand_milli, emission.supply_milli)
        values = [
            Value(cell, price, demand, supply, emission.tick_seconds, now_us, partial.partition, offset).encode()
            for cell, price, demand, supply in zip(*(column.tolist() for column in columns), strict=True)
        ]
        written = await self._store.write_cells(head, emission.cells, values, emission.gone)
        if written and partial.counts and taken.kafka_us:
            self._freshness.record((now_us - taken.kafka_us) / 1000)
