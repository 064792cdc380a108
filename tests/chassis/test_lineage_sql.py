import pytest

from chassis.lineage import ColumnInput, JobDefinition, from_sql
from chassis.lineage.definition import SqlNotUnderstood, instance, logical

TRIPS, ZONES = "lake/curated/trips", "lake/curated/zones"
SCHEMAS = {
    TRIPS: {"trip_id": "String", "city": "Int64", "fare": "Int64", "status": "String", "tags": "Array(String)"},
    ZONES: {"city": "Int64", "name": "String"},
}


def made(sql: str) -> dict[str, set[tuple[str, str]]]:
    """Column of the output -> (dataset.column, transformation); under "rows" what decides the rows."""
    output = from_sql("test", sql, "model/test", SCHEMAS).outputs[0]
    columns = {name: set(map(_short, inputs)) for name, inputs in output.columns.items()}
    return columns | ({"rows": set(map(_short, output.rows))} if output.rows else {})


def _short(item: ColumnInput) -> tuple[str, str]:
    return f"{item.dataset.rpartition('/')[2]}.{item.column}", item.transformation.replace("DIRECT/", "")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (f"SELECT fare AS f, fare / 2 AS h FROM `{TRIPS}`", {"f": {("trips.fare", "IDENTITY")}, "h": {("trips.fare", "TRANSFORMATION")}}),
        (f"SELECT city, sum(fare) AS s FROM `{TRIPS}` WHERE status = 'x' GROUP BY city", {
            "city": {("trips.city", "IDENTITY")},
            "s": {("trips.fare", "AGGREGATION")},
            "rows": {("trips.city", "INGROUP_BY"), ("trips.status", "INFILTER")},
        }),
        (f"SELECT z.name AS name FROM `{TRIPS}` AS t JOIN `{ZONES}` AS z ON t.city = z.city", {
            "name": {("zones.name", "IDENTITY")},
            "rows": {("trips.city", "INJOIN"), ("zones.city", "INJOIN")},
        }),
        (f"SELECT * EXCEPT (tags, status, city) FROM `{TRIPS}`", {
            "trip_id": {("trips.trip_id", "IDENTITY")}, "fare": {("trips.fare", "IDENTITY")},
        }),
        (f"WITH c AS (SELECT fare + 1 AS f, city FROM `{TRIPS}`) SELECT f FROM (SELECT f FROM c UNION ALL SELECT city FROM `{ZONES}`)", {
            "f": {("trips.fare", "TRANSFORMATION"), ("zones.city", "IDENTITY")},
        }),
        (f"WITH (SELECT max(fare) FROM `{TRIPS}`) AS top SELECT name, top FROM `{ZONES}`", {
            "name": {("zones.name", "IDENTITY")}, "top": {("trips.fare", "AGGREGATION")},
        }),
        (f"SELECT fare * 2 AS double, double + 1 AS more FROM `{TRIPS}`", {
            "double": {("trips.fare", "TRANSFORMATION")}, "more": {("trips.fare", "TRANSFORMATION")},
        }),
        (f"SELECT if(status = 'x', fare, 0) AS f, multiIf(city = 1, fare, status = 'y', 2, 3) AS g FROM `{TRIPS}`", {
            "f": {("trips.status", "INCONDITIONAL"), ("trips.fare", "TRANSFORMATION")},
            "g": {("trips.city", "INCONDITIONAL"), ("trips.fare", "TRANSFORMATION"), ("trips.status", "INCONDITIONAL")},
        }),
        (f"SELECT arrayMap(x -> x, tags) AS t, row_number() OVER (PARTITION BY city ORDER BY fare) AS n FROM `{TRIPS}`", {
            "t": {("trips.tags", "TRANSFORMATION")}, "n": {("trips.city", "INWINDOW"), ("trips.fare", "INWINDOW")},
        }),
        (f"SELECT sum(fare) OVER w AS s FROM `{TRIPS}` WINDOW w AS (PARTITION BY city), v AS (PARTITION BY status)", {
            "s": {("trips.fare", "AGGREGATION"), ("trips.city", "INWINDOW")},
        }),
        (f"SELECT trip_id, tag FROM `{TRIPS}` ARRAY JOIN tags AS tag", {
            "trip_id": {("trips.trip_id", "IDENTITY")}, "tag": {("trips.tags", "TRANSFORMATION")}, "rows": {("trips.tags", "INJOIN")},
        }),
        (f"SELECT fare FROM `{TRIPS}` WHERE city IN (SELECT city FROM `{ZONES}` WHERE name != '')", {
            "fare": {("trips.fare", "IDENTITY")},
            "rows": {("trips.city", "INFILTER"), ("zones.city", "INFILTER"), ("zones.name", "INFILTER")},
        }),
        (f"INSERT INTO `x` (a, b) SELECT fare, toDate32('2024-01-01') FROM `{TRIPS}` SETTINGS max_threads = 1", {
            "a": {("trips.fare", "IDENTITY")}, "b": set(),
        }),
        (f"SELECT count() AS n FROM numbers(10) AS x CROSS JOIN `{ZONES}`", {"n": set()}),
        ("SELECT * FROM `lake/unknown`", {}),
        ("SELECT a FROM `lake/unknown` WHERE b", {"a": {("unknown.a", "IDENTITY")}, "rows": {("unknown.b", "INFILTER")}}),
        (f"SELECT new_column FROM `{TRIPS}`", {"new_column": {("trips.new_column", "IDENTITY")}}),
    ],
)  # fmt: skip
def test_columns_are_traced_through_sql(sql: str, expected: dict[str, set[tuple[str, str]]]) -> None:
    """Each column of the output has the columns that it is made from, each with the way in which it is used."""
    assert made(sql) == expected


def test_a_definition_names_inputs_and_types_of_copied_columns() -> None:
    """Inputs are the datasets that the statement reads; only types that are copied are known."""
    sql = f"SELECT fare, city + 1 AS c FROM `{TRIPS}` WHERE city IN (SELECT city FROM `{ZONES}`)"
    definition = from_sql("job", sql, "model/test", SCHEMAS, also=["feature/x"])
    assert definition.inputs == (TRIPS, ZONES, "feature/x")
    assert definition.outputs[0].types == {"fare": "Int64", "c": ""}
    assert definition == from_sql("job", sql, "model/test", SCHEMAS, also=["feature/x"]) != JobDefinition("job", (), ())


@pytest.mark.parametrize("sql", ["SELEC a FROM b", "DROP TABLE x", "", "SELECT ("])
def test_what_is_no_query_is_refused(sql: str) -> None:
    """Statements without a query have no lineage and say so."""
    with pytest.raises(SqlNotUnderstood):
        from_sql("job", sql, "model/test", {})


@pytest.mark.parametrize("name", ["kafka/trip_events_v2", "lake/raw/x", "olap/live/x", "model/eta", "file:abc"])
def test_logical_names_and_instances_are_one_to_one(name: str) -> None:
    """A logical name comes back from its instance."""
    assert logical(*instance("local", name)) == name


@pytest.mark.parametrize("name", ["trips", "lake/", "", "file:", "s3/bucket"])
def test_other_names_are_no_instances(name: str) -> None:
    """What has no known kind is refused."""
    with pytest.raises(ValueError, match="logical name"):
        instance("local", name)
