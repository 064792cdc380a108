"""Role `stream`: partials to velocities and decisions."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaProducer, TopicPartition

from arterial.api.radar.v1alpha1.radar_partial_pb2 import RadarPartial
from chassis import kafka
from chassis.desired import follow_desired
from chassis.errors import ArterialError
from chassis.lineage import emitting
from chassis.logs import logger
from chassis.partitioning import partition_of
from chassis.process import Context
from chassis.streaming.agent import AgentProcess
from chassis.streaming.merger import LogMerger, MergerSetup, dead_topic
from chassis.streaming.partials import framed
from chassis.topics import Topic
from services.radar.assessing import Assessor, standing_of
from services.radar.config import RadarConfig
from services.radar.lineage import stream_job
from services.radar.partials import PARTIALS
from services.radar.parts import scoring, stores
from services.radar.state import Emission, RiskState
from services.radar.store import KEEP_DAYS, DecisionStore, Made
from services.radar.velocities import Head, Velocities

DECISIONS = "radar_decisions_v1"
# Old decisions are looked for this often.
FORGET_SECONDS = 3600.0
_log = logger(__name__)


class RiskPublisher:
    """What becomes of a partial: velocities, decisions that hold, and their records. Called again, it gives the same."""

    def __init__(self, partials: Topic, decisions: Topic, parts: tuple[Velocities, Assessor], producer: AIOKafkaProducer, context: Context):
        self._partials = partials
        self._decisions = decisions
        self._velocities, self._assessor = parts
        self._producer = producer
        self._clock = context.clock
        self._freshness = context.telemetry.meter.create_histogram(
            "radar.freshness", unit="ms", description="Oldest Kafka time taken in, to decision"
        )

    async def __call__(self, partial: RadarPartial, emission: Emission, offset: int) -> None:
        """Decides first; the head moves when all of the partial is in the velocities."""
        now_us = int(self._clock.now() * 1e6)
        head = Head(emission.watermark_us, now_us, self._partials.incarnation, offset)
        made = await self._assessor.assess(
            emission.payments, emission.policy, lambda: standing_of(head, partial.partition, emission.policy, self._clock.now())
        )
        await self._tell(made)
        await self._velocities.write_head(partial.partition, head)
        if made and partial.sources[0].HasField("min_kafka_time"):
            self._freshness.record(self._clock.now() * 1000 - partial.sources[0].min_kafka_time.ToMicroseconds() / 1000)

    async def _tell(self, made: list[Made]) -> None:
        by_partition: dict[int, list[tuple[bytes | None, bytes]]] = defaultdict(list)
        for each in made:
            key = each.decision.account_id.encode()
            by_partition[partition_of(key, self._decisions.partitions)].append((key, framed(each.decision)))
        for partition, records in by_partition.items():
            await kafka.send_all(self._producer, TopicPartition(self._decisions.name, partition), records)


async def stream(config: RadarConfig, context: Context) -> None:
    """Role `stream`."""
    async with (
        follow_desired(config, context) as feed,
        stores(config) as (velocities, store),
        scoring(config, feed) as scorer,
        emitting(config, context) as lineage,
    ):
        lineage.emit(stream_job())
        topics = feed.current.topics
        await kafka.ensure_topics(config.kafka, [topics[PARTIALS], topics[DECISIONS], dead_topic(topics[PARTIALS])])
        producer = kafka.producer(config.kafka)
        await producer.start()
        forgetting = asyncio.create_task(_forget(store, context))
        try:
            assessor = Assessor(velocities, store, scorer, context.clock, config.cell.region)
            publish = RiskPublisher(topics[PARTIALS], topics[DECISIONS], (velocities, assessor), producer, context)
            setup = MergerSetup(topics[PARTIALS], RadarPartial, RiskState, publish)
            merger = LogMerger(setup, config.checkpoints, producer, context)
            await AgentProcess("radar-stream", config.kafka, topics[PARTIALS], merger, context).run()
        finally:
            forgetting.cancel()
            await producer.stop()


async def _forget(store: DecisionStore, context: Context) -> None:
    """Drops decisions that no redelivery can ask for any more."""
    while True:
        try:
            await store.forget(datetime.fromtimestamp(context.clock.now(), UTC) - timedelta(days=KEEP_DAYS))
        except ArterialError as error:
            _log.warning("old decisions stay for now", error=error.message)
        await context.clock.sleep(FORGET_SECONDS)
