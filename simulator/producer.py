"""Publishes the city's events at pace 1 and keeps a ledger of what was acknowledged."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from arterial.client import Client, Publisher
from arterial.errors import ArterialError
from simulator.city import City
from simulator.columns import Events

# Who publishes, for lineage.
NAME = "simulator"
FRAME_RECORDS = 500
# Events that are sent a second time on purpose, with their ids: what producers do after a lost acknowledgement.
RESENT_RECORDS = 10
RETRY_SECONDS = 0.5


class Ledger:
    """Acknowledged ids by topic: one file each, 24 bytes per record (event_id, event_time in big-endian microseconds)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def add(self, topic: str, identities: bytes) -> None:
        """Appends acknowledged records."""
        with (self._folder / f"{topic}.ids").open("ab") as file:
            file.write(identities)

    def read(self) -> dict[str, bytes]:
        """All acknowledged records by topic."""
        return {file.stem: file.read_bytes() for file in sorted(self._folder.glob("*.ids"))}


@dataclass
class Progress:
    """What was published so far."""

    records: int = 0
    resent: int = 0
    rejected: int = 0
    behind_seconds: float = 0.0
    by_topic: dict[str, int] = field(default_factory=dict)


class Producer:
    """One producer over one stream of frames."""

    def __init__(self, city: City, address: str, ledger: Ledger) -> None:
        self._city = city
        self._client = Client(ingestion=address)
        self._publisher: Publisher | None = None
        self._open = AsyncExitStack()
        self._ledger = ledger
        self.progress = Progress()

    async def close(self) -> None:
        """Ends the stream and the connection."""
        await self._open.aclose()
        await self._client.__aexit__()

    async def run(self, seconds: int, stopping: asyncio.Event) -> None:
        """Publishes each second's events when that second has passed; returns when all are acknowledged."""
        first = int(time.time())
        for second in range(first, first + seconds):
            if stopping.is_set():
                break
            await asyncio.sleep(max(0.0, second + 1 - time.time()))
            self.progress.behind_seconds = max(0.0, time.time() - second - 1)
            events = self._city.second(second)
            await asyncio.gather(*(self._publish(topic, events[topic]) for topic in events))
            if second - first == seconds // 2 and "marketplace_events_v1" in events:
                self.progress.resent += await self._publish("marketplace_events_v1", events["marketplace_events_v1"], RESENT_RECORDS)

    async def _publish(self, topic: str, events: Events, limit: int | None = None) -> int:
        records = events.encode(topic)[:limit]
        identities = events.identities()
        for start in range(0, len(records), FRAME_RECORDS):
            frame = records[start : start + FRAME_RECORDS]
            await self._until_acknowledged(topic, frame, identities[24 * start : 24 * (start + len(frame))])
        return len(records)

    async def _until_acknowledged(self, topic: str, frame: list[bytes], identities: bytes) -> None:
        """A frame whose acknowledgement was lost is sent again, with the same ids; the ledger has it once."""
        while True:
            publisher = await self._stream()
            try:
                reply = await publisher.publish(topic, frame)
                break
            except ArterialError:
                if self._publisher is publisher:
                    self._publisher = None
                await asyncio.sleep(RETRY_SECONDS)
        taken = [place for place, offset in enumerate(reply.offsets) if offset >= 0]
        self._ledger.add(topic, b"".join(identities[24 * place : 24 * place + 24] for place in taken))
        self.progress.records += len(taken)
        self.progress.rejected += len(reply.rejected)
        self.progress.by_topic[topic] = self.progress.by_topic.get(topic, 0) + len(taken)

    async def _stream(self) -> Publisher:
        """The open stream; a new one after an error."""
        if self._publisher is None:
            self._publisher = await self._open.enter_async_context(self._client.publisher(NAME))
        return self._publisher
