"""Tells the lineage service what the declared resources say, and what changed of it."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from arterial.api.controlplane.v1 import resource_pb2
from chassis.lineage import Lineage
from chassis.logs import logger
from chassis.process import Context
from services.controlplane.resources import dashboards
from services.controlplane.watch.change_feed import ChangeFeed, Place
from services.controlplane.watch.frames import HISTORY, Key

INTERVAL_SECONDS = 1.0
_log = logger(__name__)
# Datasets by name; None where one was deleted.
Datasets = Mapping[str, resource_pb2.Resource | None]


async def run(feed: ChangeFeed, lineage: Lineage, context: Context) -> None:
    """Tells everything once, then what changes, until the process stops."""
    place: Place | None = None
    drawn = frozenset[str]()
    while not context.stopping.is_set():
        try:
            since = await feed.after(place, HISTORY) if place is not None else None
            if since is None:
                found = await feed.everything(0)
                bodies, place = found.bodies, found.place
                # Thousands of resources take long to parse: not on the loop that answers.
                drawn = tell(lineage, await asyncio.to_thread(_datasets, bodies), drawn)
            elif since.changes:
                place = since.place
                drawn = tell(lineage, _datasets((change.key, change.body) for change in since.changes), drawn)
        except (OSError, SQLAlchemyError) as error:
            _log.warning("store away", error=repr(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(context.stopping.wait(), INTERVAL_SECONDS)


def _datasets(bodies: Iterable[tuple[Key, bytes | None]]) -> Datasets:
    return {name: resource_pb2.Resource.FromString(body) if body else None for (kind, name), body in bodies if kind == "Dataset"}


def tell(lineage: Lineage, changed: Datasets, drawn: frozenset[str]) -> frozenset[str]:
    """Hands over ownership and dashboards; one of `drawn` that is gone reads nothing any more. Returns what is drawn now."""
    for ownership in dashboards.ownerships(resource for resource in changed.values() if resource is not None):
        lineage.declare(ownership)
    queries = {name: tuple(resource.dataset.queries) if resource is not None else () for name, resource in changed.items()}
    for dataset, read in sorted(queries.items()):
        if read or dataset in drawn:
            lineage.emit_from(dashboards.job_name(dataset), partial(dashboards.drawing, dataset, read))
    return drawn - queries.keys() | {dataset for dataset, read in queries.items() if read}
