"""Training sets are read from pinned table versions, within the window that the gate knows."""

import pyarrow as pa
import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2, resource_pb2, specs_pb2
from chassis.config import LakeConfig, OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.lake import Step, Table
from chassis.learning.snapshot import TrainingData
from chassis.learning.task import Task

TRIPS = "lake/curated/trips"
SQL = f"SELECT event_date, trip_id FROM `{TRIPS}` ORDER BY trip_id"
SCHEMA = pa.schema([("trip_id", pa.string()), ("event_date", pa.string()), ("region", pa.string())])


def _append(lake: LakeConfig, step: Step, trips: dict[str, str]) -> None:
    """Trips by id, with their dates."""
    columns = {"trip_id": list(trips), "event_date": list(trips.values()), "region": ["local"] * len(trips)}
    table = Table.open_or_create(lake, "curated/trips", SCHEMA, ("event_date", "region"))
    table.append(pa.table(columns, SCHEMA), {"test": step})


def _task(lake: LakeConfig, olap: OlapConfig) -> Task:
    spec = specs_pb2.ModelSpec(service="eta", inputs=[specs_pb2.ModelInput(dataset=TRIPS, days=2)])
    model = resource_pb2.Resource(kind="Model", metadata=resource_pb2.Metadata(name="eta"), model=spec)
    return Task(
        trainer="a:b",
        run_id="r",
        model="eta",
        version="v",
        created_at="2026-11-28",
        partition_date="2026-11-28",  # type: ignore[arg-type] # as it comes over the wire
        lake=lake,
        olap=olap,
        models=lake,
        resources=control_plane_service_pb2.ApplyResponse(resources=[model]).SerializeToString(),
    )


async def test_a_run_reads_one_version_of_the_declared_days(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """Dates out of the window and undated rows are left out, rows of later versions too, and the note says what was read."""
    dates = {"a": "2026-11-26", "b": "2026-11-27", "c": "2026-11-28", "d": "2026-11-29", "e": "unknown"}
    _append(lake_config, Step(None, 1), dates)
    task = Task.model_validate_json(_task(lake_config, olap_config).model_dump_json())
    data = TrainingData(task)
    assert (await data.read(SQL)).to_pylist() == [
        {"event_date": "2026-11-27", "trip_id": "b"},
        {"event_date": "2026-11-28", "trip_id": "c"},
    ]
    [before] = data.snapshots
    _append(lake_config, Step(1, 2), {"late": "2026-11-28"})
    assert (await data.read(SQL)).num_rows == 2
    fresh = TrainingData(task)
    assert (await fresh.read(SQL)).num_rows == 3
    [after] = fresh.snapshots
    assert (before.dataset, before.first_date, before.last_date, before.rows) == (TRIPS, "2026-11-27", "2026-11-28", 2)
    assert (after.table_version, after.rows) == (before.table_version + 1, 3)


async def test_an_input_that_is_not_declared_is_refused(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """No gate would have held the run for it."""
    with pytest.raises(ArterialError) as refused:
        await TrainingData(_task(lake_config, olap_config)).read("SELECT * FROM `lake/curated/payment_events_v1`")
    assert refused.value.reason is Reason.REFUSED
    with pytest.raises(ArterialError) as missing:
        await TrainingData(_task(lake_config, olap_config)).read(SQL)
    assert missing.value.reason is Reason.NOT_FOUND
