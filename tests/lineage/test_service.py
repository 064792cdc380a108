"""The RPCs on real PostgreSQL: what is put is answered, by every replica and after a restart."""

from pathlib import Path

import pytest

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as pb
from arterial.api.types.v1 import page_pb2
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from tests.lineage.conftest import Stub, serving
from tests.lineage.events import NAMESPACE, dataset, event, lineage

OWNED = {"ownership": {"owners": [{"name": "risk"}]}, "tags": {"tags": [{"key": "tier", "value": "1"}]}}


def city() -> list[str]:
    """raw -> trips -> (report, alarm): column b of raw goes into column y of trips, a into x; a filter on y makes the alarm."""
    return [
        event(
            "clean", [dataset("raw", ["a", "b"])], [dataset("trips", ["x", "y"], columnLineage=lineage({"x": ["raw.a"], "y": ["raw.b"]}))]
        ),
        event("report", [dataset("trips")], [dataset("report", ["x"], columnLineage=lineage({"x": ["trips.x"]}))]),
        event("alarm", [dataset("trips")], [dataset("alarm", ["x"], columnLineage=lineage({"x": ["trips.x"]}, ["trips.y"]), **OWNED)]),
    ]


def named(name: str) -> str:
    """The name by which a dataset of the tests is asked for."""
    return f"{NAMESPACE}/{name}"


async def put(stub: Stub, *events: str) -> int:
    """Events that changed the graph."""
    reply: pb.PutEventsResponse = await stub.PutEvents(pb.PutEventsRequest(events=events))
    return reply.changed


async def impact(stub: Stub, name: str, *columns: str) -> list[tuple[str, list[str]]]:
    """Names and columns hit, in order."""
    reply: pb.GetImpactResponse = await stub.GetImpact(pb.GetImpactRequest(name=named(name), columns=columns))
    return [(node.name.removeprefix(f"{NAMESPACE}/"), list(node.columns)) for node in reply.nodes]


async def test_impact_is_precise_to_the_column_and_names_owners(service: tuple[str, Stub]) -> None:
    """Only what is made from the column is hit, most important first; a filter hits the whole."""
    _, stub = service
    assert await put(stub, *city()) == 3
    assert await impact(stub, "raw", "a") == [("alarm", ["x"]), ("trips", ["x"]), ("report", ["x"])]
    assert await impact(stub, "raw", "b") == [("alarm", []), ("trips", ["y"])]
    assert await impact(stub, "raw") == [("alarm", []), ("trips", []), ("report", [])]
    reply = await stub.GetImpact(pb.GetImpactRequest(name=named("raw")))
    assert list(reply.owners) == ["risk"]
    assert (reply.nodes[0].tier, reply.nodes[0].owner, reply.nodes[0].distance) == (1, "risk", 2)


async def test_walks_show_jobs_and_arrows_in_the_direction_of_the_data(service: tuple[str, Stub]) -> None:
    """Nearest first, jobs included, up to the depth asked for; a job may be asked for, too."""
    _, stub = service
    await put(stub, *city())
    up = await stub.GetUpstream(pb.GetUpstreamRequest(name=named("report"), column="x"))
    assert [(node.name, node.distance, list(node.columns)) for node in up.nodes] == [
        ("tests/report", 1, []),
        (named("trips"), 1, ["x"]),
        ("tests/clean", 2, []),
        (named("raw"), 2, ["a"]),
    ]
    assert (up.edges[0].source, up.edges[0].target) == ("tests/report", named("report"))
    down = await stub.GetDownstream(pb.GetDownstreamRequest(name=named("raw"), depth=1))
    assert [(node.name, node.kind) for node in down.nodes] == [
        ("tests/clean", pb.NODE_KIND_JOB), (named("trips"), pb.NODE_KIND_DATASET)
    ]  # fmt: skip
    job = await stub.GetDownstream(pb.GetDownstreamRequest(name="tests/clean", depth=1))
    assert [node.name for node in job.nodes] == [named("trips")]
    read = await stub.GetUpstream(pb.GetUpstreamRequest(name="tests/alarm"))
    assert [node.name for node in read.nodes] == [named("trips"), "tests/clean", named("raw")]


async def test_columns_have_types_and_inputs(service: tuple[str, Stub]) -> None:
    """Each column lists the columns that it is made from, and those that decide its rows."""
    _, stub = service
    await put(stub, *city())
    reply = await stub.ListColumns(pb.ListColumnsRequest(name=named("alarm")))
    (column,) = reply.columns
    assert (column.column, column.type) == ("x", "int")
    assert [(item.name, item.column, item.transformation) for item in column.inputs] == [
        (named("trips"), "x", "DIRECT/IDENTITY"), (named("trips"), "y", "INDIRECT/FILTER")
    ]  # fmt: skip


async def test_putting_again_changes_nothing_and_a_new_definition_removes_old_edges(service: tuple[str, Stub]) -> None:
    """Idempotent; a column that is no longer read is no longer hit."""
    _, stub = service
    await put(stub, *city())
    assert await put(stub, *city()) == 0
    assert await put(stub, event("report", [dataset("trips")], [dataset("report", ["x"])], at=5)) == 1
    assert await impact(stub, "trips", "x") == [("alarm", ["x"]), ("report", [])]
    assert await put(stub, event("alarm", [], [dataset("alarm")], at=5), event("report", [], [dataset("report")], at=6)) == 2
    assert await impact(stub, "trips", "x") == []


async def test_replicas_agree_and_a_restart_forgets_nothing(database_url: str, tmp_path: Path) -> None:
    """What one takes, the other answers; what both knew is known after both are gone."""
    async with serving(database_url, tmp_path) as (_, one):
        async with serving(database_url, tmp_path) as (_, other):
            await put(one, *city())
            await eventually(lambda: _knows(other), "the other replica knows")
            await put(other, event("report", [dataset("trips")], [dataset("report", ["x"])], at=5))
            await put(one, event("alarm", [], [dataset("alarm")], at=5))
            expected = await impact(one, "raw")
        assert expected == [("trips", []), ("report", [])]
    async with serving(database_url, tmp_path) as (_, again):
        assert await impact(again, "raw") == expected
        assert await put(again, *city()) == 0


async def _knows(stub: Stub) -> bool:
    reply = await stub.Search(pb.SearchRequest(text="alarm"))
    return len(reply.nodes) == 2


async def test_a_bad_event_keeps_all_out(service: tuple[str, Stub]) -> None:
    """All or none, with one violation per bad event."""
    _, stub = service
    with pytest.raises(ArterialError) as caught:
        await put(stub, city()[0], "{", event("j", [], [], job={"namespace": "n"}))
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == ["events[1]", "events[2].job.name"]
    with pytest.raises(ArterialError) as missing:
        await impact(stub, "raw")
    assert missing.value.reason is Reason.NOT_FOUND


async def test_what_does_not_exist_is_not_found(service: tuple[str, Stub]) -> None:
    """Datasets, and columns of datasets whose columns are known; a job has no columns."""
    _, stub = service
    await put(stub, *city())
    for request in (pb.GetUpstreamRequest(name="nothing"), pb.GetUpstreamRequest(name=named("raw"), column="z")):
        with pytest.raises(ArterialError) as caught:
            await stub.GetUpstream(request)
        assert caught.value.reason is Reason.NOT_FOUND
    with pytest.raises(ArterialError) as refused:
        await stub.GetUpstream(pb.GetUpstreamRequest(name="tests/clean", column="x"))
    assert refused.value.reason is Reason.INVALID_REQUEST


async def test_search_goes_by_name_kind_and_page(service: tuple[str, Stub]) -> None:
    """By name, whatever the case; tokens lead through all of it."""
    _, stub = service
    await put(stub, *city())
    found, token = [], ""
    while True:
        page = page_pb2.PageRequest(page_size=2, page_token=token)
        reply = await stub.Search(pb.SearchRequest(text="R", page=page))
        found += [node.name for node in reply.nodes]
        token = reply.page.next_page_token
        if not token:
            break
    assert found == [*map(named, ("alarm", "raw", "report", "trips")), "tests/alarm", "tests/report"]
    jobs = await stub.Search(pb.SearchRequest(text="r", kind=pb.NODE_KIND_JOB))
    assert {node.kind for node in jobs.nodes} == {pb.NODE_KIND_JOB}
