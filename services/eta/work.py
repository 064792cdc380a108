"""Role `work`: training."""

from chassis.learning.training import work as take_runs
from chassis.lineage import JobDefinition, emitting
from chassis.process import Context
from services.eta.config import EtaConfig

# The trainer of each kind of run; it is imported when a run is taken.
TRAINERS = {"eta-train": "services.eta.training:train"}


async def work(config: EtaConfig, context: Context) -> None:
    """Role `work`: training."""
    async with emitting(config, context) as lineage:
        lineage.emit_from("eta.train", _training_job)
        await take_runs(config, context, TRAINERS)


def _training_job() -> JobDefinition:
    from services.eta.training import definition

    return definition()
