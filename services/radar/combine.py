"""Role `combine`: payment events to partials."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis import kafka
from chassis.desired import acting, follow_desired
from chassis.lineage import emitting
from chassis.process import Context
from chassis.streaming.combiner import Combiner, CombinerSetup
from chassis.streaming.roles import in_effect
from services.radar.config import RadarConfig
from services.radar.lineage import combine_job
from services.radar.partials import PARTIALS, RiskPartials
from services.radar.policy import POLICY, risk_policy

# The combiner's one fixed list: it changes only while all combiners are stopped.
SOURCES = ("payment_events_v1",)


async def combine(config: RadarConfig, context: Context) -> None:
    """Role `combine`."""
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit(combine_job())
        topics = feed.current.topics
        await kafka.ensure_topics(config.kafka, [topics[name] for name in (*SOURCES, PARTIALS)])
        setup = CombinerSetup("radar", [topics[name] for name in SOURCES], topics[PARTIALS], feed.schemas)
        features = RiskPartials(lambda: risk_policy(feed.current), config.cell.region)
        combiner = Combiner(setup, config.kafka, context, features)
        async with acting(feed, in_effect(feed, combiner, ("RiskPolicy", POLICY), (specs_pb2.PIPELINE_ROLE_RISK, SOURCES[0]))):
            await combiner.run()
