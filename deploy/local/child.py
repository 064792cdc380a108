"""Child processes that never outlive their parent, and free loopback ports."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LAUNCH = Path(__file__).with_name("launch.py")
LOOPBACK = "127.0.0.1"
# An engine that is not up by then will not come up: say so instead of waiting for ever.
START_TIMEOUT_SECONDS = 60.0
_given: set[int] = set()


class StartError(RuntimeError):
    """A process did not come up; the message says where its log is."""


def free_port() -> int:
    """A loopback port that was free a moment ago; no port twice: whoever was given it may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def runs(pid: int) -> bool:
    """True if the process has not ended; it may do so while it is looked at."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass
class Child:
    """A running process. Start it from the main thread: the death signal follows the thread that forked."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> "Child":
        """Starts a process in a session of its own; its output is appended to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), user or "-", *(str(part) for part in command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """True until the process ended."""
        return self.process.poll() is None

    async def healthy(self, probe: Callable[[], Awaitable[bool]], timeout: float = START_TIMEOUT_SECONDS) -> None:
        """Waits until `probe` says so.

        Raises:
            StartError: the process ended, or was not healthy in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.alive:
                raise StartError(f"{self.name} ended with status {self.process.returncode}; its log: {self.log}\n{self._tail()}")
            with suppress(OSError, asyncio.TimeoutError):
                if await probe():
                    return
            await asyncio.sleep(0.05)
        raise StartError(f"{self.name} was not healthy within {timeout:.0f} s; its log: {self.log}\n{self._tail()}")

    async def stop(self, number: int = signal.SIGTERM, timeout: float = 15.0) -> None:
        """Asks the process to end, by its id, and kills it if it does not within `timeout` seconds."""
        if self.alive:
            self.process.send_signal(number)
        deadline = time.monotonic() + timeout
        while self.alive and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self.alive:
            self.process.kill()
        self.process.wait()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


async def port_open(port: int) -> bool:
    """True if something listens on the loopback port."""
    _reader, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), 1.0)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
