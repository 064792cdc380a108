"""What the merger knows of one partition, and what each partial makes of it: same log, same outputs, as it has no clock of its own."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from services.pricing.features import FEATURE_SET_VERSION, MEASURES
from services.pricing.surge import ONE_MILLI, multipliers
from services.pricing.windows import Windows

DEMAND_TOPIC = "marketplace_events_v1"
# A value that did not change is told again this often, so that its archive shows that it was computed.
REFRESH_SECONDS = 10


class BadPartial(ValueError):
    """A partial that cannot be merged."""


@dataclass(frozen=True)
class Emission:
    """What a partial led to: rows of changed cells (shape (n, 2): city, cell), their values in thousandths, and cells to forget."""

    tick_seconds: int
    cells: NDArray[np.int64]
    multiplier_milli: NDArray[np.int64]
    raw_milli: NDArray[np.int64]
    demand_milli: NDArray[np.int64]
    supply_milli: NDArray[np.int64]
    gone: NDArray[np.int64]
    late_keys: NDArray[np.int64]
    late_counts: NDArray[np.int64]
    watermark_us: int
    kafka_us: int


@dataclass
class SurgeState:
    """Windows, last multipliers and watermark of one partition."""

    policy: specs_pb2.PricingPolicySpec | None = None
    policy_hash: str = ""
    windows: Windows | None = None
    watermark_us: int = 0
    tick_seconds: int = 0
    # Multipliers at the last tick, from which the step limit counts, and the latest ones; shape (n,) each.
    base: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    previous: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    # (multiplier, demand, supply, tick) as last told, shape (n, 4).
    told: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))

    def merge(self, partial: PricingPartial) -> Emission:
        """Takes a partial; the state moves, and what changed is returned.

        Raises:
            BadPartial: unknown feature set, columns of different length, or no policy yet. The state has not moved.
        """
        policy = self._checked(partial)
        if self.windows is None or self.policy_hash != partial.policy_hash:
            self._adopt(policy, partial.policy_hash)
        assert self.windows is not None
        keys, counts = columns_of(partial)
        demand = next((source for source in partial.sources if source.topic == DEMAND_TOPIC), None)
        if demand is not None and demand.HasField("max_event_time"):
            self.watermark_us = max(self.watermark_us, demand.max_event_time.ToMicroseconds())
        oldest = self.watermark_us // 1_000_000 - policy.window_seconds - policy.allowed_lateness_seconds
        late = self.windows.add(keys, counts, oldest)
        kafka_us = demand.min_kafka_time.ToMicroseconds() if demand is not None and demand.HasField("min_kafka_time") else 0
        return self._evaluate(policy, keys[late], counts[late], kafka_us)

    def _checked(self, partial: PricingPartial) -> specs_pb2.PricingPolicySpec:
        if partial.feature_set_version != FEATURE_SET_VERSION:
            raise BadPartial(f"feature set {partial.feature_set_version} is not known, this is {FEATURE_SET_VERSION}")
        lengths = {len(partial.city_ids), len(partial.cells), len(partial.bucket_start_seconds), len(partial.measures), len(partial.counts)}
        if len(lengths) != 1 or any(not 0 <= measure < MEASURES for measure in partial.measures):
            raise BadPartial("columns differ in length, or a measure is unknown")
        if partial.policy:
            policy = specs_pb2.PricingPolicySpec.FromString(partial.policy)
        elif self.policy is not None and self.policy_hash == partial.policy_hash:
            policy = self.policy
        else:
            raise BadPartial(f"policy {partial.policy_hash} is not known here")
        if policy.bucket_seconds != partial.bucket_seconds:
            raise BadPartial(f"buckets of {partial.bucket_seconds} s under a policy of {policy.bucket_seconds} s")
        return policy

    def _adopt(self, policy: specs_pb2.PricingPolicySpec, name: str) -> None:
        """A policy takes effect at the partial that carries it. Other buckets or cells begin with empty windows; last multipliers stay."""
        reach = policy.window_seconds + policy.allowed_lateness_seconds
        slots = reach // policy.bucket_seconds + 2
        same_shape = (
            self.policy is not None
            and self.windows is not None
            and (self.policy.bucket_seconds, self.policy.cell_resolution, self.windows.slots)
            == (policy.bucket_seconds, policy.cell_resolution, slots)
        )
        if not same_shape:
            self.windows = Windows(policy.bucket_seconds, slots)
            self.base = self.previous = np.zeros(0, np.int64)
            self.told = np.zeros((0, 4), np.int64)
        self.policy, self.policy_hash = policy, name

    def _evaluate(
        self, policy: specs_pb2.PricingPolicySpec, late_keys: NDArray[np.int64], late_counts: NDArray[np.int64], kafka_us: int
    ) -> Emission:
        """Multipliers after a partial; within one tick they all move from the tick's base, so the step limit holds."""
        assert self.windows is not None
        windows, seconds = self.windows, self.watermark_us // 1_000_000
        self._grow(len(windows.cells) - len(self.previous))
        tick = seconds - seconds % policy.tick_seconds
        if tick > self.tick_seconds:
            self.tick_seconds, self.base = tick, self.previous
        counts = windows.within(self.tick_seconds + policy.bucket_seconds, policy.window_seconds)
        found = multipliers(counts, self.base, policy)
        self.previous = found.multiplier_milli
        values = np.column_stack([found.multiplier_milli, found.demand_milli, found.supply_milli])
        changed = np.any(values != self.told[:, :3], axis=1) | (self.tick_seconds - self.told[:, 3] >= REFRESH_SECONDS)
        self.told[changed] = np.column_stack([values, np.full(len(values), self.tick_seconds)])[changed]
        gone = (found.multiplier_milli == ONE_MILLI) & ~windows.counts.any(axis=(1, 2))
        emission = Emission(
            self.tick_seconds,
            windows.cells[changed],
            found.multiplier_milli[changed],
            found.raw_milli[changed],
            found.demand_milli[changed],
            found.supply_milli[changed],
            windows.cells[gone],
            late_keys,
            late_counts,
            self.watermark_us,
            kafka_us,
        )
        if gone.any():
            windows.drop(gone)
            self.base, self.previous, self.told = self.base[~gone], self.previous[~gone], self.told[~gone]
        return emission

    def _grow(self, fresh: int) -> None:
        """New cells begin without surge, and untold."""
        ones = np.full(fresh, ONE_MILLI, np.int64)
        self.base, self.previous = np.concatenate([self.base, ones]), np.concatenate([self.previous, ones])
        self.told = np.concatenate([self.told, np.zeros((fresh, 4), np.int64)])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state as arrays, for a checkpoint."""
        policy = b"" if self.policy is None else self.policy.SerializeToString(deterministic=True)
        windows = self.windows or Windows(1, 1)
        return {
            "policy": np.frombuffer(policy, np.uint8),
            "policy_hash": np.frombuffer(self.policy_hash.encode(), np.uint8),
            "scalars": np.array([self.watermark_us, self.tick_seconds, windows.bucket_seconds, windows.slots, windows.newest], np.int64),
            "cells": windows.cells,
            "counts": windows.counts,
            "base": self.base,
            "previous": self.previous,
            "told": self.told,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> "SurgeState":
        """The state of a checkpoint. Raises KeyError or ValueError for arrays that are none."""
        watermark, tick, bucket, slots, newest = (int(value) for value in arrays["scalars"].tolist())
        policy = arrays["policy"].tobytes()
        return cls(
            policy=specs_pb2.PricingPolicySpec.FromString(policy) if policy else None,
            policy_hash=arrays["policy_hash"].tobytes().decode(),
            windows=Windows(bucket, slots, newest, arrays["cells"].astype(np.int64), arrays["counts"].astype(np.int64)) if policy else None,
            watermark_us=watermark,
            tick_seconds=tick,
            base=arrays["base"].astype(np.int64),
            previous=arrays["previous"].astype(np.int64),
            told=arrays["told"].astype(np.int64),
        )


def columns_of(partial: PricingPartial) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys (n, 4) and counts (n,) of a partial."""
    columns = [partial.city_ids, partial.cells, partial.bucket_start_seconds, partial.measures]
    keys = np.column_stack([np.fromiter(column, np.int64, len(column)) for column in columns])
    return keys, np.fromiter(partial.counts, np.int64, len(partial.counts))
