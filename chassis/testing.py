"""What tests of services share: a context, a clock that stands still, roles that run beside a test, calls that wait for a busy machine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from arterial.channel import Channel, Metadata, connect
from chassis.config import TelemetryConfig
from chassis.process import Context
from chassis.telemetry import Telemetry

C = TypeVar("C")
# What is only to end at some time ends after this, however busy the machine is.
PATIENCE_SECONDS = 60.0


class ManualClock:
    """A clock that a test moves."""

    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        """Seconds since 1970."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Moves the clock instead of waiting."""
        self._now += seconds
        await asyncio.sleep(0)


def context(telemetry: TelemetryConfig | None = None) -> Context:
    """A context like a process's own."""
    return Context(Telemetry(telemetry or TelemetryConfig(), "test", "local"), process="test")


def channel(address: str) -> Channel:
    """A channel to host:port for a test whose calls are not to run out of time."""

    def outgoing(timeout: float | None, metadata: Metadata) -> tuple[float | None, Metadata]:
        return (None if timeout is None else max(timeout, PATIENCE_SECONDS)), metadata

    return connect(address, outgoing=outgoing)


@asynccontextmanager
async def running(role: Callable[[C, Context], Awaitable[None]], config: C) -> AsyncIterator[Context]:
    """Runs a role beside the test, and stops it as a signal would."""
    role_context = context()
    task = asyncio.ensure_future(role(config, role_context))
    try:
        yield role_context
    finally:
        role_context.stopping.set()
        await task


async def eventually(probe: Callable[[], Awaitable[bool]], what: str, timeout: float = PATIENCE_SECONDS) -> None:
    """Waits until `probe` holds; fails the test if it does not in time."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not await probe():
        assert asyncio.get_running_loop().time() < deadline, f"not within {timeout:.0f} s: {what}"
        await asyncio.sleep(0.1)
