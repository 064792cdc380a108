"""Partials: what a combiner saw of one partition, as a record."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis.streaming.combiner import SourceState
from chassis.wire import BUILTIN_IDS, frame
from services.pricing.features import FEATURE_SET_VERSION, group, keys_of

PRODUCER, VERSION = "pricing-combine", "1"
SCHEMA_ID = BUILTIN_IDS["arterial.api.pricing.v1.PricingPartial"]


def derived_id(*parts: object) -> bytes:
    """A UUID of version 8 from what it stands for: the same parts always give the same id."""
    octets = bytearray(hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()[:16])
    octets[6] = 0x80 | (octets[6] & 0x0F)
    octets[8] = 0x80 | (octets[8] & 0x3F)
    return bytes(octets)


def policy_hash(policy: specs_pb2.PricingPolicySpec) -> str:
    """What a policy is named by: SHA-256 of its deterministic serialisation, hexadecimal."""
    return hashlib.sha256(policy.SerializeToString(deterministic=True)).hexdigest()


class SurgePartials:
    """The `Features` of the surge combiner: buckets of counts per partition."""

    def __init__(self, policy: Callable[[], specs_pb2.PricingPolicySpec], region: str) -> None:
        self._policy = policy
        self._region = region
        self._pending: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
        self._in_force: dict[int, str] = {}

    def add(self, partition: int, source: SourceState, columns: pa.RecordBatch) -> int:
        """Adds events; returns how many of them count for nothing."""
        keys = keys_of(columns, self._policy())
        self._pending[partition].append(keys)
        return int(columns.num_rows - len(keys))

    def reset(self, partition: int) -> None:
        """Drops what is under way; the next partial carries the whole policy again."""
        self._pending.pop(partition, None)
        self._in_force.pop(partition, None)

    def take(self, partition: int, sources: Sequence[SourceState], now: float) -> bytes:
        """The framed partial."""
        policy = self._policy()
        pending = self._pending.pop(partition, [])
        keys, counts = group(np.concatenate(pending) if pending else np.zeros((0, 4), np.int64))
        ranges = [(state.topic.name, state.topic.incarnation, state.start, state.offset) for state in sources]
        partial = PricingPartial(
            event_id=derived_id("partial", partition, ranges, int(now * 1e6)),
            region=self._region,
            sequence=int(now * 1e6),
            producer=PRODUCER,
            producer_version=VERSION,
            partition=partition,
            feature_set_version=FEATURE_SET_VERSION,
            policy_hash=policy_hash(policy),
            sources=[_source(state, now, policy.idle_seconds) for state in sources],
            bucket_seconds=policy.bucket_seconds,
            city_ids=keys[:, 0],
            cells=keys[:, 1],
            bucket_start_seconds=keys[:, 2],
            measures=keys[:, 3],
            counts=counts,
        )
        partial.event_time.FromMicroseconds(int(now * 1e6))
        partial.combined_at.CopyFrom(partial.event_time)
        if self._in_force.get(partition) != partial.policy_hash:
            partial.policy = policy.SerializeToString(deterministic=True)
            self._in_force[partition] = partial.policy_hash
        return frame(SCHEMA_ID, partial.SerializeToString())


def _source(state: SourceState, now: float, idle_seconds: int) -> PricingPartial.Source:
    source = PricingPartial.Source(
        topic=state.topic.name,
        incarnation=state.topic.incarnation,
        start_offset=state.start,
        end_offset=state.offset,
        idle=now - state.last_record > idle_seconds,
        records=state.records,
        duplicates=state.duplicates,
        future=state.future,
        undecodable=state.undecodable,
        ignored=state.ignored,
    )
    if state.max_event_us is not None:
        source.max_event_time.FromMicroseconds(state.max_event_us)
    if state.min_kafka_us:
        source.min_kafka_time.FromMicroseconds(state.min_kafka_us)
    return source
