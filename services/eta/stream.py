"""Roles `combine` and `stream`: events to partials, partials to live speeds."""

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from chassis import kafka, kv
from chassis.desired import Desired, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.lineage.emitter import emitting
from chassis.process import Context
from chassis.streaming.agent import AgentProcess
from chassis.streaming.combiner import Combiner, CombinerSetup
from chassis.streaming.lineage import combiner_job, merger_job
from chassis.streaming.merger import LogMerger, MergerSetup, dead_topic
from chassis.streaming.partials import CellPartials, PartialForm
from chassis.streaming.publishing import CellPublisher
from services.eta.config import EtaConfig
from services.eta.speeds import FEATURE_SET_VERSION, SOURCES
from services.eta.state import SpeedState
from services.eta.store import OUTPUT, speed_store

# The combiner's one fixed list: it changes only while all combiners are stopped.
TOPICS = tuple(source.topic for source in SOURCES)
PARTIALS, OUTPUTS, LATE = OUTPUT.partials_topic, OUTPUT.outputs_topic, OUTPUT.late_topic
POLICY = "eta"


def eta_policy(desired: Desired) -> specs_pb2.EtaPolicySpec:
    """The declared policy. Raises NOT_FOUND."""
    policy = desired.eta_policies.get(POLICY)
    if policy is None:
        raise ArterialError(Reason.NOT_FOUND, f"EtaPolicy {POLICY} is not declared")
    return policy


async def combine(config: EtaConfig, context: Context) -> None:
    """Role `combine`."""
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit(combiner_job(OUTPUT, SOURCES))
        topics = feed.current.topics
        await kafka.ensure_topics(config.kafka, [topics[name] for name in (*TOPICS, PARTIALS)])
        setup = CombinerSetup("eta", [topics[name] for name in TOPICS], topics[PARTIALS], feed.schemas)
        form = PartialForm(EtaPartial, "eta-combine", "1", FEATURE_SET_VERSION, config.cell.region)
        combiner = Combiner(setup, config.kafka, context, CellPartials(form, lambda: eta_policy(feed.current), SOURCES))
        pipeline = feed.current.pipeline(specs_pb2.PIPELINE_ROLE_SPEED, TOPICS[0])
        if pipeline is not None:
            combiner.interval_seconds = pipeline.interval_ms / 1000
        await combiner.run()


async def stream(config: EtaConfig, context: Context) -> None:
    """Role `stream`."""
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit(merger_job(OUTPUT))
        topics = feed.current.topics
        await kafka.ensure_topics(config.kafka, [*(topics[name] for name in (PARTIALS, OUTPUTS, LATE)), dead_topic(topics[PARTIALS])])
        producer = kafka.producer(config.kafka)
        await producer.start()
        redis = kv.connect(config.kv)
        try:
            publish = CellPublisher(OUTPUT, topics, speed_store(redis), producer, context)
            setup = MergerSetup(topics[PARTIALS], EtaPartial, SpeedState, publish)
            merger = LogMerger(setup, config.checkpoints, producer, context)
            await AgentProcess("eta-stream", config.kafka, topics[PARTIALS], merger, context).run()
        finally:
            await producer.stop()
            await redis.aclose()
