"""History, fraudsters and faults of the simulator."""

from collections import Counter
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from arterial.api.events.v1.payment_event_pb2 import PaymentEvent
from simulator import faults
from simulator.columns import Events
from simulator.history import PAYMENTS, TRIPS, Calendar, History, join_days

FIRST = date(2026, 3, 2)


@pytest.fixture(scope="module")
def days() -> list[dict[str, Events]]:
    """Nine days."""
    return list(History(FIRST, 5).days(9))


def test_the_same_seed_gives_the_same_days(days: list[dict[str, Events]]) -> None:
    """To the last byte."""
    again = next(History(FIRST, 5).days(1))
    assert all(again[topic].encode(topic) == days[0][topic].encode(topic) for topic in (TRIPS, PAYMENTS))


def test_a_days_trips_lie_within_the_day(days: list[dict[str, Events]]) -> None:
    """Every market, and nothing of another UTC date, is in each day."""
    for number, day in enumerate(days):
        trips = day[TRIPS].columns
        assert set(pc.unique(trips["city_id"]).to_pylist()) == {1, 2, 3}
        for column in ("event_time", "trip_requested_at"):
            dates = pc.unique(trips[column].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)).to_pylist()
            assert dates == [date.fromordinal(FIRST.toordinal() + number)]


def test_labels_arrive_days_after_their_payments(days: list[dict[str, Events]]) -> None:
    """A charge-back names a payment that was authorised at least a day before."""
    payments = pa.table(join_days(days)[PAYMENTS].columns).select(["payment_id", "stage", "event_time"])
    labels = payments.filter(pc.equal(payments["stage"], PaymentEvent.STAGE_CHARGED_BACK))
    authorised = payments.filter(pc.equal(payments["stage"], PaymentEvent.STAGE_AUTHORISED))
    joined = labels.join(authorised, "payment_id", right_suffix="_paid")
    assert labels.num_rows > 300
    assert not joined["event_time_paid"].null_count
    delay = pc.subtract(joined["event_time"].cast(pa.int64()), joined["event_time_paid"].cast(pa.int64()))
    assert pc.min(delay).as_py() >= 86_400_000_000


def _count(events: Events, city_id: int, column: str = "city_id") -> Counter[object]:
    """Values of a column within a market."""
    table = pa.table(events.columns)
    return Counter(map(str, table.filter(pc.equal(table["city_id"], city_id))[column].to_pylist()))


@pytest.mark.parametrize("seed", range(6))
def test_a_fault_hits_its_market_alone(days: list[dict[str, Events]], seed: int) -> None:
    """Each kind changes what it says, in its market; the others are as they were, and all records can be encoded."""
    fault = faults.choose(seed)
    before = days[-1][fault.topic]
    after = faults.inject(before, fault, seed)
    assert len(after.encode(fault.topic)) == after.count
    column = fault.field or "event_id"
    for city in (1, 2, 3):
        same = _count(before, city, column) == _count(after, city, column)
        assert same == (city != fault.city_id), (str(fault), city)
    rows = _count(after, fault.city_id).total() / _count(before, fault.city_id).total()
    expected = {"halved_volume": 0.5, "stale": 0.0, "doubled_rows": 2.0}.get(fault.kind, 1.0)
    assert abs(rows - expected) < 0.05


def test_the_storys_last_day_has_ended_and_settled() -> None:
    """Just after midnight the last day is the day before yesterday."""
    assert Calendar.ending(datetime(2026, 3, 10, 12, tzinfo=UTC), 28, 3600) == Calendar(date(2026, 2, 10), date(2026, 3, 9))
    assert Calendar.ending(datetime(2026, 3, 10, 0, 30, tzinfo=UTC), 28, 3600).last == date(2026, 3, 8)
