"""Watch: changes after a version, or everything again for whoever fell behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

from sqlalchemy.exc import SQLAlchemyError

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from chassis.logs import logger
from chassis.process import Context
from services.controlplane.watch.change_feed import DRIVER_ERRORS, ChangeFeed, Place
from services.controlplane.watch.frames import HISTORY, Audience, Frames, Key

# Without notifications a change is seen within this; with them, one whose notification went missing. One look is for all watchers.
POLL_SECONDS, MISSED_SECONDS = 0.1, 1.0
# A database that is away is asked again after this.
RETRY_SECONDS = 1.0
# A stream begins with what was committed before it, but not later than this: while the database is away, with what there is.
FRESH_SECONDS = 2.0
# A quiet stream says that it lives, so that a half-open connection is noticed.
HEARTBEAT_SECONDS = 10.0
_log = logger(__name__)


class Watching:
    """Streams of one process."""

    def __init__(self, feed: ChangeFeed, context: Context, *, notifications: bool = True, history: int = HISTORY) -> None:
        self._feed = feed
        self._context = context
        self._notifications = notifications
        self._frames = Frames(history)
        self._place = Place(0)
        self._loaded = asyncio.Event()
        self._moved = asyncio.Event()
        self._heard = asyncio.Event()
        # Looks at the log that were begun, and the newest of them that ended; `_looked` wakes who waits for one.
        self._begun = self._ended = 0
        self._looked = asyncio.Condition()
        meter = context.telemetry.meter
        self._streams = meter.create_counter("controlplane.watches", description="Watch streams begun")
        self._resyncs = meter.create_counter("controlplane.resyncs", description="Watchers that were sent everything")

    async def poll(self) -> None:
        """Follows the log of changes until the process stops."""
        while not self._context.stopping.is_set():
            try:
                await self._follow()
            except (OSError, SQLAlchemyError, *DRIVER_ERRORS) as error:
                _log.warning("store away, watchers keep what they have", error=repr(error))
                # That the connection was lost was heard, too.
                self._heard.clear()
                await self._pause(RETRY_SECONDS)
        self._moved.set()

    async def _follow(self) -> None:
        async with AsyncExitStack() as stack:
            listens = await stack.enter_async_context(self._feed.listening(self._heard.set)) if self._notifications else None
            while not self._context.stopping.is_set() and (listens is None or listens()):
                await self._look()
                await self._pause(POLL_SECONDS if listens is None else MISSED_SECONDS)

    async def _look(self) -> None:
        self._heard.clear()
        self._begun += 1
        begun = self._begun
        await self._take()
        async with self._looked:
            self._ended = begun
            self._looked.notify_all()

    async def fresh(self) -> None:
        """Waits for a look that begins after this call: one for all who ask meanwhile."""
        wanted = self._begun + 1
        self._heard.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(FRESH_SECONDS), self._looked:
                await self._looked.wait_for(lambda: self._ended >= wanted)

    async def _take(self) -> None:
        """Takes in what changed, and wakes the watchers if anything did."""
        since = await self._feed.after(self._place, self._frames.history) if self._loaded.is_set() else None
        if since is None:
            found = await self._feed.everything(self._frames.history)
            self._place = found.place
            self._frames.reset(found.bodies, found.recent, (found.floor, found.place.version), found.held)
            self._loaded.set()
        elif since.changes:
            self._place = since.place
            self._frames.apply(since.changes, since.held)
        else:
            return
        self._moved.set()
        self._moved = asyncio.Event()

    async def _pause(self, seconds: float) -> None:
        """Until something was heard, the process stops, or the time is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._heard, self._context.stopping)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[bytes]:
        """Serialised responses for a client, as the request says."""
        await self.fresh()
        await self._loaded.wait()
        watcher = Watcher(self._frames, request)
        self._streams.add(1)
        _log.info("watch", component=request.component, cell=request.cell, version=request.resource_version, resync=watcher.behind)
        while not self._context.stopping.is_set():
            moved = self._moved
            if watcher.behind:
                self._resyncs.add(1)
            async for message in watcher.messages():
                yield message
            if not watcher.behind:
                # Not wait_for, which makes a task of each wait: a third of the whole work.
                with suppress(TimeoutError):
                    async with asyncio.timeout(watcher.quiet_seconds()):
                        await moved.wait()


class Watcher:
    """Where one client is."""

    def __init__(self, frames: Frames, request: pb.WatchRequest) -> None:
        self._frames = frames
        self._audience = Audience(frozenset(request.kinds), request.cell, request.batches)
        self._position = request.resource_version
        self._told = time.monotonic() - HEARTBEAT_SECONDS
        # True if the client cannot go on from where it is, and must be sent everything.
        self.behind = self._position == 0 or not frames.reaches(self._position)
        self._epoch = frames.epoch

    def quiet_seconds(self) -> float:
        """How long the stream may still be quiet."""
        return max(0.0, self._told + HEARTBEAT_SECONDS - time.monotonic())

    async def messages(self) -> AsyncIterator[bytes]:
        """What the client lacks; nothing if it lacks nothing and heard of us lately."""
        synced = True
        if self.behind:
            synced, self._position, self._epoch = False, self._frames.version, self._frames.epoch
            async for message in self._everything():
                yield message
        while self._reaches() and self._position < self._frames.version:
            part = self._frames.since(self._audience, self._position)
            self._position = part.position
            for message in part.messages:
                yield message
                synced, self._told = part.synced, time.monotonic()
        self.behind = not self._reaches()
        if not self.behind and (not synced or not self.quiet_seconds()):
            yield pb.WatchResponse(type=pb.WatchResponse.TYPE_SYNCED, resource_version=self._position).SerializeToString()
            self._told = time.monotonic()

    def _reaches(self) -> bool:
        return self._epoch == self._frames.epoch and self._frames.reaches(self._position)

    async def _everything(self) -> AsyncIterator[bytes]:
        """All resources, a page at a time as the client reads; what changes meanwhile comes after them."""
        yield pb.WatchResponse(type=pb.WatchResponse.TYPE_RESYNC).SerializeToString()
        after: Key | None = None
        while True:
            part = self._frames.page(self._audience, after)
            for message in part.messages:
                yield message
            after = part.after
            if after is None:
                return
