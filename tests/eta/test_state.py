"""Live speeds from sums; the same log gives the same outputs, whatever happens in between."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from h3.api import basic_int
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.eta.v1alpha1.eta_partial_pb2 import EtaPartial
from arterial.api.events.v1.gps_ping_pb2 import GpsPing
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis import resourcefiles
from chassis.config import LakeConfig
from chassis.streaming.cells import CellEmission
from chassis.streaming.checkpoint import Checkpoints
from chassis.streaming.partials import BadPartial, policy_hash
from chassis.streaming.windows import group
from services.eta.speeds import PINGS, SOURCES, SPEED, TRIP_METRES, TRIP_SECONDS, speeds
from services.eta.state import CLOCK_TOPIC, SpeedState

SEED = Path(__file__).parents[2] / "deploy" / "resources" / "eta.yaml"
POLICY: specs_pb2.EtaPolicySpec = next(each for each in resourcefiles.read([SEED]) if each.kind == "EtaPolicy").eta_policy
START = 1_767_225_600
CELL = basic_int.latlng_to_cell(40.7559, -73.9870, 9)
Entry = tuple[tuple[int, int, int, int], int]

places = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 700).map(lambda second: START + second // 30 * 30))
entries = st.lists(st.tuples(st.tuples(places, st.integers(0, 3)).map(lambda pair: (*pair[0], pair[1])), st.integers(1, 9000)), max_size=20)
logs = st.lists(st.tuples(entries, st.integers(0, 60)), min_size=1, max_size=12)


def partial(found: list[Entry], now: int, *, with_policy: bool = True, policy: specs_pb2.EtaPolicySpec = POLICY) -> EtaPartial:
    """A partial of these sums, combined at its watermark."""
    keys, amounts = group(np.array([key for key, _ in found], np.int64).reshape(-1, 4), np.array([amount for _, amount in found], np.int64))
    made = EtaPartial(
        feature_set_version=1,
        policy_hash=policy_hash(policy),
        policy=policy.SerializeToString(deterministic=True) if with_policy else b"",
        bucket_seconds=POLICY.bucket_seconds,
        city_ids=keys[:, 0],
        cells=keys[:, 1],
        bucket_start_seconds=keys[:, 2],
        measures=keys[:, 3],
        counts=amounts,
    )
    made.sources.add(topic=CLOCK_TOPIC).max_event_time.FromSeconds(now)
    made.combined_at.FromSeconds(now)
    return made


def told(emission: CellEmission) -> list[object]:
    """An emission as plain values."""
    values = vars(emission) | vars(emission.taken)
    return [value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items() if name != "taken"]


@given(logs, st.data())
@settings(deadline=None)
def test_a_restart_from_any_checkpoint_gives_the_same_outputs(log: list[tuple[list[Entry], int]], data: st.DataObject) -> None:
    """A worker that dies, loads a checkpoint and replays tells exactly what the undisturbed one told."""
    now, partials = START, []
    for number, (found, step) in enumerate(log):
        now += step
        partials.append(partial(found, now, with_policy=number == 0))
    undisturbed = SpeedState()
    expected = [told(undisturbed.merge(each)) for each in partials]
    cut = data.draw(st.integers(0, len(partials)))
    first = SpeedState()
    for each in partials[:cut]:
        first.merge(each)
    with tempfile.TemporaryDirectory() as folder:
        archive = Checkpoints(LakeConfig(root=folder), "partials", 0, 3)
        archive.save(cut, first.arrays())
        loaded = archive.load()
    assert loaded is not None
    second = SpeedState.from_arrays(loaded[1])
    assert [told(second.merge(each)) for each in partials[cut:]] == expected[cut:]
    assert all(np.array_equal(found, second.arrays()[name]) for name, found in undisturbed.arrays().items())


@given(logs, st.integers(0, 12))
@settings(deadline=None)
def test_every_amount_is_merged_or_late_and_what_readers_hold_is_what_is_known(log: list[tuple[list[Entry], int]], change: int) -> None:
    """Late sums come out on the late side; a reader that applies every change holds exactly the known cells of the last evaluation.

    The resolution of the cells changes on the way: what was told of the former cells is taken back.
    """
    finer = specs_pb2.EtaPolicySpec()
    finer.CopyFrom(POLICY)
    finer.cell_resolution = 9
    state, now = SpeedState(), START
    held: set[tuple[int, ...]] = set()
    late = given_amount = on_time = 0
    for number, (found, step) in enumerate(log):
        now += step
        emission = state.merge(partial(found, now, policy=POLICY if number < change else finer))
        late += int(emission.taken.late_counts.sum())
        given_amount += sum(amount for _, amount in found)
        reach = now - POLICY.window_seconds - POLICY.allowed_lateness_seconds
        on_time += sum(amount for (*_, bucket, _), amount in found if bucket + POLICY.bucket_seconds > reach)
        held = (held | {tuple(cell) for cell in emission.cells.tolist()}) - {tuple(cell) for cell in emission.gone.tolist()}
    assert late == given_amount - on_time
    remembered = state.cells.windows.cells[: len(state.told.last)][state.told.last[:, 0] > 0]
    assert held == {tuple(cell) for cell in remembered.tolist()}


def test_bad_partials_leave_the_state_alone() -> None:
    """Unknown policy, unknown feature set, columns of different length, unknown measure, other buckets."""
    state = SpeedState()
    state.merge(partial([((1, 1, START, PINGS), 9)], START))
    before = {name: array.copy() for name, array in state.arrays().items()}
    wrong = [partial([((1, 1, START, PINGS), 1)], START + 9) for _ in range(5)]
    wrong[0].policy, wrong[0].policy_hash = b"", "other"
    wrong[1].feature_set_version = 99
    wrong[2].counts.append(1)
    wrong[3].measures[0] = 4
    wrong[4].bucket_seconds = 7
    for each in wrong:
        with pytest.raises(BadPartial):
            state.merge(each)
    assert all(np.array_equal(found, state.arrays()[name]) for name, found in before.items())


def sums(**amounts: int) -> NDArray[np.int64]:
    """Sums of one cell, by measure."""
    table = np.zeros((1, 4), np.int64)
    for name, index in (("speed", SPEED), ("pings", PINGS), ("seconds", TRIP_SECONDS), ("metres", TRIP_METRES)):
        table[0, index] = amounts.get(name, 0)
    return table


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (sums(pings=20, speed=20 * 4000), (True, 2000, 4000, 20)),
        (sums(pings=20, speed=20 * 4000, seconds=600, metres=600), (True, 2000, 4000, 20)),
        (sums(pings=5, speed=5 * 8000, seconds=495, metres=3960), (True, 1000, 8000, 5)),
        (sums(pings=9, speed=9 * 8000), (False, 0, 0, 0)),
        (sums(pings=10), (True, POLICY.ratio_cap_milli, 0, 10)),
        (sums(pings=10, speed=10 * 70_000), (True, 1_000_000 // POLICY.ratio_cap_milli, 70_000, 10)),
    ],
    ids=["pings", "pings win over trips", "trips help out", "too few", "standstill", "race"],
)
def test_speed_and_ratio_of_a_cell(table: NDArray[np.int64], expected: tuple[bool, int, int, int]) -> None:
    """Known, ratio, speed and observations, by hand."""
    found = speeds(table, POLICY)
    assert (bool(found.known[0]), *(int(value[0]) for value in (found.ratio_milli, found.speed_mmps, found.observations))) == expected


def batch(**columns: list[object]) -> pa.RecordBatch:
    """Events in one cell and second, with these columns."""
    count = len(next(iter(columns.values())))
    common = {"city_id": [1] * count, "event_time": pa.array([START * 1_000_000] * count, pa.timestamp("us", "UTC"))}
    return pa.RecordBatch.from_pydict(common | columns)


def test_pings_of_moving_drivers_with_possible_speeds_count() -> None:
    """The others are counted as ignored: waiting drivers, impossible or absent speeds, no cell."""
    on_trip, waiting = GpsPing.DRIVER_STATE_ON_TRIP, GpsPing.DRIVER_STATE_AVAILABLE
    pings = batch(
        cell=[CELL, CELL, CELL, CELL, CELL, 0],
        driver_state=[on_trip, GpsPing.DRIVER_STATE_TO_PICKUP, waiting, on_trip, on_trip, on_trip],
        speed_mps=[8.0004, 0.0, 8.0, float("nan"), 900.0, 8.0],
    )
    (keys, amounts), ignored = SOURCES[0].sums(pings, POLICY)
    parent = basic_int.cell_to_parent(CELL, 8)
    found = dict(zip(map(tuple, group(keys, amounts)[0].tolist()), group(keys, amounts)[1].tolist(), strict=True))
    assert found == {(1, parent, START, SPEED): 8000, (1, parent, START, PINGS): 2}
    assert ignored == 4


def test_completed_trips_with_possible_values_count() -> None:
    """Time and distance of those alone; the others are counted as ignored."""
    done = TripEvent.STATUS_COMPLETED
    trips = batch(
        pickup_cell=[CELL] * 4,
        status=[done, TripEvent.STATUS_STARTED, done, done],
        duration_seconds=[600, 600, 0, 600],
        distance_m=[3000, 3000, 3000, -1],
    )
    (keys, amounts), ignored = SOURCES[1].sums(trips, POLICY)
    assert sorted(zip(keys[:, 3].tolist(), amounts.tolist(), strict=True)) == [(TRIP_SECONDS, 600), (TRIP_METRES, 3000)]
    assert ignored == 3
