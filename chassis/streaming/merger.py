"""The loop of a merger: partials in, whatever the service publishes out, checkpoints every minute of the log's own time."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from chassis import kafka
from chassis.config import LakeConfig
from chassis.logs import logger
from chassis.process import Context
from chassis.streaming.checkpoint import Arrays, Checkpoints
from chassis.streaming.partials import BadPartial, parse
from chassis.telemetry import TRACEPARENT, context_from
from chassis.topics import Topic
from chassis.wire import FrameError

CHECKPOINT_SECONDS = 60
# What an engine refuses is tried again: the log waits, nothing is skipped.
RETRY_SECONDS = 0.5
P = TypeVar("P", bound=Message)
E = TypeVar("E")
_log = logger(__name__)


class State(Protocol[P, E]):
    """What a service knows of one partition. `S()` begins it; it has no clock of its own, so that the same log gives the same state."""

    def merge(self, partial: P) -> E:
        """Takes a partial and returns what it led to. Raises BadPartial before anything has moved."""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state, for a checkpoint."""

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "State[P, E]":
        """The state of a checkpoint."""


@dataclass(frozen=True)
class MergerSetup(Generic[P, E]):
    """What a service brings: topic and message of its partials, its state, and what becomes of a partial.

    `publish` takes the partial, what it led to, and its offset. It is called again until it succeeds, so it must be idempotent.
    """

    partials: Topic
    message: type[P]
    state: type[State[P, E]]
    publish: Callable[[P, E, int], Awaitable[None]]


def dead_topic(partials: Topic) -> Topic:
    """Where bad partials go: `<service>_partials_dead_v1`."""
    return dataclasses.replace(partials, name=f"{partials.name.removesuffix('_v1')}_dead_v1")


class LogMerger(Generic[P, E]):
    """The `Merger` of a service: one state per partition."""

    def __init__(self, setup: MergerSetup[P, E], checkpoints: LakeConfig, producer: AIOKafkaProducer, context: Context) -> None:
        self._setup = setup
        self._checkpoints = checkpoints
        self._producer = producer
        self._context = context
        self._states: dict[int, State[P, E]] = {}
        self._saved_seconds: dict[int, int] = {}

    async def restore(self, partition: int) -> int:
        """State and offset of the newest checkpoint; a new state and 0 without one."""
        loaded = await asyncio.to_thread(self._archive(partition).load)
        self._saved_seconds.pop(partition, None)
        offset, arrays = loaded or (0, None)
        self._states[partition] = self._setup.state() if arrays is None else self._setup.state.from_arrays(arrays)
        return offset

    async def handle(self, partition: int, offset: int, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        """Takes one partial. A bad one is dead-lettered with its coordinates; everything else is tried until it is done."""
        state = self._states.setdefault(partition, self._setup.state())
        parent = context_from(headers.get(TRACEPARENT))
        with self._context.telemetry.tracer.start_as_current_span("merge", context=parent):
            try:
                partial = parse(self._setup.message, value)
                emission = state.merge(partial)
            except (BadPartial, FrameError, DecodeError) as error:
                why = str(error)
                await self._until_done(lambda: self._bury(partition, offset, value, why))
                return
            await self._until_done(lambda: self._setup.publish(partial, emission, offset))
        await self._checkpoint(partition, offset, partial, state)

    async def _bury(self, partition: int, offset: int, value: bytes | None, why: str) -> None:
        _log.error("bad partial", partition=partition, offset=offset, error=why)
        topic = self._setup.partials
        headers = [("source", f"{topic.name}#{topic.incarnation}/{partition}@{offset}".encode()), ("error", why.encode())]
        await kafka.send_all(self._producer, TopicPartition(dead_topic(topic).name, partition), [(None, value or b"")], headers)

    async def _until_done(self, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await action()
            except Exception:
                if self._context.stopping.is_set():
                    raise
                _log.exception("output failed, trying again")
                await self._context.clock.sleep(RETRY_SECONDS)

    async def _checkpoint(self, partition: int, offset: int, partial: Any, state: State[P, E]) -> None:
        now = partial.combined_at.seconds
        if now - self._saved_seconds.setdefault(partition, now) < CHECKPOINT_SECONDS:
            return
        self._saved_seconds[partition] = now
        arrays = {name: array.copy() for name, array in state.arrays().items()}
        await asyncio.to_thread(self._archive(partition).save, offset + 1, arrays)

    def _archive(self, partition: int) -> Checkpoints:
        return Checkpoints(self._checkpoints, self._setup.partials.name, self._setup.partials.incarnation, partition)
