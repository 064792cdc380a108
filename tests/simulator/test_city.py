"""The simulated city: seeded, alive, plausible; and real files as demand."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.errors import ArterialError
from chassis.judge import judge
from chassis.topics import Topic
from chassis.tripfiles import TripFile
from chassis.wire import Schemas
from simulator.city import City
from simulator.demand import Replay, Rhythm, WithBurst
from simulator.fraud import SCENARIOS, Fraudsters, day_of_fraud
from simulator.parameters import CONCERT, Parameters

START = 1_767_279_600
SMALL = Parameters(drivers=200, requests_per_second=1.0)
LINES = ['"Date/Time","Lat","Lon","Base"', '"4/1/2014 17:11:00",40.769,-73.9549,"B02512"', '"4/2/2014 17:11:30",40.7267,-74.0345,"B02512"']


def play(seconds: int, seed: int = 3) -> dict[str, list[bytes]]:
    """Encoded events by topic."""
    city = City(SMALL, Rhythm(SMALL), seed, run="t")
    found: dict[str, list[bytes]] = {}
    for second in range(START, START + seconds):
        for topic, events in city.second(second).items():
            found.setdefault(topic, []).extend(events.encode(topic))
    return found


def test_the_same_seed_gives_the_same_events() -> None:
    """To the last byte; another seed gives others."""
    assert play(60) == play(60)
    assert play(60) != play(60, seed=4)


def test_trips_go_through_their_life_in_order() -> None:
    """Requested, accepted, arrived, started, completed with a fare: sequences increase, and every stage occurs."""
    last: dict[str, int] = {}
    statuses = set()
    for payload in play(900)["trip_events_v2"]:
        event = TripEvent.FromString(payload)
        assert event.sequence > last.get(event.trip_id, 0)
        last[event.trip_id] = event.sequence
        statuses.add(event.status)
        assert len(event.event_id) == 16 and event.city_id == 1
        assert event.status != TripEvent.STATUS_COMPLETED or (event.fare.amount_minor > 0 and event.distance_m > 0)
    assert statuses == set(TripEvent.Status.values()) - {TripEvent.STATUS_UNSPECIFIED}


def test_a_burst_adds_requests_at_its_place_and_time() -> None:
    """And nowhere else."""
    demand, random = WithBurst(Rhythm(SMALL), CONCERT, START), np.random.default_rng(1)
    during = sum(len(demand.at(START + CONCERT.after_seconds + second, random).positions) for second in range(CONCERT.seconds))
    before = sum(len(demand.at(START + second, random).positions) for second in range(CONCERT.after_seconds))
    assert during > 4 * CONCERT.seconds and before < 4 * CONCERT.after_seconds


def written(folder: Path, lines: list[str]) -> Path:
    """A zipped pickup file."""
    file = folder / "pickups.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("pickups.csv", "\n".join(lines) + "\n")
    return file


def test_rows_of_a_file_become_trip_events_and_broken_ones_dead(tmp_path: Path) -> None:
    """Local time becomes UTC, ids follow from file and row, a broken row keeps its text."""
    file = TripFile(written(tmp_path, [*LINES, "nonsense,1", '"4/1/2014 17:11:00",north,-73.9,"B"']))
    (chunk,) = file.chunks()
    values = file.values(chunk)
    topic = Topic("trip_events_v2", "arterial.api.events.v1.TripEvent", "city_id")
    judged = judge(topic, Schemas(), values, None)
    assert (file.rows, judged.good.tolist(), [dead.index for dead in judged.dead]) == (4, [0, 1], [2, 3])
    assert values[2] == b"nonsense,1"
    first = judged.columns.to_pylist()[0]
    assert first["event_time"].isoformat() == "2014-04-01T21:11:00+00:00"
    assert first["event_id"][6] >> 4 == 8 and first["pickup_cell"] > 0
    assert judged.columns["event_id"].to_pylist() == judge(topic, Schemas(), file.values(chunk), None).columns["event_id"].to_pylist()


def test_a_replay_lays_the_same_hour_of_all_days_over_one_another(tmp_path: Path) -> None:
    """Both pickups come at their second of the hour, with ids of their own on every run."""
    file = TripFile(written(tmp_path, LINES))
    replays = [Replay(file, START, run) for run in (1, 2)]
    random = np.random.default_rng(1)
    found = [{second: replay.at(START + second, random) for second in (659, 660, 690)} for replay in replays]
    assert [len(found[0][second].positions) for second in (659, 660, 690)] == [0, 1, 1]
    ids = [each[660].event_ids for each in found]
    assert ids[0] is not None and ids[1] is not None and ids[0].tobytes() != ids[1].tobytes()


def test_an_unknown_file_is_refused(tmp_path: Path) -> None:
    """With one clear sentence."""
    with pytest.raises(ArterialError, match="neither TLC Parquet nor a CSV"):
        TripFile(written(tmp_path, ["a,b", "1,2"]))


def test_fraudsters_pay_among_the_riders() -> None:
    """Every fraudulent payment is published once, at its second, and its scenario is known apart from the events."""
    random = np.random.default_rng(1)
    start = 1_767_225_600
    fraud = day_of_fraud(1, 200, start * 1_000_000, random, run="test", seconds=90)
    city = City(Parameters(drivers=50), Rhythm(Parameters()), 3, fraudsters=Fraudsters(fraud, random))
    found: list[str] = []
    for second in range(start, start + 90):
        events = city.second(second).get("payment_events_v1")
        if events is not None:
            found += [payment for payment in events.columns["payment_id"].to_pylist() if payment in fraud.scenario_of]
    assert sorted(found) == sorted(fraud.payments.payment.tolist())
    assert set(fraud.scenario_of.values()) == set(SCENARIOS)
