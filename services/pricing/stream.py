"""Roles `combine` and `stream`: events to partials, partials to multipliers."""

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis import kafka, kv
from chassis.desired import Desired, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.lineage.emitter import emitting
from chassis.process import Context
from chassis.streaming.agent import AgentProcess
from chassis.streaming.combiner import Combiner, CombinerSetup
from chassis.streaming.lineage import combiner_job, merger_job
from chassis.streaming.merger import LogMerger, MergerSetup, dead_topic
from chassis.streaming.publishing import CellPublisher
from services.pricing.config import PricingConfig
from services.pricing.features import SOURCES
from services.pricing.partials import surge_partials
from services.pricing.state import SurgeState
from services.pricing.store import OUTPUT, surge_store

# The combiner's one fixed list: it changes only while all combiners are stopped.
TOPICS = tuple(source.topic for source in SOURCES)
PARTIALS, OUTPUTS, LATE = OUTPUT.partials_topic, OUTPUT.outputs_topic, OUTPUT.late_topic
POLICY = "surge"


def surge_policy(desired: Desired) -> specs_pb2.PricingPolicySpec:
    """The declared policy. Raises NOT_FOUND."""
    policy = desired.pricing_policies.get(POLICY)
    if policy is None:
        raise ArterialError(Reason.NOT_FOUND, f"PricingPolicy {POLICY} is not declared")
    return policy


async def combine(config: PricingConfig, context: Context) -> None:
    """Role `combine`."""
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit(combiner_job(OUTPUT, SOURCES))
        topics = feed.current.topics
        await kafka.ensure_topics(config.kafka, [topics[name] for name in (*TOPICS, PARTIALS)])
        setup = CombinerSetup("pricing", [topics[name] for name in TOPICS], topics[PARTIALS], feed.schemas)
        features = surge_partials(lambda: surge_policy(feed.current), config.cell.region)
        combiner = Combiner(setup, config.kafka, context, features)
        pipeline = feed.current.pipeline(specs_pb2.PIPELINE_ROLE_SURGE, TOPICS[0])
        if pipeline is not None:
            combiner.interval_seconds = pipeline.interval_ms / 1000
        await combiner.run()


async def stream(config: PricingConfig, context: Context) -> None:
    """Role `stream`."""
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit(merger_job(OUTPUT))
        topics = feed.current.topics
        await kafka.ensure_topics(config.kafka, [*(topics[name] for name in (PARTIALS, OUTPUTS, LATE)), dead_topic(topics[PARTIALS])])
        producer = kafka.producer(config.kafka)
        await producer.start()
        redis = kv.connect(config.kv)
        try:
            publish = CellPublisher(OUTPUT, topics, surge_store(redis), producer, context)
            setup = MergerSetup(topics[PARTIALS], PricingPartial, SurgeState, publish)
            merger = LogMerger(setup, config.checkpoints, producer, context)
            await AgentProcess("pricing-stream", config.kafka, topics[PARTIALS], merger, context).run()
        finally:
            await producer.stop()
            await redis.aclose()
