"""Curated tables: deduplication without limit, dates, trips by order; with resends, restarts and zombies in any order."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.config import LakeConfig
from chassis.lake import Step, Superseded, Table
from services.ingestion.commits import RemovalError
from services.ingestion.curated import Curated
from services.ingestion.trips import TRIPS, latest_trips, merge_trips
from tests.ingestion.raw_tables import KAFKA_US, RawFeeder, feeder, rows_of

DAY_US = 86_400_000_000


def events(lake: LakeConfig) -> list[tuple[str, bytes]]:
    """(event_date, event_id) of the curated table, sorted."""
    return sorted((row["event_date"], row["event_id"]) for row in rows_of(lake, "curated/trip_events_v2"))


def follow_all(curated: Curated) -> None:
    """Steps until nothing is left."""
    while curated.step():
        pass


def test_a_resend_is_one_row_however_late_it_comes(lake_config: LakeConfig) -> None:
    """A resend 40 days after the event lies under "unknown" by its own clock, but its first arrival is found; and the reverse."""
    raw = feeder(lake_config)
    curated = Curated(lake_config, raw.topic)
    raw.append([(b"a", KAFKA_US, KAFKA_US)])
    follow_all(curated)
    raw.append([(b"a", KAFKA_US, KAFKA_US + 40 * DAY_US), (b"b", KAFKA_US, KAFKA_US + 40 * DAY_US)])
    follow_all(curated)
    raw.append([(b"b", KAFKA_US, KAFKA_US)])
    follow_all(curated)
    assert events(lake_config) == [("2023-11-14", b"a" * 16), ("unknown", b"b" * 16)]


@pytest.mark.parametrize(
    ("distance_us", "date"),
    [(DAY_US, "2023-11-15"), (DAY_US + 1, "unknown"), (-30 * DAY_US, "2023-10-15"), (-30 * DAY_US - 1, "unknown")],
)
def test_a_live_event_far_from_its_kafka_time_has_no_date(lake_config: LakeConfig, distance_us: int, date: str) -> None:
    """More than 1 day ahead or 30 days behind is "unknown"."""
    raw = feeder(lake_config)
    raw.append([(b"a", KAFKA_US + distance_us, KAFKA_US)])
    follow_all(Curated(lake_config, raw.topic))
    assert events(lake_config) == [(date, b"a" * 16)]


def test_files_keep_their_dates(lake_config: LakeConfig) -> None:
    """A backfilled file is exempt, however old its events are."""
    raw = feeder(lake_config, source="file:abc")
    raw.append([(b"a", KAFKA_US - 3000 * DAY_US, KAFKA_US)])
    follow_all(Curated(lake_config, raw.topic))
    assert events(lake_config)[0][0] == str((datetime(2023, 11, 14, tzinfo=UTC) - timedelta(days=3000)).date())


def test_events_one_microsecond_apart_are_two(lake_config: LakeConfig) -> None:
    """The key is exact, although statistics of files are in milliseconds."""
    raw = feeder(lake_config)
    curated = Curated(lake_config, raw.topic)
    for time_us in (KAFKA_US + 999_999, KAFKA_US + 999_998, KAFKA_US + 999_999):
        raw.append([(b"a", time_us, KAFKA_US)])
        follow_all(curated)
    assert len(events(lake_config)) == 2


def test_events_that_change_no_trip_move_the_progress(lake_config: LakeConfig) -> None:
    """An event older than what the trip has changes no row, but is not taken again and again."""
    raw = feeder(lake_config)
    curated = Curated(lake_config, raw.topic)
    raw.append_trips([(1, 2)])
    follow_all(curated)
    version = raw.append_trips([(1, 1)])
    follow_all(Curated(lake_config, raw.topic))
    trips = Table.open(lake_config, TRIPS)
    assert trips is not None and trips.progress("raw/trip_events_v2") == version
    assert [row["sequence"] for row in rows_of(lake_config, TRIPS)] == [2]


def test_dead_rows_move_the_progress(lake_config: LakeConfig) -> None:
    """A commit of dead rows only adds nothing, but the follower is not behind."""
    raw = feeder(lake_config)
    raw.append([(b"a", KAFKA_US, KAFKA_US)])
    version = raw.append_dead()
    follow_all(Curated(lake_config, raw.topic))
    table = Table.open(lake_config, "curated/trip_events_v2")
    assert table is not None and table.progress("raw/trip_events_v2") == version and len(events(lake_config)) == 1


def test_an_undeclared_removal_stops_the_follower(lake_config: LakeConfig) -> None:
    """It says which version removed data, and takes nothing of it; compaction before it is fine."""
    raw = feeder(lake_config)
    curated = Curated(lake_config, raw.topic)
    for name in (b"a", b"b"):
        raw.append([(name, KAFKA_US, KAFKA_US)])
    raw.table.handle.optimize.compact()
    follow_all(curated)
    raw.table.refresh()
    raw.table.handle.delete("_offset = 0")
    with pytest.raises(RemovalError, match="without a declared erasure"):
        curated.step()
    assert len(events(lake_config)) == 2


def test_a_zombie_merges_nothing(lake_config: LakeConfig) -> None:
    """A writer whose start is not the table's progress is refused; one that read it before another's commit, too."""
    raw = feeder(lake_config)
    raw.append([(b"a", KAFKA_US, KAFKA_US)])
    follow_all(Curated(lake_config, raw.topic))
    zombie = Table.open(lake_config, TRIPS)
    assert zombie is not None
    done = zombie.progress("raw/trip_events_v2")
    raw.append([(b"b", KAFKA_US, KAFKA_US)])
    follow_all(Curated(lake_config, raw.topic))
    trips = pa.table(zombie.handle.to_pyarrow_table())
    trips = trips.set_column(trips.column_names.index("sequence"), "sequence", pa.array([7], pa.int64()))
    with pytest.raises(Exception, match=r"(?i)concurrent"):
        merge_trips(zombie, trips, "raw/trip_events_v2", Step(done, (done or 0) + 1))
    zombie.refresh()
    with pytest.raises(Superseded):
        merge_trips(zombie, trips, "raw/trip_events_v2", Step(done, (done or 0) + 1))


Plan = list[list[tuple[int, int]]]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=6), min_size=1, max_size=4))
def test_any_batching_and_restarting_gives_the_same_tables(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Events (trip, sequence) in any batches, with resends, and a new follower after any step: one row per key, the latest per trip."""
    folder: Path = tmp_path_factory.mktemp("property")
    lake = LakeConfig(root=str(folder))
    raw: RawFeeder = feeder(lake)
    curated = Curated(lake, raw.topic)
    for batch in plan:
        raw.append_trips(batch)
        if random.Random(str(batch)).random() < 0.5:
            curated = Curated(lake, raw.topic)
            curated.step()
    follow_all(Curated(lake, raw.topic))
    sent = {event for batch in plan for event in batch}
    assert len(events(lake)) == len(sent)
    latest = {f"trip-{trip}": max(sequence for other, sequence in sent if other == trip) for trip, _ in sent}
    assert {row["trip_id"]: row["sequence"] for row in rows_of(lake, TRIPS)} == latest
    assert len(rows_of(lake, TRIPS)) == len(latest)


def test_latest_trips_orders_by_sequence_then_time_then_id() -> None:
    """Each part of the order decides where the parts before it are equal; an event of no trip is left out."""
    rows = pa.table(
        {
            "trip_id": ["a", "a", "b", "b", "c", "c", ""],
            "sequence": [1, 2, 1, 1, 1, 1, 9],
            "event_time": pa.array([9, 1, 1, 2, 1, 1, 1], pa.timestamp("us", "UTC")),
            "event_id": [b"9", b"1", b"9", b"1", b"1", b"2", b"1"],
            "trip_requested_at": pa.array([0, 0, 0, 0, None, None, 0], pa.timestamp("us", "UTC")),
            "region": ["r"] * 7,
        }
    )
    found = latest_trips(rows).select(["trip_id", "event_id", "event_date"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [("a", b"1", "1970-01-01"), ("b", b"1", "1970-01-01"), ("c", b"2", "unknown")]
