"""Tasks of trainers on a lake with simulated history."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from arterial.api.controlplane.v1 import control_plane_service_pb2
from chassis import resourcefiles
from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Step, Table
from chassis.learning.task import Task
from simulator.columns import Events, schema_of
from simulator.history import TRIPS, History, join_days
from simulator.parameters import MARKETS, Market

SEED = Path(__file__).parents[2] / "deploy" / "resources"
FIRST, DAYS = date(2026, 11, 1), 7
LAST = date(2026, 11, 7)
# Fewer trips than a demo has: tests want an answer in seconds.
SMALL = (Market(1, 500, 5000, 100), Market(2, 400, 4000, 100, MARKETS[1].north_degrees, MARKETS[1].east_degrees, 0.8))


def trips(first: date = FIRST, days: int = DAYS, markets: Sequence[Market] = SMALL) -> Events:
    """Trips of so many days."""
    return join_days(list(History(first, 1, tuple(markets)).days(days)))[TRIPS]


def fill(lake: LakeConfig, events: Events) -> None:
    """Writes trips as the curated table has them."""
    rows = pa.Table.from_batches([schema_of(TRIPS).decode(events.encode(TRIPS))]).drop_columns("region")
    dates = pc.strftime(rows["trip_requested_at"].cast(pa.timestamp("us", "UTC")), "%Y-%m-%d")
    rows = rows.append_column("event_date", dates).append_column("region", pa.repeat("local", events.count))
    Table.open_or_create(lake, "curated/trips", rows.schema, ("event_date", "region")).append(rows, {"test": Step(None, 1)})


def task(lake: LakeConfig, olap: OlapConfig, model: str, trainer: str) -> Task:
    """A run of the week's last day."""
    declared = resourcefiles.read([SEED])
    return Task(
        trainer=trainer,
        run_id="run",
        model=model,
        version="20261108-000000-abcdef",
        created_at=datetime(2026, 11, 8, tzinfo=UTC).isoformat(),
        partition_date=LAST,
        lake=lake,
        olap=olap,
        models=LakeConfig(root=f"{lake.root}-models"),
        resources=control_plane_service_pb2.ApplyResponse(resources=declared).SerializeToString(),
    )
