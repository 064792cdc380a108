"""A curated table that is declared on the running stack: made, kept current, profiled, judged, told of in lineage, and deleted."""

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from chassis import olap
from chassis.config import OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from deploy.local.supervisor import Stack
from tests.terminal import Terminal

EXAMPLE = Path(__file__).parents[2] / "examples" / "city_days"
TABLE, DATASET, TRIPS = "city_days", "lake/curated/city_days", "lake/curated/trips"
# Nobody else publishes trips of it.
CITY = 90_001


def trips(folder: Path, day: date, *told: tuple[str, int, str]) -> str:
    """A file of events (trip, sequence, status) of trips that are requested at a day's noon."""
    noon = f"{day}T12:00:00Z"
    events = [
        {"cityId": CITY, "tripId": trip, "sequence": sequence, "status": f"STATUS_{status}", "tripRequestedAt": noon, "distanceM": 1500}
        for trip, sequence, status in told
    ]
    file = folder / f"trips-{time.monotonic_ns()}.jsonl"
    file.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return str(file)


async def test_a_declared_table_follows_its_source(
    stack: Stack, addresses: dict[str, str], tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> None:
    """One row of each city and day, replaced as its trips change; statistics, lineage and status; gone by approval alone."""
    terminal, today = Terminal(addresses, tmp_path, capsys), datetime.now(UTC).date()
    await terminal.text("apply", str(EXAMPLE), "--message", "days of cities")
    await terminal.text("publish", "trip_events_v2", trips(tmp_path, today, ("d-1", 1, "REQUESTED"), ("d-2", 1, "REQUESTED")))

    async def counted(*expected: int) -> bool:
        table = str(stack.places.lake / "curated" / TABLE)
        if not DeltaTable.is_deltatable(table):
            return False
        rows: list[Any] = [row for row in DeltaTable(table).to_pyarrow_table().to_pylist() if row["city_id"] == CITY]
        return [(row["trips"], row["completed"], row["cancelled"], row["distance_m"]) for row in rows] == [expected]

    await eventually(lambda: counted(2, 0, 0, 0), "two trips of the day")
    await terminal.text("wait", f"CuratedTable/{TABLE}", "--for", "ready")
    await terminal.text(
        "publish", "trip_events_v2", trips(tmp_path, today, ("d-1", 2, "COMPLETED"), ("d-2", 2, "CANCELLED"), ("d-3", 1, "REQUESTED"))
    )
    await eventually(lambda: counted(3, 1, 1, 1500), "three trips in the place of two", 120)

    async def known() -> bool:
        try:
            told = await terminal.document("lineage", "impact", TRIPS, "--column", "distance_m")
        except ArterialError:
            return False
        return DATASET in {node["name"] for node in told["nodes"]}

    async def profiled() -> bool:
        client = await olap.connect(OlapConfig(port=stack.places.ports["clickhouse"]))
        try:
            sql = (
                "SELECT max(value) FROM dss.series WHERE dataset = {name:String} AND market = {city:String} AND column = 'trips' "
                "AND metric = 'MAX'"
            )
            found = await client.query(sql, parameters={"name": DATASET, "city": str(CITY)})
        finally:
            await client.close()
        return found.result_rows[0][0] in (2, 3)

    async def promised() -> bool:
        return today.isoformat() in {each["partitionDate"] for each in await terminal.document("partitions", DATASET)}

    await eventually(known, "lineage of the table's column")
    await eventually(profiled, "statistics of the table by city")
    await eventually(promised, "a verdict on how fresh the table is")
    await removed(terminal, tmp_path)


async def removed(terminal: Terminal, folder: Path) -> None:
    """Its dataset stays in the way; together they go by approval, door by door, and the table is no longer anybody's."""
    with pytest.raises(ArterialError, match=f"is referred to by Dataset/{DATASET}"):
        await terminal.text("delete", "CuratedTable", TABLE)
    owner = folder / "owner.yaml"
    owner.write_text(
        "apiVersion: arterial.dev/v1\nkind: Owner\nmetadata: {name: nobody}\n"
        "spec: {channels: [{type: CHANNEL_TYPE_CHAT, address: nowhere}]}\n"
    )
    words = ("apply", str(owner), "--prune", "made-by=city_days")
    with pytest.raises(ArterialError, match="one-way doors") as caught:
        await terminal.text(*words)
    doors = caught.value.metadata["approvals"].split(",")
    assert {f"CuratedTable/{TABLE}:deleted", f"Dataset/{DATASET}:deleted"} == set(doors)
    await terminal.text(*words, *(word for door in doors for word in ("--approve", door)), "--message", "no days")
    with pytest.raises(ArterialError) as caught:
        await terminal.text("get", "CuratedTable", TABLE)
    assert caught.value.reason is Reason.NOT_FOUND
