"""Dashboards as resources: their queries run in the engine, their columns are traced, who owns what reaches the lineage service."""

from functools import cache

import pyarrow as pa
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis import lakesql, olap, resourcefiles, testing
from chassis.config import LakeConfig, OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.lineage import ColumnInput, Lineage, Ownership
from chassis.lineage.emitter import Statement
from chassis.wire import Schemas
from services.controlplane.resources import dashboards, telling
from tests.controlplane.conftest import SEED, ControlPlane
from tests.controlplane.stubs import stubs

TRIPS, PAYMENTS = "lake/curated/trips", "lake/curated/payment_events_v1"


@cache
def seeds() -> list[resource_pb2.Resource]:
    """The seed resources."""
    return resourcefiles.read([SEED])


def dashboard(*queries: str) -> resource_pb2.Resource:
    """A dashboard of these queries."""
    return resource_pb2.Resource(
        api_version="arterial.dev/v1",
        kind="Dataset",
        metadata=resource_pb2.Metadata(name="dashboard/test", owner="finance"),
        dataset=specs_pb2.DatasetSpec(description="for a test", tier=3, queries=queries),
    )


@cache
def curated(dataset: str) -> pa.Schema:
    """Columns of a curated table: those of its topic's message, and the partition columns."""
    topics = {resource.metadata.name: resource.topic.message for resource in seeds() if resource.kind == "Topic"}
    name = dataset.removeprefix("lake/curated/")
    message = Schemas().builtin(topics["trip_events_v2" if name == "trips" else name]).arrow
    return message.append(pa.field("event_date", pa.string()))


async def test_the_queries_of_the_dashboards_run_in_the_engine(olap_config: OlapConfig, lake_config: LakeConfig) -> None:
    """Each, over tables of the columns that the contracts give: names, types and syntax are right."""
    client: AsyncClient = await olap.connect(olap_config)
    queries = [query for resource in seeds() for query in resource.dataset.queries]
    for query in queries:
        sources = {name: lakesql.source(lake_config, name, [], curated(name)) for name in lakesql.logical_names(query)}
        assert (await client.query(lakesql.resolved(query, sources))).result_rows == []
    await client.close()
    assert len(queries) >= 6


def test_every_column_of_the_dashboards_is_traced_to_columns_that_exist() -> None:
    """No dashboard depends on whole tables, none on a column that no table has."""
    drawn = [resource for resource in seeds() if resource.dataset.queries]
    for resource in drawn:
        definition = dashboards.drawing(resource.metadata.name, resource.dataset.queries)
        (output,) = definition.outputs
        assert output.columns
        for inputs in output.columns.values():
            assert inputs and all(item.column in curated(item.dataset).names for item in inputs)
    assert {resource.metadata.owner for resource in drawn} == {"marketplace", "maps", "finance"}


def test_a_dashboard_depends_on_what_its_queries_say() -> None:
    """Change the query, and the lineage is another; what filters one query touches no column of the other."""
    paid = f"SELECT sum(p.amount_amount_minor) AS paid FROM `{PAYMENTS}` AS p WHERE p.stage = 3"
    trips = f"SELECT count() AS trips, max(t.fare_amount_minor) AS highest FROM `{TRIPS}` AS t"
    both = dashboards.drawing("dashboard/test", [paid, trips])
    assert both.inputs == (PAYMENTS, TRIPS) and both.name == "controlplane.dashboard.test"
    assert both.outputs[0].columns == {
        "paid": (ColumnInput(PAYMENTS, "amount_amount_minor", "DIRECT/AGGREGATION"), ColumnInput(PAYMENTS, "stage", "INDIRECT/FILTER")),
        "trips": (),
        "highest": (ColumnInput(TRIPS, "fare_amount_minor", "DIRECT/AGGREGATION"),),
    }
    changed = dashboards.drawing("dashboard/test", [paid.replace("amount_amount_minor", "city_id"), trips])
    assert changed.outputs[0].columns["paid"][0].column == "city_id"
    assert dashboards.drawing("dashboard/test", [f"SELECT * FROM `{TRIPS}`"]).outputs[0].columns == {}


class Recording(Lineage):
    """Keeps what is handed over, instead of sending it."""

    def __init__(self) -> None:
        super().__init__(None, "local", testing.ManualClock(0.0))
        self.told: list[Statement] = []

    def _hand_over(self, subject: str, statement: object) -> None:
        self.told.append(statement() if callable(statement) else statement)  # type: ignore[arg-type]


async def test_owners_and_dashboards_are_told_and_a_dashboard_that_is_gone_reads_nothing() -> None:
    """Every dataset with a logical name has an owner; the graph keeps no arrow of a deleted dashboard."""
    lineage = Recording()
    other = resource_pb2.Resource(kind="Dataset", metadata=resource_pb2.Metadata(name="contract/dataset"))
    query = f"SELECT count() AS c, max(city_id) AS m FROM `{TRIPS}`"
    drawn = telling.tell(lineage, {"dashboard/test": dashboard(query), "contract/dataset": other}, frozenset())
    assert drawn == {"dashboard/test"} and lineage.told[0] == Ownership("dashboard/test", "finance", 3)
    assert lineage.told[1:] == [dashboards.drawing("dashboard/test", [query])]
    assert telling.tell(lineage, {"contract/dataset": other}, drawn) == drawn and len(lineage.told) == 2
    assert telling.tell(lineage, {"dashboard/test": None}, drawn) == frozenset()
    assert lineage.told[2:] == [dashboards.drawing("dashboard/test", [])]


async def test_queries_are_checked_when_they_are_applied(shared_plane: ControlPlane) -> None:
    """What is no query, and a table that is not declared, are refused with their place."""
    async with stubs(shared_plane) as to:
        for query, field in (
            ("SELEC 1 FRM", "resources[0].spec.queries[0]"),
            ("SELECT a FROM `lake/curated/none`", "resources[0].spec.queries"),
        ):
            with pytest.raises(ArterialError) as caught:
                await to.control.Apply(control.ApplyRequest(resources=[dashboard(query)]))
            assert caught.value.reason is Reason.INVALID_REQUEST
            assert [violation.field for violation in caught.value.violations] == [field]
