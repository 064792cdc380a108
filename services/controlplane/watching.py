"""Watch: changes after a version, or everything again for whoever fell behind."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import suppress

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2
from chassis.logs import logger
from chassis.process import Context
from services.controlplane.store import ResourceStore

# Another replica's change is seen within this; one process polls once for all of its watchers.
POLL_SECONDS = 0.1
# A quiet stream says that it lives, so that a half-open connection is noticed.
HEARTBEAT_SECONDS = 10.0
_log = logger(__name__)


class Watching:
    """Streams of one process."""

    def __init__(self, store: ResourceStore, context: Context) -> None:
        self._store = store
        self._context = context
        self._version = 0
        self._moved = asyncio.Event()

    async def poll(self) -> None:
        """Looks for new versions until the process stops."""
        while not self._context.stopping.is_set():
            try:
                version = await self._store.version()
            except OSError as error:
                _log.warning("store away", error=repr(error))
                version = self._version
            if version != self._version:
                self._version = version
                self._moved.set()
                self._moved = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._context.stopping.wait(), POLL_SECONDS)
        self._moved.set()

    async def watch(self, kinds: Collection[str], version: int) -> AsyncIterator[pb.WatchResponse]:
        """Events for a client that has `version`."""
        position = version
        first = True
        while not self._context.stopping.is_set():
            moved = self._moved
            changes = await self._store.changes_after(position) if position else None
            if changes is None:
                resources, position = await self._store.snapshot()
                yield pb.WatchResponse(type=pb.WatchResponse.TYPE_RESYNC, resource_version=position)
                for key in sorted(resources):
                    if not kinds or key[0] in kinds:
                        yield pb.WatchResponse(type=pb.WatchResponse.TYPE_PUT, resource=resources[key], resource_version=position)
            for change in changes or ():
                position = change.version
                if not kinds or change.kind in kinds:
                    gone = resource_pb2.Resource(kind=change.kind, metadata=resource_pb2.Metadata(name=change.name))
                    kind = pb.WatchResponse.TYPE_DELETED if change.resource is None else pb.WatchResponse.TYPE_PUT
                    yield pb.WatchResponse(type=kind, resource=change.resource or gone, resource_version=position)
            if position or first:
                yield pb.WatchResponse(type=pb.WatchResponse.TYPE_SYNCED, resource_version=position)
            first = False
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), HEARTBEAT_SECONDS)
