"""The laptop stack: starts engines and services, restarts services that end, stops everything together."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import clickhouse, kafka, postgres, redis
from deploy.local.child import LOOPBACK, Child, StartError, free_port, runs
from deploy.local.memory import Peaks
from deploy.local.services import DATABASES, ENGINES, PORTS, SERVICES, Places, Service

STATE_FILE = "stack.json"
WATCH_SECONDS = 0.2
# Memory is looked at this often: the look itself costs some milliseconds of CPU.
SAMPLE_SECONDS = 2.0
# A service that ends again and again is restarted ever later, so that it does not eat the machine.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.2, 10.0
STABLE_SECONDS = 20.0
# All services start at once: on a busy laptop of two cores the last one is up after a minute or two.
HEALTHY_SECONDS = 180.0
# Threads of the C library keep memory arenas of their own: two are enough for processes that share a laptop.
FRUGAL = {"MALLOC_ARENA_MAX": "2"}
_START = {"kafka": kafka.start, "redis": redis.start, "postgres": postgres.start, "clickhouse": clickhouse.start}


@dataclass
class _Restarts:
    """Why and when a service is started again."""

    count: int = 0
    backoff: float = MIN_BACKOFF_SECONDS
    due: float = 0.0
    started: float = field(default_factory=time.monotonic)


class Stack:
    """All processes over one data folder. Use it from the main thread: its children die with that thread."""

    def __init__(self, data_dir: Path, *, otlp_endpoint: str | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self.data_dir = data_dir.resolve()
        self._say = say
        self._engines: dict[str, Child] = {}
        self._services: dict[str, Child] = {}
        self._restarts: dict[str, _Restarts] = {}
        self.peaks = Peaks()
        self._sampled = 0.0
        names = [*ENGINES, *PORTS, *(service.name for service in SERVICES if service.port)]
        self.places = Places({name: free_port() for name in names}, self.data_dir, otlp_endpoint)
        self._failed: asyncio.Future[str] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts everything; returns when all engines and RPC services are healthy.

        Raises:
            StartError: something did not come up, or a stack runs already over this folder. What was started is stopped.
        """
        refuse_running(self.data_dir)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._failed = asyncio.get_running_loop().create_future()
        try:
            await asyncio.gather(*(self._start_engine(name) for name in ENGINES))
            for database in DATABASES:
                await postgres.create_database(self.places.ports["postgres"], database)
            for service in SERVICES:
                self._start_service(service)
            self._save()
            self._watching = asyncio.create_task(self._watch())
            await asyncio.gather(*(self._healthy(service) for service in SERVICES if service.port))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops services, then engines, by their process ids."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await asyncio.gather(*(child.stop() for child in self._services.values()))
        stops = {"postgres": signal.SIGINT}
        await asyncio.gather(*(child.stop(stops.get(name, signal.SIGTERM)) for name, child in self._engines.items()))
        (self.data_dir / STATE_FILE).unlink(missing_ok=True)

    async def failure(self) -> str:
        """Waits until an engine ended, and says which: a stack without it cannot go on."""
        assert self._failed is not None
        return await asyncio.shield(self._failed)

    def kill(self, name: str) -> int:
        """Kills a service with SIGKILL, by its process id, which is returned; the watcher starts it again."""
        child = self._services[name]
        child.process.kill()
        return child.pid

    async def _start_engine(self, name: str) -> None:
        began = time.monotonic()
        self._engines[name] = await _START[name](self.data_dir / name, self.places.ports[name])
        self._say(f"{name} is up ({time.monotonic() - began:.1f} s)")

    def _start_service(self, service: Service) -> None:
        config = self.data_dir / "config" / f"{service.name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(service.settings(self.places)))
        command = [sys.executable, "-m", service.module, service.role, "--config", str(config)]
        log = self.data_dir / "logs" / f"{service.name}.log"
        self._services[service.name] = Child.start(service.name, command, log, environment=FRUGAL)
        self._restarts.setdefault(service.name, _Restarts()).started = time.monotonic()

    async def _healthy(self, service: Service) -> None:
        began = time.monotonic()
        while not await serving(self.places.address(service.name)):
            if time.monotonic() - began > HEALTHY_SECONDS:
                raise StartError(
                    f"{service.name} was not healthy within {HEALTHY_SECONDS:.0f} s; its log: {self._services[service.name].log}"
                )
            await asyncio.sleep(0.1)
        self._say(f"{service.name} is up ({time.monotonic() - began:.1f} s)")

    async def _watch(self) -> None:
        while True:
            for name, child in self._engines.items():
                if not child.alive and self._failed is not None and not self._failed.done():
                    self._failed.set_result(f"{name} ended with status {child.process.returncode}; its log: {child.log}")
            for service in SERVICES:
                self._restart_if_ended(service)
            await self._sample()
            await asyncio.sleep(WATCH_SECONDS)

    def _restart_if_ended(self, service: Service) -> None:
        child, state, now = self._services[service.name], self._restarts[service.name], time.monotonic()
        if child.alive:
            if now - state.started > STABLE_SECONDS:
                state.backoff = MIN_BACKOFF_SECONDS
            return
        if state.due == 0.0:
            state.due = now + state.backoff
            self._say(f"{service.name} ended with status {child.process.returncode}, starting it again")
        if now >= state.due:
            state.due, state.count = 0.0, state.count + 1
            state.backoff = min(state.backoff * 2, MAX_BACKOFF_SECONDS)
            self._start_service(service)
            self._save()

    async def _sample(self) -> None:
        if time.monotonic() < self._sampled + SAMPLE_SECONDS:
            return
        self._sampled = time.monotonic()
        await asyncio.to_thread(self.peaks.sample, {name: child.pid for name, child in (self._engines | self._services).items()})

    def _save(self) -> None:
        children = self._engines | self._services
        state = {
            "pid": os.getpid(),
            "addresses": self.places.addresses(),
            "lake": str(self.places.lake),
            "processes": {
                name: {"pid": child.pid, "port": self.places.ports.get(name), "log": str(child.log)} for name, child in children.items()
            },
        }
        draft = self.data_dir / f"{STATE_FILE}.draft"
        draft.write_text(json.dumps(state, indent=1))
        draft.replace(self.data_dir / STATE_FILE)


def refuse_running(data_dir: Path) -> None:
    """Raises StartError if a stack runs over the folder."""
    running = read_state(data_dir)
    if running is not None:
        raise StartError(f"a stack runs already over {data_dir} (process {running['pid']}): 'arterial down' stops it")


def read_state(data_dir: Path) -> dict[str, Any] | None:
    """The state of the stack that runs over a folder; None if none does."""
    file = data_dir / STATE_FILE
    if not file.exists():
        return None
    state: dict[str, Any] = json.loads(file.read_text())
    return state if runs(state["pid"]) else None


async def serving(address: str) -> bool:
    """True if the server at the address says that it serves."""
    stubs: Any = health_pb2_grpc
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            reply = await stubs.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def listening(port: int) -> bool:
    """True if something accepts connections at the loopback port."""
    try:
        _reader, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), 1)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
