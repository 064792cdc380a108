"""What a merger knows of one partition's cells: windows, policy, watermark, tick. It has no clock of its own: same log, same state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from chassis.streaming.partials import BUCKET, CELLS, CITIES, COUNTS, MEASURES, BadPartial, policy_in_force
from chassis.streaming.windows import Sums, Windows

# A value that did not change is told again this often, so that its archive shows that it was computed.
REFRESH_SECONDS = 10
Policy = TypeVar("Policy", bound=Message)
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class CellForm(Generic[Policy]):
    """What a service's cells are made of: message of its policy, its measures, and the topic whose event times move the watermark."""

    policy: type[Policy]
    feature_set_version: int
    measures: int
    clock_topic: str


@dataclass(frozen=True)
class Taken:
    """What a partial did: `fresh` if windows began anew, `ticked` if the tick moved on, and what came too late, (n, 4) and (n,)."""

    fresh: bool
    ticked: bool
    late_keys: NDArray[np.int64]
    late_counts: NDArray[np.int64]
    watermark_us: int
    kafka_us: int


@dataclass
class CellState(Generic[Policy]):
    """Windows, watermark and tick of one partition, under the policy in force."""

    form: CellForm[Policy]
    policy: Policy | None = None
    policy_hash: str = ""
    windows: Windows = field(default_factory=lambda: Windows(1, 1, 1))
    watermark_us: int = 0
    tick_seconds: int = 0

    def take(self, partial: Any) -> Taken:
        """Adds a partial's sums to the windows; watermark and tick follow from the partial.

        Raises:
            BadPartial: unknown feature set, columns of different length, or no policy yet. The state has not moved.
        """
        policy, (keys, counts) = self._checked(partial)
        fresh = self.policy_hash != partial.policy_hash and self._adopt(policy, partial.policy_hash)
        clock = next((source for source in partial.sources if source.topic == self.form.clock_topic), None)
        if clock is not None and clock.HasField("max_event_time"):
            self.watermark_us = max(self.watermark_us, clock.max_event_time.ToMicroseconds())
        seconds = self.watermark_us // 1_000_000
        late = self.windows.add(keys, counts, seconds - policy.window_seconds - policy.allowed_lateness_seconds)
        tick = seconds - seconds % policy.tick_seconds
        ticked = tick > self.tick_seconds
        self.tick_seconds = max(tick, self.tick_seconds)
        kafka_us = clock.min_kafka_time.ToMicroseconds() if clock is not None and clock.HasField("min_kafka_time") else 0
        return Taken(fresh, ticked, keys[late], counts[late], self.watermark_us, kafka_us)

    def within(self) -> NDArray[np.int64]:
        """Sums of every cell over the window that ends with the tick's bucket; shape (n, measures)."""
        policy: Any = self.policy
        return self.windows.within(self.tick_seconds + policy.bucket_seconds, policy.window_seconds)

    def _checked(self, partial: Any) -> tuple[Any, Sums]:
        known = self.policy if self.policy_hash == partial.policy_hash else None
        policy: Any = policy_in_force(partial, self.form.policy, known, self.form.feature_set_version)
        if policy.bucket_seconds != partial.bucket_seconds:
            raise BadPartial(f"buckets of {partial.bucket_seconds} s under a policy of {policy.bucket_seconds} s")
        columns = [getattr(partial, name) for name in (CITIES, CELLS, BUCKET, MEASURES, COUNTS)]
        if len({len(column) for column in columns}) != 1:
            raise BadPartial("columns differ in length")
        table = np.column_stack([np.fromiter(column, np.int64, len(column)) for column in columns])
        if ((table[:, 3] < 0) | (table[:, 3] >= self.form.measures)).any():
            raise BadPartial("a measure is unknown")
        return policy, (table[:, :4], table[:, 4])

    def _adopt(self, policy: Any, name: str) -> bool:
        """A policy takes effect at the partial that carries it; whether windows begin anew, as they do for other buckets or cells."""
        before: Any = self.policy
        slots = (policy.window_seconds + policy.allowed_lateness_seconds) // policy.bucket_seconds + 2
        shape = (policy.bucket_seconds, policy.cell_resolution, slots)
        fresh = before is None or (before.bucket_seconds, before.cell_resolution, self.windows.slots) != shape
        if fresh:
            self.windows = Windows(policy.bucket_seconds, slots, self.form.measures)
        self.policy, self.policy_hash = policy, name
        return fresh

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state as arrays, for a checkpoint."""
        policy = b"" if self.policy is None else self.policy.SerializeToString(deterministic=True)
        windows = self.windows
        return {
            "policy": np.frombuffer(policy, np.uint8),
            "policy_hash": np.frombuffer(self.policy_hash.encode(), np.uint8),
            "scalars": np.array([self.watermark_us, self.tick_seconds, windows.bucket_seconds, windows.slots, windows.newest], np.int64),
            "cells": windows.cells,
            "counts": windows.counts,
        }

    @classmethod
    def from_arrays(cls, form: CellForm[Policy], arrays: Arrays) -> "CellState[Policy]":
        """The state of a checkpoint. Raises KeyError or ValueError for arrays that are none."""
        watermark, tick, bucket, slots, newest = (int(value) for value in arrays["scalars"].tolist())
        policy = arrays["policy"].tobytes()
        if not policy:
            return cls(form)
        windows = Windows(bucket, slots, form.measures, newest, arrays["cells"].astype(np.int64), arrays["counts"].astype(np.int64))
        return cls(form, form.policy.FromString(policy), arrays["policy_hash"].tobytes().decode(), windows, watermark, tick)


@dataclass
class Told:
    """Values of each cell as last told, and the tick of that, shape (n, values + 1): what did not change is told only now and then."""

    last: NDArray[np.int64]

    def changed(self, values: NDArray[np.int64], tick_seconds: int) -> NDArray[np.bool_]:
        """Which cells are to be told again, shape (n,); they count as told. Rows beyond those known are new cells."""
        unknown = np.zeros((len(values) - len(self.last), self.last.shape[1]), np.int64)
        self.last = np.concatenate([self.last, unknown])
        changed = np.any(values != self.last[:, :-1], axis=1) | (tick_seconds - self.last[:, -1] >= REFRESH_SECONDS)
        self.last[changed] = np.column_stack([values, np.full(len(values), tick_seconds)])[changed]
        return np.asarray(changed, bool)
