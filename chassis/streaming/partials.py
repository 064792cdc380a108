"""Partials: what a combiner saw of one partition of all its topics, as a record. What follows has no other clock and policy."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from google.protobuf.message import Message

from chassis.streaming.combiner import SourceState
from chassis.streaming.measures import CellSource, source_of
from chassis.streaming.windows import Sums, group
from chassis.wire import BUILTIN_IDS, FrameError, frame, split

# Columns of partials that are sums per cell: the key, in its order, then the sum.
CITIES, CELLS, BUCKET, MEASURES, COUNTS = "city_ids", "cells", "bucket_start_seconds", "measures", "counts"
P = TypeVar("P", bound=Message)
Policy = TypeVar("Policy", bound=Message)


class BadPartial(ValueError):
    """A partial that cannot be merged."""


def derived_id(*parts: object) -> bytes:
    """A UUID of version 8 from what it stands for: the same parts always give the same id."""
    octets = bytearray(hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()[:16])
    octets[6] = 0x80 | (octets[6] & 0x0F)
    octets[8] = 0x80 | (octets[8] & 0x3F)
    return bytes(octets)


def policy_hash(policy: Message) -> str:
    """What a policy is named by: SHA-256 of its deterministic serialisation, hexadecimal."""
    return hashlib.sha256(policy.SerializeToString(deterministic=True)).hexdigest()


def parse(message: type[P], value: bytes | None) -> P:
    """The partial of a record's value. Raises FrameError, or DecodeError of protobuf."""
    if value is None:
        raise FrameError("the value is null")
    schema_id, index, payload = split(value)
    if schema_id != BUILTIN_IDS[message.DESCRIPTOR.full_name] or index != (0,):
        raise FrameError(f"schema {schema_id} is not that of partials")
    return message.FromString(payload)


def policy_in_force(partial: Any, spec: type[Policy], known: Policy | None, feature_set_version: int) -> Policy:
    """The policy that a partial is to be merged under: the one that it carries, else `known`, the one already known by its hash.

    Raises:
        BadPartial: it is of another feature set, or names a policy that is not known here.
    """
    if partial.feature_set_version != feature_set_version:
        raise BadPartial(f"feature set {partial.feature_set_version} is not known, this is {feature_set_version}")
    if partial.policy:
        return spec.FromString(partial.policy)
    if known is None:
        raise BadPartial(f"policy {partial.policy_hash} is not known here")
    return known


@dataclass(frozen=True)
class PartialForm(Generic[P]):
    """Whose partials they are: their message, and what all of them say."""

    message: type[P]
    producer: str
    producer_version: str
    feature_set_version: int
    region: str


class PartialWriter(Generic[P]):
    """Begins partials with the fields that all services share; the policy is carried whole when it changed."""

    def __init__(self, form: PartialForm[P]) -> None:
        self._form = form
        self._in_force: dict[int, str] = {}

    def reset(self, partition: int) -> None:
        """The next partial of a partition carries the whole policy again."""
        self._in_force.pop(partition, None)

    def begin(self, partition: int, sources: Sequence[SourceState], policy: Any, now: float) -> P:
        """A partial without its measures. `policy` has `idle_seconds`; `now` is wall time in seconds."""
        now_us = int(now * 1e6)
        message: Any = self._form.message
        partial = message(
            event_id=derived_id(
                "partial", partition, [(state.topic.name, state.topic.incarnation, state.start, state.offset) for state in sources], now_us
            ),
            region=self._form.region,
            sequence=now_us,
            producer=self._form.producer,
            producer_version=self._form.producer_version,
            partition=partition,
            feature_set_version=self._form.feature_set_version,
            policy_hash=policy_hash(policy),
        )
        for state in sources:
            _describe(partial.sources.add(), state, now, policy.idle_seconds)
        partial.event_time.FromMicroseconds(now_us)
        partial.combined_at.CopyFrom(partial.event_time)
        if self._in_force.get(partition) != partial.policy_hash:
            partial.policy = policy.SerializeToString(deterministic=True)
            self._in_force[partition] = partial.policy_hash
        result: P = partial
        return result


def framed(partial: Message) -> bytes:
    """The value of a record."""
    return frame(BUILTIN_IDS[partial.DESCRIPTOR.full_name], partial.SerializeToString())


def _describe(source: Any, state: SourceState, now: float, idle_seconds: int) -> None:
    source.topic, source.incarnation = state.topic.name, state.topic.incarnation
    source.start_offset, source.end_offset = state.start, state.offset
    source.idle = now - state.last_record > idle_seconds
    for name in ("records", "duplicates", "future", "undecodable", "ignored"):
        setattr(source, name, getattr(state, name))
    if state.max_event_us is not None:
        source.max_event_time.FromMicroseconds(state.max_event_us)
    if state.min_kafka_us:
        source.min_kafka_time.FromMicroseconds(state.min_kafka_us)


class CellPartials(Generic[P, Policy]):
    """The `Features` of a combiner whose partials are sums per (city, cell, bucket, measure), as declared by topic."""

    def __init__(self, form: PartialForm[P], policy: Callable[[], Policy], sources: Sequence[CellSource]) -> None:
        self._writer = PartialWriter(form)
        self._policy = policy
        self._sources = sources
        self._pending: dict[int, list[Sums]] = defaultdict(list)

    def add(self, partition: int, source: SourceState, columns: pa.RecordBatch) -> int:
        """Adds events; returns how many of them count for nothing."""
        sums, ignored = source_of(self._sources, source.topic.name).sums(columns, self._policy())
        self._pending[partition].append(sums)
        return ignored

    def reset(self, partition: int) -> None:
        """Drops what is under way; the next partial carries the whole policy again."""
        self._pending.pop(partition, None)
        self._writer.reset(partition)

    def take(self, partition: int, sources: Sequence[SourceState], now: float) -> bytes:
        """The framed partial."""
        policy: Any = self._policy()
        partial: Any = self._writer.begin(partition, sources, policy, now)
        pending = self._pending.pop(partition, None) or [(np.zeros((0, 4), np.int64), np.zeros(0, np.int64))]
        keys, counts = group(*(np.concatenate(parts) for parts in zip(*pending, strict=True)))
        partial.bucket_seconds = policy.bucket_seconds
        for column, values in zip((CITIES, CELLS, BUCKET, MEASURES, COUNTS), (*keys.T, counts), strict=True):
            getattr(partial, column).extend(values.tolist())
        return framed(partial)
