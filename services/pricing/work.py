"""Role `work`: training."""

from chassis.desired import follow_desired
from chassis.learning.training import work as take_runs
from chassis.lineage import JobDefinition, emitting
from chassis.process import Context
from services.pricing.config import PricingConfig
from services.pricing.policy import surge_policy

# The trainer of each kind of run; it is imported when a run is taken.
TRAINERS = {"pricing-train": "services.pricing.demand_training:train"}


async def work(config: PricingConfig, context: Context) -> None:
    """Role `work`: training."""
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        lineage.emit_from("pricing.train", lambda: _training_job(surge_policy(feed.current).cell_resolution))
        await take_runs(config, context, TRAINERS)


def _training_job(resolution: int) -> JobDefinition:
    from services.pricing.demand_training import definition

    return definition(resolution)
