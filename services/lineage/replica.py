"""The graph in memory: read without the database, changed through it, kept up with what other replicas write."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from chassis.errors import ArterialError, Reason
from chassis.logs import logger
from chassis.process import Context
from services.lineage import openlineage, store
from services.lineage.absorbing import changes
from services.lineage.graph import Graph
from services.lineage.store import GraphStore

# Another replica's change is seen within this.
POLL_SECONDS = 0.5
_log = logger(__name__)


class Replica:
    """This process's copy; `graph` is replaced, never changed."""

    def __init__(self, database: GraphStore) -> None:
        self.graph = Graph()
        self._store = database
        self._version = 0
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Reads what is newer than this copy."""
        async with self._lock:
            if await self._store.version() != self._version:
                graph, self._version = await self._store.newer(self.graph, self._version)
                self.graph = await asyncio.to_thread(graph.prepared)

    async def poll(self, context: Context) -> None:
        """Keeps up until the process stops; the database away, it answers from what it has."""
        while not context.stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), POLL_SECONDS)
            try:
                await self.refresh()
            except OSError as error:
                _log.warning("store away", error=repr(error))

    async def put(self, events: Sequence[str]) -> int:
        """Takes events, all or none; how many changed the graph.

        Raises:
            ArterialError: INVALID_REQUEST, with a violation for each event that is none.
        """
        told, violations = await asyncio.to_thread(openlineage.read, events, self.graph.columns_of)
        if violations:
            raise ArterialError(Reason.INVALID_REQUEST, "not all are OpenLineage events", violations=violations)
        async with self._lock:
            async with self._store.engine.begin() as connection:
                await store.lock(connection)
                graph, version = await store.newer(connection, self.graph, self._version)
                found = changes(graph, told)
                if found.jobs or found.facts:
                    await store.write(connection, found)
                    version += 1
            self.graph = await asyncio.to_thread(lambda: graph.with_(found.jobs.values(), found.facts.values()).prepared())
            self._version = version
        return found.events
