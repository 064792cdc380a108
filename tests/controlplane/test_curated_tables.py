"""What is refused of a declared curated table before any process runs it."""

from collections.abc import Iterable

import pytest

from arterial.api.controlplane.v1 import resource_pb2
from chassis.resources import from_document, key_of
from services.controlplane.resources.checking import violations

RIDES = "SELECT ride_id, max(event_time) AS at FROM `lake/curated/rides_v1` GROUP BY ride_id"


def table(sql: str = RIDES, name: str = "rides", keys: Iterable[str] = ("ride_id",), time: str = "at") -> resource_pb2.Resource:
    """A declared table."""
    spec = {"sql": sql, "keys": list(keys), "timeColumn": time}
    return from_document({"apiVersion": "arterial.dev/v1", "kind": "CuratedTable", "metadata": {"name": name}, "spec": spec})


def other(kind: str, name: str, **spec: object) -> resource_pb2.Resource:
    """Another resource."""
    return from_document({"apiVersion": "arterial.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})


def refused(*resources: resource_pb2.Resource, existing: Iterable[resource_pb2.Resource] = ()) -> list[tuple[str, str]]:
    """(path, why) of what is refused, with the datasets that the tests read declared."""
    names = ("lake/curated/rides_v1", "lake/curated/a", "lake/curated/b", "lake/curated/rides", "olap/live/rides_v1")
    there = [*(other("Dataset", name, tier=3) for name in names), *existing]
    return [(found.field, found.description) for found in violations(resources, {key_of(each): each for each in there})]


def test_a_table_that_makes_sense_is_taken() -> None:
    """Names that the text does not tell are left to the process that runs it."""
    assert refused(table()) == []
    assert refused(table("SELECT * FROM `lake/curated/rides_v1`", keys=["unknown_here"])) == []
    assert (
        refused(table("WITH r AS (SELECT * FROM `lake/curated/rides_v1`) SELECT a AS ride_id, b AS at FROM r SETTINGS max_threads = 1"))
        == []
    )


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (f"{RIDES}; {RIDES}", "has 2 statements"),
        ("INSERT INTO x SELECT a FROM `lake/curated/rides_v1`", "is no SELECT"),
        ("SELECT ride_id, FROM WHERE `lake/curated/rides_v1`", "not understood"),
        ("SELECT ride_id, at FROM `lake/curated/rides_v1` CROSS JOIN file('/etc/passwd')", "reads by file"),
        ("SELECT ride_id, at FROM `lake/curated/rides_v1` JOIN live.rides USING (ride_id)", "live.rides, which is no table of the lake"),
        ("SELECT ride_id, at FROM `olap/live/rides_v1`", "olap/live/rides_v1, which is no table of the lake"),
        ("SELECT ride_id, at FROM `lake/curated/rides_v1` FORMAT JSON", "clause FORMAT"),
        ("SELECT 1 AS ride_id, now() AS at", "reads no dataset"),
        ("SELECT ride_id, at, ride_id AS _at FROM `lake/curated/rides_v1`", "gives a column _at"),
    ],
)
def test_what_is_not_one_select_over_the_lake_is_refused(sql: str, why: str) -> None:
    """The reason says what is wrong with it."""
    assert [path for path, told in refused(table(sql)) if why in told] == ["resources[0].spec.sql"]


def test_keys_and_time_must_be_columns_of_the_result() -> None:
    """Both are told, with what the SELECT gives; columns of the table itself can be neither."""
    told = dict(refused(table(keys=["ride_id", "rider"], time="event_time")))
    assert told["resources[0].spec.keys[1]"] == "the SELECT gives no column rider; it gives ride_id, at"
    assert "event_time" in told["resources[0].spec.timeColumn"]
    assert (
        "the table's own"
        in dict(refused(table(f"SELECT *, ({RIDES}) AS x FROM `lake/curated/a`", time="event_date")))["resources[0].spec.timeColumn"]
    )


def test_a_circle_is_refused_wherever_it_closes() -> None:
    """A table that follows from itself, over others that are declared already."""
    a, b = (table(f"SELECT * FROM `lake/curated/{source}`", name) for name, source in (("a", "b"), ("b", "a")))
    assert [why for _, why in refused(a, existing=[b])] == ["follows from itself: lake/curated/a from lake/curated/b from lake/curated/a"]
    assert "follows from itself" in refused(table("SELECT * FROM `lake/curated/rides`"))[0][1]
    assert refused(a, existing=[table(name="b")]) == []


@pytest.mark.parametrize(("name", "why"), [("trips", "curated/trips"), ("scooters", "Topic/scooters"), ("a/b", "without /")])
def test_a_name_that_is_taken_is_refused(name: str, why: str) -> None:
    """Of the built-in table, of a topic, and what is no name of one table."""
    topic = other("Topic", "scooters", message="arterial.api.events.v1.TripEvent", keyField="city_id")
    (found,) = refused(table(name=name), existing=[topic])
    assert found[0] == "resources[0].metadata.name" and why in found[1]


def test_a_topic_cannot_take_the_name_of_a_table() -> None:
    """Its removal would drop that, whether or not it has a curated table itself."""
    topic = other("Topic", "rides", message="arterial.api.events.v1.TripEvent", keyField="city_id")
    assert refused(topic, existing=[table()])[0][0] == "resources[0].metadata.name"
