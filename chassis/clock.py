"""The one clock, wall time, injected so that tests can hold it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells wall time and waits."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Waits for so many seconds of this clock."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)
