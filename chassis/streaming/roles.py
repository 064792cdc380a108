"""Roles `combine` and `stream` of a service whose streams are sums per cell."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from arterial.api.controlplane.v1 import specs_pb2
from chassis import kafka, kv
from chassis.config import StreamingConfig
from chassis.desired import Desired, DesiredFeed, acting, follow_desired
from chassis.lineage.emitter import emitting
from chassis.process import Context
from chassis.reporting import Standing
from chassis.resources import Key
from chassis.streaming.cells import CellEmission, CellOutput
from chassis.streaming.combiner import Combiner, CombinerSetup
from chassis.streaming.lineage import combiner_job, merger_job
from chassis.streaming.measures import CellSource
from chassis.streaming.merger import LogMerger, MergerSetup, State, dead_topic
from chassis.streaming.online import CellStore
from chassis.streaming.partials import CellPartials, PartialForm
from chassis.streaming.publishing import CellPublisher

V = TypeVar("V")


async def combine_cells(
    config: StreamingConfig,
    context: Context,
    form: CellOutput[V],
    sources: Sequence[CellSource],
    *,
    policy: Callable[[Desired], Message],
    declared: Key,
    pipeline: specs_pb2.PipelineRole.ValueType,
) -> None:
    """Events of the sources to partials, until the process is stopped.

    The topics of the sources are the combiner's one fixed list: it changes only while all combiners are stopped. `policy` is asked anew for
    every partial, so a change takes effect at a stated one; the pipeline of that role says how often partials are made. `declared` is the
    policy's kind and name.
    """
    names = [source.topic for source in sources]
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit_from(f"{form.service}.combine", lambda: combiner_job(form, sources))
        topics = feed.current.topics
        await kafka.ensure_topics(config.kafka, [topics[name] for name in (*names, form.partials_topic)])
        setup = CombinerSetup(form.service, [topics[name] for name in names], topics[form.partials_topic], feed.schemas)
        partials = PartialForm(form.partial, f"{form.service}-combine", "1", form.feature_set_version, config.cell.region)
        combiner = Combiner(setup, config.kafka, context, CellPartials(partials, lambda: policy(feed.current), sources))
        async with acting(feed, in_effect(feed, combiner, declared, (pipeline, names[0]))):
            await combiner.run()


def in_effect(
    feed: DesiredFeed, combiner: Combiner, declared: Key, reads: tuple[specs_pb2.PipelineRole.ValueType, str]
) -> Callable[[Desired], None]:
    """Gives a combiner the interval of its pipeline (role, first topic), and says that the next partial is of this policy and pipeline; of
    others it takes back what it said."""

    def act(desired: Desired) -> None:
        role, topic = reads
        now = Standing(True, "InEffect", "from the next partial on")
        feed.say(desired, *declared, now)
        for name, spec in desired.pipelines.items():
            mine = spec.role == role and topic in spec.topics
            if mine:
                combiner.interval_seconds = spec.interval_ms / 1000
            feed.say(desired, "Pipeline", name, now if mine else None)

    return act


async def stream_cells(config: StreamingConfig, context: Context, form: CellOutput[V], state: type[State[Any, CellEmission]]) -> None:
    """Partials to values per cell, served and told, until the process is stopped."""
    from chassis.streaming.agent import AgentProcess  # Faust takes memory, and only this role needs it

    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit_from(f"{form.service}.stream", lambda: merger_job(form))
        topics = feed.current.topics
        partials = topics[form.partials_topic]
        await kafka.ensure_topics(config.kafka, [partials, topics[form.outputs_topic], topics[form.late_topic], dead_topic(partials)])
        producer = kafka.producer(config.kafka)
        await producer.start()
        redis = kv.connect(config.kv)
        try:
            publish = CellPublisher(form, topics, CellStore(redis, form.kind, form.value), producer, context)
            merger = LogMerger(MergerSetup(partials, form.partial, state, publish), config.checkpoints, producer, context)
            await AgentProcess(f"{form.service}-stream", config.kafka, partials, merger, context).run()
        finally:
            await producer.stop()
            await redis.aclose()
