"""Sliding windows of declared features, against the definition computed event by event."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arterial.api.controlplane.v1 import specs_pb2
from chassis.expressions import ExpressionError
from chassis.features.windows import COUNT, MAX, MEAN, MIN, SECOND_US, SUM, Feature, FeatureWindows

GRACE, BUCKET, WINDOWS = 20, 5, (10, 60)
FUNCTIONS = {"rides": COUNT, "total": SUM, "mean": MEAN, "least": MIN, "most": MAX}
# key, seconds, amount (None: absent)
Event = tuple[str, int, int | None]
EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1000, 1300), st.none() | st.integers(-9, 9)), max_size=40)


def feature(condition: str = "") -> Feature:
    """All aggregates of `amount` in two windows."""
    aggregates = [
        specs_pb2.FeatureAggregate(name=name, function=function, column="" if function == COUNT else "amount")
        for name, function in FUNCTIONS.items()
    ]
    spec = specs_pb2.FeatureSpec(
        key="key", filter=condition, aggregates=aggregates, windows_seconds=WINDOWS, bucket_seconds=BUCKET, grace_seconds=GRACE
    )
    return Feature("f", spec)


def batch(events: Sequence[Event]) -> pa.RecordBatch:
    """Events as columns."""
    times = pa.array([seconds * SECOND_US for _, seconds, _ in events], pa.timestamp("us", "UTC"))
    return pa.RecordBatch.from_arrays(
        [pa.array([key for key, *_ in events], pa.string()), times, pa.array([amount for *_, amount in events], pa.int64())],
        names=["key", "event_time", "amount"],
    )


def expected(events: Sequence[Event]) -> dict[str, list[float]]:
    """By the definition: what came within the grace and lies in a bucket of the window counts."""
    newest, taken = 0, list[Event]()
    for event in events:
        if event[1] >= newest - GRACE:
            taken.append(event)
        newest = max(newest, event[1])
    found = {}
    for key in {event[0] for event in taken}:
        row = []
        for function in FUNCTIONS.values():
            for window in WINDOWS:
                within = [amount for k, at, amount in taken if k == key and at // BUCKET > newest // BUCKET - window // BUCKET]
                present = [amount for amount in within if amount is not None]
                row.append(
                    {
                        COUNT: float(len(within)),
                        SUM: float(sum(present)),
                        MEAN: sum(present) / len(present) if present else math.nan,
                        MIN: min(present, default=math.nan),
                        MAX: max(present, default=math.nan),
                    }[function]
                )
        found[key] = row
    return found


@given(EVENTS, st.lists(st.integers(0, 40), max_size=4))
def test_values_are_those_of_the_definition_however_the_events_are_batched(events: list[Event], cuts: list[int]) -> None:
    """Late ones do not count, absent amounts do not either; keys without a value left are told once more, then forgotten."""
    windows, told = FeatureWindows(feature()), dict[str, list[float]]()
    bounds = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    for first, last in pairwise(bounds):
        windows.add(batch(events[first:last]))
        changed = windows.changes()
        told |= dict(zip(changed.keys, changed.values.tolist(), strict=True))
    wanted = expected(events)
    assert told.keys() == wanted.keys()
    for key, row in wanted.items():
        np.testing.assert_allclose(told[key], row)


def test_what_did_not_change_is_not_told_again_unless_it_was_lost() -> None:
    """Only changes are written."""
    windows = FeatureWindows(feature())
    windows.add(batch([("a", 1000, 1), ("b", 1000, 2)]))
    assert windows.changes().keys == ["a", "b"]
    windows.add(batch([("b", 1001, 2)]))
    assert windows.changes().keys == ["b"]
    windows.untold()
    assert windows.changes().keys == ["a", "b"]


def test_windows_empty_as_time_goes_on_without_events() -> None:
    """A count falls to zero, what has nothing to aggregate has no value; then the key is forgotten."""
    windows = FeatureWindows(feature())
    windows.add(batch([("a", 1000, 4)]))
    windows.changes()
    windows.advance(2000 * SECOND_US)
    changed = windows.changes()
    row = dict(zip(feature().fields, changed.values[0].tolist(), strict=True))
    assert (row["rides_60s"], row["total_60s"]) == (0.0, 0.0) and math.isnan(row["most_60s"])
    assert windows.changes().keys == []


def test_only_what_the_condition_holds_for_counts() -> None:
    """The filter of the declaration."""
    windows = FeatureWindows(feature("amount > 1"))
    windows.add(batch([("a", 1000, 1), ("a", 1000, 2), ("b", 1000, None)]))
    changed = windows.changes()
    assert changed.keys == ["a"] and changed.values[0, 0] == 1.0


@pytest.mark.parametrize("spec", [specs_pb2.FeatureAggregate(name="x", function=SUM, column="none"), None])
def test_a_declaration_that_does_not_fit_the_events_is_told(spec: specs_pb2.FeatureAggregate | None) -> None:
    """A column that is missing, or cannot be aggregated."""
    wrong = feature()
    del wrong.spec.aggregates[:]
    wrong.spec.aggregates.append(spec or specs_pb2.FeatureAggregate(name="x", function=SUM, column="key"))
    with pytest.raises(ExpressionError):
        FeatureWindows(wrong).add(batch([("a", 1000, 1)]))
