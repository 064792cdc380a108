"""The online store of velocities: one Redis sorted set per account, instrument and device, of the events that its features look at.

A member is the event itself, so adding it again changes nothing: redelivery and replay are harmless by construction.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chassis.errors import ArterialError, Reason
from services.radar.features import HISTORY, HISTORY_DTYPE, SECOND_US, Entity, FeatureSet, History, Payment, evaluate

# Payments whose commands travel together: bounds what one reply holds in memory (256 events of 64 bytes for each of three entities).
CHUNK = 200
# An entity without events for longer than any window is forgotten.
SPARE_SECONDS = 86_400
# Adds the event, reads the newest ones up to its time, and trims to the longest window and to HISTORY events. Members sort by event id
# within one microsecond. Times have 16 digits, below the 53 bits that a score is exact to; Lua itself would print 14 of them.
OBSERVE = """
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
local found = {}
if ARGV[5] == '1' then
  found = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '(' .. ARGV[3], 'LIMIT', 0, tonumber(ARGV[4]) + 1)
end
local newest = tonumber(redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', newest - ARGV[6]))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(tonumber(ARGV[4]) + 2))
redis.call('EXPIRE', KEYS[1], ARGV[7])
return found
"""
# Up to when the velocities of one partition's accounts are known, and from where in the log.
_HEAD_FIELDS = ("watermark_us", "computed_us", "incarnation", "offset")
HEAD_WRITE = """
local version = redis.call('HGET', KEYS[1], 'version')
if version and version >= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'watermark_us', ARGV[2], 'computed_us', ARGV[3], 'incarnation', ARGV[4], 'offset', ARGV[5])
return 1
"""


@dataclass(frozen=True)
class Head:
    """What the velocities of a partition's accounts are up to date with: microseconds, and the partial taken last."""

    watermark_us: int
    computed_us: int
    incarnation: int
    offset: int


def digest(text: str) -> int:
    """64 bits that stand for an identifier; 0 for an absent one."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") if text else 0


def key(entity: Entity, name: str) -> str:
    """The sorted set of an entity; the tag is what it is read by."""
    return f"radar:{entity}:{{{name}}}"


def head_key(partition: int) -> str:
    """The head of a partition."""
    return f"radar:head:{{{partition}}}"


class Velocities:
    """Adds payment events and tells their features."""

    def __init__(self, redis: Redis, feature_set: FeatureSet) -> None:
        self._redis = redis
        self._set = feature_set
        self._observe = redis.register_script(OBSERVE)
        self._write_head = redis.register_script(HEAD_WRITE)

    async def observe(self, payments: Sequence[Payment], assessed_stage: int | None) -> list[list[int] | None]:
        """Adds events in their order; the features, thousandths, of those at the assessed stage, None for the others.

        Events at stages that no feature counts are not kept. Raises DEPENDENCY_UNAVAILABLE.
        """
        found: list[list[int] | None] = []
        for start in range(0, len(payments), CHUNK):
            try:
                found += await self._chunk(payments[start : start + CHUNK], assessed_stage)
            except RedisError as error:
                raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"the online store does not answer: {error}") from error
        return found

    async def _chunk(self, payments: Sequence[Payment], assessed_stage: int | None) -> list[list[int] | None]:
        pipeline = self._redis.pipeline(transaction=False)
        owns = [{entity: digest(payment.of(entity)) for entity in Entity} for payment in payments]
        asked: list[tuple[int, Entity]] = []
        for index, (payment, own) in enumerate(zip(payments, owns, strict=True)):
            if payment.stage not in self._set.stages:
                continue
            member = _member(payment, own)
            for entity in Entity:
                if own[entity]:
                    reads = int(payment.stage == assessed_stage)
                    await self._observe(
                        keys=[key(entity, payment.of(entity))], args=self._arguments(payment, member, reads), client=pipeline
                    )
                    asked.append((index, entity))
        replies: dict[tuple[int, Entity], History] = {}
        for place, reply in zip(asked, await pipeline.execute() if asked else [], strict=True):
            replies[place] = _up_to(payments[place[0]], reply)
        return [
            self._evaluate(index, payment, owns[index], replies) if payment.stage == assessed_stage else None
            for index, payment in enumerate(payments)
        ]

    def _arguments(self, payment: Payment, member: bytes, reads: int) -> list[int | bytes]:
        reach = self._set.longest_us
        return [payment.time_us, member, payment.time_us - reach, HISTORY, reads, reach, reach // SECOND_US + SPARE_SECONDS]

    def _evaluate(
        self, index: int, payment: Payment, own: Mapping[Entity, int], replies: Mapping[tuple[int, Entity], History]
    ) -> list[int]:
        nothing = np.zeros(0, HISTORY_DTYPE)
        return evaluate(self._set, payment, own, {entity: replies.get((index, entity), nothing) for entity in Entity})

    async def write_head(self, partition: int, head: Head) -> None:
        """Moves the head of a partition, unless it is further already. Raises DEPENDENCY_UNAVAILABLE."""
        version = f"{head.incarnation:010d}/{head.offset:020d}"
        arguments = [version, *(getattr(head, name) for name in _HEAD_FIELDS)]
        try:
            await self._write_head(keys=[head_key(partition)], args=arguments)
        except RedisError as error:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"the online store does not answer: {error}") from error

    async def head(self, partition: int) -> Head | None:
        """The head of a partition, if any. Raises DEPENDENCY_UNAVAILABLE."""
        try:
            values = await self._redis.hmget(head_key(partition), _HEAD_FIELDS)
        except RedisError as error:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"the online store does not answer: {error}") from error
        return None if values[0] is None else Head(*(int(value) for value in values))


class RecentHeads:
    """Reads a partition's head at most once a second: its age is judged in tens of seconds."""

    MAX_AGE_SECONDS = 1.0

    def __init__(self, velocities: Velocities) -> None:
        self._velocities = velocities
        self._read: dict[int, tuple[float, Head | None]] = {}

    async def get(self, partition: int) -> Head | None:
        """A head as of at most a second ago. Raises DEPENDENCY_UNAVAILABLE."""
        now = time.monotonic()
        began, head = self._read.get(partition, (float("-inf"), None))
        if now - began > self.MAX_AGE_SECONDS:
            head = await self._velocities.head(partition)
            self._read[partition] = now, head
        return head


def _member(payment: Payment, own: Mapping[Entity, int]) -> bytes:
    """The event in HISTORY_DTYPE, event id first: equal events are equal members."""
    values = (payment.event_id, payment.time_us, payment.stage, payment.amount, *(own[entity] for entity in Entity))
    return np.array([values], HISTORY_DTYPE).tobytes()


def _up_to(payment: Payment, members: Sequence[bytes]) -> History:
    """Events newest first as a history: oldest first, the event itself last, none after it."""
    history: History = np.frombuffer(b"".join(reversed(members)), HISTORY_DTYPE)
    later = (history["time_us"] == payment.time_us) & (history["event_id"] > np.bytes_(payment.event_id))
    known: History = history[~later]
    return known[-HISTORY:]
