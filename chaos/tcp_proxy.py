"""A TCP proxy that can drop, delay and half-open what passes through it."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from typing import Any

from deploy.local.child import LOOPBACK

CHUNK_BYTES = 64 * 1024


class Fault(StrEnum):
    """What happens to connections."""

    NONE = "none"
    # All are closed, and new ones at once.
    DROP = "drop"
    # What arrives is handed on `delay_seconds` later.
    DELAY = "delay"
    # Those that exist stay open and nothing passes, as behind a router that forgot them; new ones work.
    HALF_OPEN = "half-open"


class Proxy:
    """Listens at a loopback port and connects to another. Use it as a context manager."""

    def __init__(self, port: int, target: int, *, delay_seconds: float = 1.0) -> None:
        self._port, self._target = port, target
        self._delay_seconds = delay_seconds
        self._fault = Fault.NONE
        self._connections: dict[asyncio.Task[None], asyncio.Event] = {}
        self._server: asyncio.Server | None = None
        self.accepted = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_all()
        if self._server is not None:
            self._server.close()

    def inflict(self, fault: Fault) -> None:
        """Changes what happens from now on."""
        self._fault = fault
        if fault is Fault.DROP:
            self._close_all()
        elif fault is Fault.HALF_OPEN:
            for deaf in self._connections.values():
                deaf.set()

    def _close_all(self) -> None:
        for task in self._connections:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        deaf = self._connections[task] = asyncio.Event()
        with suppress(OSError, asyncio.CancelledError):
            if self._fault is not Fault.DROP:
                onward_reader, onward_writer = await asyncio.open_connection(LOOPBACK, self._target)
                try:
                    await _first(self._pass(reader, onward_writer, deaf), self._pass(onward_reader, writer, deaf))
                finally:
                    onward_writer.close()
        writer.close()
        del self._connections[task]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self._fault is Fault.DELAY:
                await asyncio.sleep(self._delay_seconds)
            if not deaf.is_set():
                writer.write(chunk)
                await writer.drain()
        if deaf.is_set():
            await asyncio.Event().wait()  # not even the end passes


async def _first(*ways: Coroutine[Any, Any, None]) -> None:
    """Until one way ends, as it does when its side closes."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
