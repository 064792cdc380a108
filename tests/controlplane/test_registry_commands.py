"""`arterial schema`, against a running control plane and a running lineage service."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as lineage
from chassis.errors import ArterialError, Reason
from cli import schemafiles
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.registry import grpc
from tests.lineage.conftest import serving
from tests.lineage.events import event
from tests.terminal import Terminal

RENTAL = 'syntax = "proto3"; package shop; import "bike.proto"; message Rental { string id = 1; Bike bike = 2; int64 fee = 3; }'
BIKE = 'syntax = "proto3"; package shop; message Bike { int32 id = 1; }'
TRIP = Path(__file__).parents[2] / "protos/arterial/api/events/v1/trip_event.proto"
TIER_1 = {"ownership": {"owners": [{"name": "marketplace"}]}, "tags": {"tags": [{"key": "tier", "value": "1"}]}}


def column(name: str) -> dict[str, Any]:
    """A columnLineage facet: this column, made from itself."""
    made = {"namespace": "lake://local", "name": "raw/trip_events_v2", "field": name}
    return {"columnLineage": {"fields": {name: {"inputFields": [made]}}}}


@pytest.fixture
async def terminal(
    shared_plane: ControlPlane, database_url: str, tmp_path: Path, capsys: "pytest.CaptureFixture[str]"
) -> AsyncIterator[Terminal]:
    """A terminal of a stack with lineage, which knows a curated table and a live one made from raw trips."""
    async with grpc(shared_plane), serving(database_url, tmp_path / "lineage") as (address, stub):
        raw = {"namespace": "lake://local", "name": "raw/trip_events_v2"}
        outputs = [
            {"namespace": "olap://local", "name": "live/trip_events_v2", "facets": column("city_id")},
            {"namespace": "lake://local", "name": "curated/trips", "facets": column("fare_amount_minor") | TIER_1},
        ]
        await stub.PutEvents(lineage.PutEventsRequest(events=[event(f"make.{each['name']}", [raw], [each]) for each in outputs]))
        found = Terminal({"controlplane": shared_plane.address}, tmp_path, capsys)
        state = {"pid": os.getpid(), "addresses": {"controlplane": shared_plane.address, "lineage": address}}
        (tmp_path / "stack.json").write_text(json.dumps(state))
        yield found


async def test_a_file_with_imports_is_registered_listed_and_shown(terminal: Terminal, tmp_path: Path) -> None:
    """What it imports becomes a subject of its own; a second registration is the same version."""
    (tmp_path / "bike.proto").write_text(BIKE)
    file = tmp_path / "shop_rentals.proto"
    file.write_text(RENTAL)
    first = await terminal.document("schema", "register", str(file))
    assert first == await terminal.document("schema", "register", str(file)) and first["version"] == 1
    listed = {each["subject"]: each["type"] for each in await terminal.document("schema", "list")}
    assert listed["shop_rentals-value"] == listed["bike.proto"] == "SCHEMA_TYPE_PROTOBUF"
    for name in ("shop_rentals-value", str(first["schemaId"])):
        shown = await terminal.text("schema", "get", name)
        assert "# bike.proto = bike.proto, version 1" in shown and "message Rental" in shown
    file.write_text(RENTAL.replace("int64 fee", "double fee"))
    assert "FIELD_SCALAR_KIND_CHANGED" in await terminal.text("schema", "check", str(file), status=1)


async def test_avro_refers_to_a_registered_schema(terminal: Terminal, tmp_path: Path) -> None:
    """By --reference; the subject by --subject."""
    bike, rental = tmp_path / "bike.avsc", tmp_path / "rental.avsc"
    bike.write_text(json.dumps({"type": "record", "name": "shop.Bike", "fields": [{"name": "id", "type": "long"}]}))
    rental.write_text(json.dumps({"type": "record", "name": "shop.Rental", "fields": [{"name": "bike", "type": "shop.Bike"}]}))
    await terminal.text("schema", "register", str(bike), "--subject", "bikes-avro")
    words = ("schema", "register", str(rental), "--subject", "rentals-avro", "--reference", "shop.Bike=bikes-avro")
    assert "version 1 of rentals-avro" in await terminal.text(*words)


async def test_a_check_tells_who_would_feel_the_change(terminal: Terminal, tmp_path: Path) -> None:
    """A column that a table of tier 1 is made from: exit status 3; one that only others are: 1; an added one: 0, and what it brings."""
    words = ("schema", "check", str(tmp_path / "trip.proto"), "--subject", "trip_events_v2-value")
    text = TRIP.read_text()
    old = next(line for line in text.splitlines() if " city_id = " in line)
    (tmp_path / "trip.proto").write_text(text.replace(old, old.replace("city_id", "town_id")))
    shown = await terminal.text(*words, status=1)
    assert "field_renamed" in shown and "olap/live/trip_events_v2" in shown and "lake/curated/trips" not in shown
    fare = next(line for line in text.splitlines() if line.strip().startswith("arterial.api.types.v1.Money"))
    (tmp_path / "trip.proto").write_text(text.replace(fare, fare.replace("arterial.api.types.v1.Money", "string")))
    shown = await terminal.text(*words, status=3)
    assert "field_type_changed" in shown and "marketplace" in shown
    (tmp_path / "trip.proto").write_text(text.replace(old, f"{old}\n  int64 tip_minor = 99;"))
    assert "tip_minor: a column is added" in await terminal.text(*words)


@pytest.mark.parametrize(
    ("name", "body"), [("a.txt", "x"), ("absent.proto", None), ("b.proto", 'import "bike.proto"; message A { Nope n = 1; }')]
)
def test_files_that_are_no_schemas_are_told(tmp_path: Path, name: str, body: str | None) -> None:
    """Unknown endings, missing files, what does not compile."""
    (tmp_path / "bike.proto").write_text(BIKE)
    if body is not None:
        (tmp_path / name).write_text(body)
    with pytest.raises(ArterialError) as caught:
        schemafiles.read(tmp_path / name, [], [])
    assert caught.value.reason is Reason.INVALID_REQUEST


async def test_a_number_that_is_no_id_is_a_subject(terminal: Terminal) -> None:
    """And one that is no version is wrong usage."""
    with pytest.raises(ArterialError, match="99999999999"):
        await terminal.text("schema", "get", "99999999999")
    with pytest.raises(SystemExit, match="2"):
        await terminal.text("schema", "get", "trip_events_v2-value", "--version", "99999999999")
