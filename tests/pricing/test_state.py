"""Windows, merger, checkpoints: the same log gives the same outputs, whatever happens in between."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1.pricing_partial_pb2 import PricingPartial
from chassis import resourcefiles
from chassis.config import LakeConfig
from chassis.streaming.cells import CellEmission
from chassis.streaming.checkpoint import Checkpoints
from chassis.streaming.deduplication import Deduplication
from chassis.streaming.partials import BadPartial, policy_hash
from chassis.streaming.windows import Windows, coarsen, group
from services.pricing.features import AVAILABLE, MEASURES, REQUEST
from services.pricing.state import DEMAND_TOPIC, SurgeState
from services.pricing.surge import multipliers

SEED = Path(__file__).parents[2] / "deploy" / "resources" / "pricing.yaml"
POLICY: specs_pb2.PricingPolicySpec = resourcefiles.read([SEED])[0].pricing_policy
START = 1_767_225_600
Key = tuple[int, int, int, int]

keys = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 200).map(lambda second: START + second // 5 * 5), st.integers(0, 5))
counted = st.lists(st.tuples(keys, st.integers(1, 9)), max_size=20)


def columns(entries: list[tuple[Key, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and counts as arrays."""
    return np.array([key for key, _ in entries], np.int64).reshape(-1, 4), np.array([count for _, count in entries], np.int64)


def partial(entries: list[tuple[Key, int]], watermark: int, offset: int, *, with_policy: bool = True) -> PricingPartial:
    """A partial of these counts, combined at its watermark."""
    found, counts = group(*columns(entries)) if entries else (np.zeros((0, 4), np.int64), np.zeros(0, np.int64))
    made = PricingPartial(
        feature_set_version=1,
        policy_hash=policy_hash(POLICY),
        policy=POLICY.SerializeToString(deterministic=True) if with_policy else b"",
        bucket_seconds=POLICY.bucket_seconds,
        sequence=offset,
        city_ids=found[:, 0],
        cells=found[:, 1],
        bucket_start_seconds=found[:, 2],
        measures=found[:, 3],
        counts=counts,
    )
    source = made.sources.add(topic=DEMAND_TOPIC)
    source.max_event_time.FromSeconds(watermark)
    made.combined_at.FromSeconds(watermark)
    return made


def told(emission: CellEmission) -> list[object]:
    """An emission as plain values."""
    values = vars(emission) | vars(emission.taken)
    return [value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items() if name != "taken"]


@given(counted, counted)
def test_merging_is_the_same_in_any_order_and_grouping(one: list[tuple[Key, int]], other: list[tuple[Key, int]]) -> None:
    """a then b, b then a, and both at once give the same sums per cell."""
    results = []
    for parts in ([one, other], [other, one], [one + other]):
        windows = Windows(POLICY.bucket_seconds, 100, MEASURES)
        for part in parts:
            windows.add(*columns(part), oldest_allowed=0)
        sums = windows.within(START + 300, 300)
        results.append({tuple(cell): row for cell, row in zip(windows.cells.tolist(), sums.tolist(), strict=True)})
    assert results[0] == results[1] == results[2]


@given(counted, st.integers(10, 300))
def test_windows_sum_what_lies_within_them(entries: list[tuple[Key, int]], window: int) -> None:
    """Against a plain recount."""
    window -= window % POLICY.bucket_seconds
    windows = Windows(POLICY.bucket_seconds, 100, MEASURES)
    windows.add(*columns(entries), oldest_allowed=0)
    newest = max((key[2] for key, _ in entries), default=START) + POLICY.bucket_seconds
    sums = windows.within(newest, window)
    expected: Counter[tuple[int, int, int]] = Counter()
    for (city, cell, bucket, measure), count in entries:
        if bucket >= newest - window:
            expected[city, cell, measure] += count
    found = {
        (city, cell, measure): int(sums[row, measure])
        for row, (city, cell) in enumerate(windows.cells.tolist())
        for measure in range(6)
        if sums[row, measure]
    }
    assert found == dict(expected)


@given(st.lists(st.tuples(counted, st.integers(0, 60)), min_size=1, max_size=12), st.data())
@settings(deadline=None)
def test_a_restart_from_any_checkpoint_gives_the_same_outputs(log: list[tuple[list[tuple[Key, int]], int]], data: st.DataObject) -> None:
    """A worker that dies, loads a checkpoint and replays tells exactly what the undisturbed one told."""
    watermark, partials = START, []
    for offset, (entries, step) in enumerate(log):
        watermark += step
        partials.append(partial(entries, watermark, offset, with_policy=offset == 0))
    undisturbed = SurgeState()
    expected = [told(undisturbed.merge(each)) for each in partials]
    cut = data.draw(st.integers(0, len(partials)))
    first = SurgeState()
    for each in partials[:cut]:
        first.merge(each)
    with tempfile.TemporaryDirectory() as folder:
        archive = Checkpoints(LakeConfig(root=folder), "partials", 0, 3)
        archive.save(cut, first.arrays())
        loaded = archive.load()
    assert loaded is not None
    offset, arrays = loaded
    second = SurgeState.from_arrays(arrays)
    assert [told(second.merge(each)) for each in partials[offset:]] == expected[cut:]
    assert all(np.array_equal(found, second.arrays()[name]) for name, found in undisturbed.arrays().items())


@given(st.lists(st.tuples(counted, st.integers(0, 400)), min_size=1, max_size=10))
@settings(deadline=None)
def test_every_count_is_merged_or_late(log: list[tuple[list[tuple[Key, int]], int]]) -> None:
    """Nothing is dropped silently: what was not merged comes out on the late side."""
    state, watermark, given_counts, late_counts = SurgeState(), START, 0, 0
    merged_before = 0
    for offset, (entries, step) in enumerate(log):
        watermark += step
        emission = state.merge(partial(entries, watermark, offset))
        given_counts += sum(count for _, count in entries)
        late_counts += int(emission.taken.late_counts.sum())
        on_time = sum(count for (_, _, bucket, _), count in entries if bucket + 5 > watermark - 360)
        merged_before += on_time
    assert late_counts == given_counts - merged_before


def test_bad_partials_leave_the_state_alone() -> None:
    """Unknown policy, unknown feature set, columns of different length."""
    state = SurgeState()
    good = partial([((1, 1, START, REQUEST), 9)], START, 0)
    state.merge(good)
    before = {name: array.copy() for name, array in state.arrays().items()}
    wrong = [partial([], START + 9, 1, with_policy=False), partial([], START + 9, 1), partial([], START + 9, 1)]
    wrong[0].policy_hash = "other"
    wrong[1].feature_set_version = 99
    wrong[2].counts.append(1)
    for each in wrong:
        try:
            state.merge(each)
        except BadPartial:
            continue
        raise AssertionError("taken")
    assert all(np.array_equal(found, state.arrays()[name]) for name, found in before.items())


@given(st.integers(0, 500), st.integers(0, 300), st.integers(1000, 3000))
def test_multipliers_keep_cap_and_step_limit(requests: int, heartbeats: int, previous: int) -> None:
    """Whatever demand and supply are."""
    counts = np.zeros((1, 6), np.int64)
    counts[0, REQUEST], counts[0, AVAILABLE] = requests, heartbeats
    found = int(multipliers(counts, np.array([previous], np.int64), POLICY).multiplier_milli[0])
    assert 1000 <= found <= POLICY.cap_milli
    assert abs(found - previous) <= POLICY.step_limit_milli


def test_more_drivers_never_raise_and_more_requests_never_lower_the_price() -> None:
    """Monotone in both."""
    table = np.zeros((50, 6), np.int64)
    table[:, REQUEST], table[:, AVAILABLE] = 40, np.arange(50) * 20
    previous = np.full(50, 2000, np.int64)
    assert (np.diff(multipliers(table, previous, POLICY).raw_milli) <= 0).all()
    table[:, REQUEST], table[:, AVAILABLE] = np.arange(50), 60
    assert (np.diff(multipliers(table, previous, POLICY).raw_milli) >= 0).all()


def test_parents_are_those_of_the_library() -> None:
    """Bit arithmetic on whole columns agrees with H3."""
    from h3.api import basic_int

    cells = [basic_int.latlng_to_cell(lat, lon, 9) for lat in (-33.9, 0.1, 40.7, 64.1) for lon in (-151.0, -73.9, 12.5, 179.9)]
    for resolution in range(4, 10):
        expected = [basic_int.cell_to_parent(cell, resolution) for cell in cells]
        assert coarsen(np.array(cells, np.int64), resolution).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=60), st.integers(1, 12))
def test_a_repeat_is_what_came_at_most_so_many_offsets_before(arrivals: list[tuple[int, int]], reach: int) -> None:
    """Against a recount over all earlier offsets, gaps included, and whatever is forgotten in between."""
    dedup, offset = Deduplication(reach), 0
    seen: list[tuple[int, int]] = []
    for key, gap in arrivals:
        offset += gap
        expected = any(other == key and offset - earlier <= reach for other, earlier in seen)
        assert dedup.is_repeat(bytes([key]), offset) == expected
        seen.append((key, offset))
        dedup.forget_below(offset)
