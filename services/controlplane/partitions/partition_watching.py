"""Streams of partitions: one look at the database is for all watchers of a process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from chassis.logs import logger
from chassis.process import Context
from services.controlplane.partitions.partition_store import PartitionStore
from services.controlplane.partitions.partitions import Partition

# A change is seen within this.
POLL_SECONDS = 0.2
# A quiet stream says that it lives, so that a half-open connection is noticed.
HEARTBEAT_SECONDS = 10.0
BATCH = 1000
_log = logger(__name__)


class PartitionWatching:
    """Streams of one process."""

    def __init__(self, store: PartitionStore, context: Context) -> None:
        self._store = store
        self._context = context
        self._revisions: Mapping[str, int] = {}
        self._moved = asyncio.Event()
        self._watchers = 0

    async def poll(self) -> None:
        """Looks for new revisions until the process stops, as long as somebody watches."""
        while not self._context.stopping.is_set():
            try:
                revisions = await self._store.revisions() if self._watchers else self._revisions
                if revisions != self._revisions:
                    self._revisions = revisions
                    self._wake()
            except (OSError, SQLAlchemyError) as error:
                _log.warning("store away, watchers of partitions wait", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._context.stopping.wait(), POLL_SECONDS)
        self._wake()

    async def watch(self, cell: str, dataset: str, revision: int) -> AsyncIterator[tuple[Partition | None, int]]:
        """Partitions that changed after a revision, each with its own; None where everything up to a revision was said.

        A revision that was never given out, because an older backup was restored, begins anew.
        """
        self._watchers += 1
        try:
            last = (await self._store.revisions()).get(cell, 0)
            position = revision if revision <= last else 0
            while not self._context.stopping.is_set():
                moved = self._moved
                found, position = await self._store.changed(cell, dataset, position, BATCH)
                for partition in found:
                    yield partition, partition.revision
                if len(found) < BATCH:
                    yield None, position
                    with suppress(TimeoutError):
                        await asyncio.wait_for(moved.wait(), HEARTBEAT_SECONDS)
        finally:
            self._watchers -= 1

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
