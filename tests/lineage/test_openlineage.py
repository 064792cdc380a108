"""Events are understood: those of Hive's own integration, and what SQL alone tells."""

import copy
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from services.lineage.graph import Graph, Made
from services.lineage.openlineage import Told, read
from tests.lineage.events import NAMESPACE, dataset, event, lineage

# Beside the repository, or further up.
HIVE = next((found for up in Path(__file__).parents if (found := up / "shared" / "data" / "openlineage").is_dir()), None)
FILES = [
    f"cll{name}Complete.json"
    for name in (
        "CtasWithJoins",
        "SelectStar",
        "SimpleQueryIndirect",
        "SimpleQueryMasking",
        "SimpleQueryOnlyAggregation",
        "SimpleQueryOnlyIdentity",
        "SimpleQueryOnlyTransform",
        "Union",
    )
]
Fields = dict[str, set[tuple[str, str, str]]]


def hive(file: str) -> dict[str, Any]:
    """An event of OpenLineage's own tests of Hive, which leave out what differs from run to run."""
    if HIVE is None:
        pytest.skip("needs OpenLineage's Hive events in shared/data/openlineage beside the repository")
    body: dict[str, Any] = json.loads((HIVE / file).read_text().replace("${json-unit.any-string}", "any"))
    return body | {"eventTime": "2026-01-01T00:00:00Z", "producer": "urn:hive", "schemaURL": "urn:openlineage"} | {
        "run": body["run"] | {"runId": str(uuid.uuid4())}
    }  # fmt: skip


def told(*events: str) -> list[Told]:
    """What good events say."""
    found, violations = read(events, Graph().columns_of)
    assert not violations
    return found


def only_output(text: str) -> Made:
    """The output of an event that has one."""
    job = told(text)[0].job
    assert job is not None
    (made,) = job.outputs
    return made


def fields(made: Made) -> Fields:
    """Inputs of each column."""
    return {column: {(name.name, used, how) for (name, used), how in places.items()} for column, places in made.columns.items()}


def expected(facet: dict[str, Any], kinds: tuple[str, ...] = ("DIRECT", "INDIRECT")) -> Fields:
    """The same of a columnLineage facet, by its first transformations."""
    found: Fields = {}
    for column, inputs in facet["fields"].items():
        for item in inputs["inputFields"]:
            first = item["transformations"][0]
            if first["type"] in kinds:
                found.setdefault(column, set()).add((item["name"], item["field"], f"{first['type']}/{first['subtype']}"))
    return found


@pytest.mark.parametrize("file", FILES)
def test_column_lineage_of_hive_is_taken_as_it_is(file: str) -> None:
    """Each column has the inputs of the facet, and the rows those of its dataset part."""
    body = hive(file)
    facet = body["outputs"][0]["facets"]["columnLineage"]
    made = only_output(json.dumps(body))
    assert fields(made) == expected(facet)
    assert {(name.name, column) for name, column in made.rows} == {(item["name"], item["field"]) for item in facet["dataset"]}


@pytest.mark.parametrize("file", FILES)
def test_sql_alone_gives_the_columns_that_hive_names(file: str) -> None:
    """Without the facet, the SQL and the schemas of the inputs give the same direct edges, and name the same columns that decide rows."""
    body = hive(file)
    facet = copy.deepcopy(body["outputs"][0]["facets"].pop("columnLineage"))
    made = only_output(json.dumps(body))
    assert fields(made) == expected(facet, ("DIRECT",))
    assert {(name.name, column) for name, column in made.rows} == {(item["name"], item["field"]) for item in facet["dataset"]}


def test_an_insert_without_columns_fills_the_table_by_position() -> None:
    """The output's schema names the columns of a statement that names none."""
    sql = {"sql": {"query": "INSERT INTO t SELECT a + 1, b FROM s", "dialect": "spark"}}
    job = {"namespace": "tests", "name": "j", "facets": sql}
    made = only_output(event("j", [dataset("db.s", ["a", "b"])], [dataset("db.t", ["x", "y"])], job=job))
    assert {column: {used for _, used in places} for column, places in made.columns.items()} == {"x": {"a"}, "y": {"b"}}


@pytest.mark.parametrize("query", ["MERGE WHATEVER", "SELECT (", "x" * 200_000])
def test_sql_that_is_not_understood_leaves_whole_datasets(query: str) -> None:
    """The event is good all the same."""
    job = {"namespace": "tests", "name": "j", "facets": {"sql": {"query": query, "dialect": "nonesuch"}}}
    assert only_output(event("j", [dataset("s", ["a"])], [dataset("t")], job=job)) == Made((NAMESPACE, "t"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "events[1]"),
        ("[]", "events[1]"),
        (event("j", [], [], eventTime=None), "events[1].eventTime"),
        (event("j", [], [], eventTime="yesterday"), "events[1].eventTime"),
        (event("j", [], [], run={"runId": "7"}), "events[1].run.runId"),
        (event("j", [], [], job=None), "events[1]"),
        (event("j", [], [], job={"namespace": "n", "name": ""}), "events[1].job.name"),
        (event("j", [{"namespace": "n"}], []), "events[1].inputs[0].name"),
        (event("j", [], [dataset("a\0b")]), "events[1].outputs[0].name"),
        (event("j", [], [dataset("a" * 2000)]), "events[1].outputs[0].name"),
        (event("j", [], [dataset("a", columnLineage={"fields": {"c": {"inputFields": [{}]}}})]), "events[1].outputs[0].facets"),
        (event("j", [], []).replace('"j"', '"\\ud800"'), "events[1]"),
    ],
)
def test_what_is_no_event_is_named_with_its_field(text: str, field: str) -> None:
    """One violation per bad event, with its index; a good one has none."""
    _, violations = read([event("good", [], []), text], Graph().columns_of)
    assert len(violations) == 1
    assert violations[0].field.startswith(field)


def test_facets_of_others_and_withdrawn_ones_are_passed_over() -> None:
    """Unknown facets say nothing to us; a facet with _deleted has no content."""
    withdrawn = dataset("t", columnLineage={"_deleted": True}, something={"x": 1})
    assert only_output(event("j", [], [withdrawn])).columns == {}
    assert only_output(event("j", [], [dataset("t", columnLineage=lineage({"a": ["s.b"]}))])).columns == {
        "a": {((NAMESPACE, "s"), "b"): "DIRECT/IDENTITY"}
    }
