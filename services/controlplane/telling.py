"""Tells the lineage service what the declared resources say, again whenever they change."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from arterial.api.controlplane.v1 import resource_pb2
from chassis.lineage import Lineage
from chassis.logs import logger
from chassis.process import Context
from services.controlplane import dashboards
from services.controlplane.store import ResourceStore

INTERVAL_SECONDS = 1.0
_log = logger(__name__)


async def run(store: ResourceStore, lineage: Lineage, context: Context) -> None:
    """Tells until the process stops."""
    seen, drawn = -1, frozenset[str]()
    while not context.stopping.is_set():
        try:
            version = await store.version()
            if version != seen:
                resources, seen = await store.snapshot()
                drawn = tell(lineage, resources.values(), drawn)
        except (OSError, SQLAlchemyError) as error:
            _log.warning("store away", error=repr(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(context.stopping.wait(), INTERVAL_SECONDS)


def tell(lineage: Lineage, resources: Collection[resource_pb2.Resource], drawn: frozenset[str]) -> frozenset[str]:
    """Hands over ownership and dashboards; those of `drawn` that are gone read nothing any more. Returns what is drawn now."""
    for ownership in dashboards.ownerships(resources):
        lineage.declare(ownership)
    queries = {
        resource.metadata.name: tuple(resource.dataset.queries)
        for resource in resources
        if resource.kind == "Dataset" and resource.dataset.queries
    }
    for dataset in sorted(queries.keys() | drawn):
        lineage.emit_from(dashboards.job_name(dataset), partial(dashboards.drawing, dataset, queries.get(dataset, ())))
    return frozenset(queries)
