"""Sliding windows of one declared feature over one partition of its topic. Arrays only: no Kafka, no Redis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from chassis.expressions import Expression, ExpressionError, parse_condition

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
DEFAULT_BUCKET_SECONDS = 10
SECOND_US = 1_000_000
TIME = "event_time"
COUNT, SUM, MEAN = specs_pb2.AGGREGATE_FUNCTION_COUNT, specs_pb2.AGGREGATE_FUNCTION_SUM, specs_pb2.AGGREGATE_FUNCTION_MEAN
MIN, MAX = specs_pb2.AGGREGATE_FUNCTION_MIN, specs_pb2.AGGREGATE_FUNCTION_MAX
# How the amounts of one bucket become one, and what is there before the first.
_MERGES: Mapping[specs_pb2.AggregateFunction.ValueType, tuple[Callable[..., None], float]] = {
    COUNT: (np.add.at, 0.0),
    SUM: (np.add.at, 0.0),
    MEAN: (np.add.at, 0.0),
    MIN: (np.minimum.at, np.inf),
    MAX: (np.maximum.at, -np.inf),
}


@dataclass(frozen=True)
class Feature:
    """A declared feature, ready to be computed."""

    name: str
    spec: specs_pb2.FeatureSpec

    @cached_property
    def bucket_us(self) -> int:
        """Granularity of its windows, microseconds."""
        return int(self.spec.bucket_seconds or DEFAULT_BUCKET_SECONDS) * SECOND_US

    @cached_property
    def reach_us(self) -> int:
        """How far back an event may lie and still count."""
        return (max(self.spec.windows_seconds) + self.spec.grace_seconds) * SECOND_US

    @cached_property
    def condition(self) -> Expression:
        """Which events count. Raises ExpressionError."""
        return parse_condition(self.spec.filter)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of its values: an aggregate in a window, for example `rides_300s`; windows change fastest."""
        return tuple(f"{aggregate.name}_{window}s" for aggregate in self.spec.aggregates for window in self.spec.windows_seconds)


@dataclass(frozen=True)
class Values:
    """Values of keys: shape (keys, fields), NaN where a window has nothing to aggregate."""

    keys: list[str]
    values: Floats


class FeatureWindows:
    """Buckets of the events by key; a window is the sum of its buckets.

    A row of `_rows` is a bucket of a key: (index of the key, bucket number); `_amounts` has its amounts, shape (rows, aggregates), and
    `_counts` how many events each stands for.
    """

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._keys: dict[str, int] = {}
        width = len(feature.spec.aggregates)
        self._rows: Integers = np.zeros((0, 2), np.int64)
        self._amounts: Floats = np.zeros((0, width))
        self._counts: Integers = np.zeros((0, width), np.int64)
        self._told: dict[str, bytes] = {}
        self.as_of_us = 0

    def add(self, events: pa.RecordBatch) -> int:
        """Takes events in; returns how many came later than the grace allows, and do not count.

        Raises:
            ExpressionError: the events lack a column that the feature names, or it is of a type that cannot be aggregated.
        """
        events = events.filter(self._feature.condition.mask(events))
        if not events.num_rows:
            return 0
        times = np.asarray(events[TIME].cast(pa.int64()), np.int64)
        # What counts as late was decided by what came before: a batch of any size gives the same.
        newest = np.maximum.accumulate(np.concatenate([[self.as_of_us], times]))[:-1]
        late = times < newest - int(self._feature.spec.grace_seconds) * SECOND_US
        self.as_of_us = max(self.as_of_us, int(times.max()))
        if late.any():
            events, times = events.filter(pa.array(~late)), times[~late]
        self._merge(self._key_indexes(events), times // self._feature.bucket_us, *self._amounts_of(events))
        return int(late.sum())

    def advance(self, as_of_us: int) -> None:
        """Time goes on without events."""
        self.as_of_us = max(self.as_of_us, as_of_us)

    def changes(self) -> Values:
        """Values that differ from those of the call before."""
        self._forget()
        values = self._windows()
        changed = [(key, row) for key, index in self._keys.items() if self._told.get(key) != (row := values[index]).tobytes()]
        self._told |= {key: row.tobytes() for key, row in changed}
        empty = np.zeros((0, len(self._feature.fields)))
        return Values([key for key, _ in changed], np.stack([row for _, row in changed]) if changed else empty)

    def untold(self) -> None:
        """What was told did not arrive: all values are told again."""
        self._told.clear()

    def _key_indexes(self, events: pa.RecordBatch) -> Integers:
        encoded = pc.dictionary_encode(_column(events, self._feature.spec.key).cast(pa.string()).fill_null(""))
        known = [self._keys.setdefault(key, len(self._keys)) for key in encoded.dictionary.to_pylist()]
        return np.array(known, np.int64)[np.asarray(encoded.indices, np.int64)] if known else np.zeros(0, np.int64)

    def _amounts_of(self, events: pa.RecordBatch) -> tuple[Floats, Integers]:
        """Amount of every event for every aggregate, shape (n, aggregates), and whether it has one."""
        amounts, counts = [], []
        for aggregate in self._feature.spec.aggregates:
            if aggregate.function == COUNT:
                amounts.append(np.ones(events.num_rows))
                counts.append(np.ones(events.num_rows, np.int64))
                continue
            column = _column(events, aggregate.column)
            try:
                found = column.cast(pa.float64(), safe=False)
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
                raise ExpressionError(f"{aggregate.column} is of type {column.type}, which cannot be aggregated") from error
            there = np.asarray(pc.is_valid(found).to_numpy(zero_copy_only=False))
            neutral = _MERGES[aggregate.function][1]
            amounts.append(np.where(there, found.fill_null(0).to_numpy(zero_copy_only=False), neutral))
            counts.append(there.astype(np.int64))
        return np.column_stack(amounts), np.column_stack(counts)

    def _merge(self, keys: Integers, buckets: Integers, amounts: Floats, counts: Integers) -> None:
        rows = np.concatenate([self._rows, np.column_stack([keys, buckets])])
        self._rows, places = np.unique(rows, axis=0, return_inverse=True)
        self._amounts = self._merged(places.ravel(), np.concatenate([self._amounts, amounts]), len(self._rows))
        total = np.zeros((len(self._rows), counts.shape[1]), np.int64)
        np.add.at(total, places.ravel(), np.concatenate([self._counts, counts]))
        self._counts = total

    def _merged(self, places: Integers, amounts: Floats, size: int) -> Floats:
        merged = np.empty((size, amounts.shape[1]))
        for index, aggregate in enumerate(self._feature.spec.aggregates):
            merge, neutral = _MERGES[aggregate.function]
            merged[:, index] = neutral
            merge(merged[:, index], places, amounts[:, index])
        return merged

    def _windows(self) -> Floats:
        """Values of all keys, shape (keys, fields)."""
        last = self.as_of_us // self._feature.bucket_us
        found = []
        for index, aggregate in enumerate(self._feature.spec.aggregates):
            for window in self._feature.spec.windows_seconds:
                within = self._rows[:, 1] > last - window * SECOND_US // self._feature.bucket_us
                keys = self._rows[within, 0]
                merge, neutral = _MERGES[aggregate.function]
                value = np.full(len(self._keys), neutral)
                merge(value, keys, self._amounts[within, index])
                count = np.bincount(keys, self._counts[within, index], len(self._keys))
                if aggregate.function == MEAN:
                    value = np.divide(value, count, out=np.zeros(len(value)), where=count > 0)
                found.append(value if aggregate.function in (COUNT, SUM) else np.where(count > 0, value, np.nan))
        return np.column_stack(found)

    def _forget(self) -> None:
        """Drops buckets that no window reaches, and keys whose values are told and without any bucket left."""
        oldest = (self.as_of_us - self._feature.reach_us) // self._feature.bucket_us
        stays = self._rows[:, 1] >= oldest
        gone = set(range(len(self._keys))) - set(np.unique(self._rows[:, 0]).tolist())
        if gone:
            kept = [key for key, index in self._keys.items() if index not in gone]
            moved = np.full(len(self._keys), -1, np.int64)
            moved[[self._keys[key] for key in kept]] = np.arange(len(kept))
            self._told = {key: told for key, told in self._told.items() if key in set(kept)}
            self._keys = {key: index for index, key in enumerate(kept)}
            self._rows = np.column_stack([moved[self._rows[:, 0]], self._rows[:, 1]])
        self._rows, self._amounts, self._counts = self._rows[stays], self._amounts[stays], self._counts[stays]


def _column(events: pa.RecordBatch, name: str) -> pa.Array:
    if name not in events.schema.names:
        raise ExpressionError(f"events have no column {name}; there are {', '.join(events.schema.names)}")
    return events[name]
