"""Looks again, every few seconds, at what should follow from what is written; what a crash left half done is made good here."""

import asyncio
import time
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from chassis.logs import logger
from chassis.process import Context
from services.controlplane.jobs.run_store import RunStore
from services.controlplane.models.model_store import ModelStore
from services.controlplane.partitions.partition_store import PartitionStore
from services.controlplane.resources.store import ResourceStore

# A listed run shows within this that its worker died, or that its model's inputs were changed, also while nobody asks for runs.
INTERVAL_SECONDS = 2.0
# What should never be needed, since verdicts and resources that change are acted on at once: everything is looked at again.
SWEEP_SECONDS = 60.0
_log = logger(__name__)


async def run(store: ResourceStore, models: ModelStore, runs: RunStore, partitions: PartitionStore, context: Context) -> None:
    """Reconciles until the process stops. Replicas may do so at once: rows that one holds, the other passes over."""
    seen, swept_at = -1, 0.0
    while not context.stopping.is_set():
        try:
            version, now = await store.version(), time.monotonic()
            if version != seen or now - swept_at > SWEEP_SECONDS:
                await models.settle(await store.names("Model"))
                await partitions.reconsider(version, store.judged_otherwise)
                await runs.reconsider()
                seen, swept_at = version, now
            await runs.expire()
            await partitions.follow_runs()
            await partitions.forget_dropped()
        except (OSError, SQLAlchemyError) as error:
            _log.warning("store away", error=repr(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(context.stopping.wait(), INTERVAL_SECONDS)
