"""What becomes of a partial: live speeds to Redis, then to Kafka with what came too late."""

from collections.abc import Mapping

from aiokafka import AIOKafkaProducer, TopicPartition

from arterial.api.eta.v1alpha1.eta_late_bucket_pb2 import EtaLateBucket
from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from chassis import kafka
from chassis.process import Context
from chassis.streaming.late import late_records
from chassis.streaming.online import Head
from chassis.topics import Topic
from services.eta.outputs import PRODUCER, VERSION, speed_records
from services.eta.state import Emission
from services.eta.store import SpeedStore, Value


class SpeedPublisher:
    """Publishes what partials led to."""

    def __init__(self, topics: Mapping[str, Topic], store: SpeedStore, producer: AIOKafkaProducer, context: Context) -> None:
        self._incarnation = topics["eta_partials_v1"].incarnation
        self._outputs = topics["eta_outputs_v1"]
        self._late = topics["eta_late_v1"]
        self._store = store
        self._producer = producer
        self._context = context

    async def __call__(self, partial: EtaPartial, emission: Emission, offset: int) -> None:
        """Serves first: readers wait for Redis, the archive can wait."""
        with self._context.telemetry.tracer.start_as_current_span("redis write"):
            await self._serve(partial, emission, offset)
        outputs = speed_records(partial, emission, self._incarnation, offset)
        late = late_records(EtaLateBucket, (PRODUCER, VERSION), partial, emission.taken, (self._incarnation, offset))
        for topic, records in ((self._outputs, outputs), (self._late, late)):
            if records:
                await kafka.send_all(self._producer, TopicPartition(topic.name, partial.partition), records)

    async def _serve(self, partial: EtaPartial, emission: Emission, offset: int) -> None:
        now_us, taken = int(self._context.clock.now() * 1e6), emission.taken
        head = Head(taken.watermark_us, now_us, taken.kafka_us, self._incarnation, partial.partition, offset)
        told = zip(emission.cells[:, 1].tolist(), emission.values.tolist(), strict=True)
        values = [Value(cell, ratio, speed, observations, emission.tick_seconds).encode() for cell, (ratio, speed, observations) in told]
        await self._store.write_cells(head, emission.cells, values, emission.gone)
