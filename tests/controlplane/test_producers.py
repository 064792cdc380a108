"""Who writes to a topic is known to the verdict on its schema: by name to Publish, by a header of its records, by OpenLineage."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml

from arterial.api.ingestion.v1 import ingestion_service_pb2_grpc
from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as lineage
from arterial.client import Client
from arterial.producers import PRODUCER
from chassis import kafka
from chassis.config import KafkaConfig, LakeConfig, OlapConfig, RpcConfig
from chassis.errors import ArterialError, Reason
from chassis.lake import Table
from chassis.lineage import emitter as emitter_module
from chassis.testing import PATIENCE_SECONDS, channel, eventually, running
from chassis.topics import Topic, topic_from_spec
from chassis.wire import frame
from cli.inspecting import document
from deploy.local import postgres
from deploy.local.child import free_port
from services.controlplane.resources import dependents
from services.ingestion import producers
from services.ingestion.config import IngestionConfig
from services.ingestion.producers import Producers
from services.ingestion.serving import serve
from services.ingestion.stream import stream
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.registry import grpc
from tests.events import trip_event
from tests.ingestion.conftest import seed
from tests.lineage.conftest import Stub, serving
from tests.lineage.events import event
from tests.lineage.test_emission import emitter
from tests.terminal import Terminal

TRIP = Path(__file__).parents[2] / "protos/arterial/api/events/v1/trip_event.proto"


@dataclass(frozen=True)
class Cell:
    """A terminal, ingestion's configuration, and a stub of lineage; all of a topic of the test's own."""

    terminal: Terminal
    config: IngestionConfig
    lineage: Stub
    topic: str

    async def check(self, file: Path) -> str:
        """What `schema check` says of a trip whose city is called otherwise."""
        file.write_text(TRIP.read_text().replace(" city_id = ", " town_id = "))
        return await self.terminal.text("schema", "check", str(file), "--subject", f"{self.topic}-value", status=1)

    async def written_by(self, *names: str) -> None:
        """Waits until lineage knows who writes to the topic."""

        async def known() -> bool:
            try:
                found = await self.lineage.GetUpstream(lineage.GetUpstreamRequest(name=f"kafka/{self.topic}", depth=1))
            except ArterialError:
                return False
            return {node.name for node in found.nodes} == set(names)

        await eventually(known, f"{names} in lineage")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lineage is waited for as long as a busy machine needs."""
    monkeypatch.setattr(dependents, "TIMEOUT_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(emitter_module, "FLUSH_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
async def cell(
    plane: ControlPlane,
    kafka_config: KafkaConfig,
    lake_config: LakeConfig,
    tmp_path: Path,
    capsys: "pytest.CaptureFixture[str]",
) -> AsyncIterator[Cell]:
    """A control plane that asks lineage, and ingestion that tells it."""
    topic, port = f"trips_{uuid.uuid4().hex[:8]}", int(plane.config.sql.url.rsplit("/", 1)[0].rsplit(":", 1)[1])
    resources = tmp_path / "resources"
    resources.mkdir()
    (resources / "topic.yaml").write_text(yaml.safe_dump_all(document(each) for each in seed(topic) if each.metadata.name != "live"))
    database = await postgres.create_database(port, topic)
    async with grpc(plane):
        pass  # migrations of two services in one process would disturb each other: they come one after the other
    async with serving(database, tmp_path / "lineage") as (address, stub):
        await plane.stop()
        plane.config = plane.config.model_copy(update={"lineage": address})
        await plane.start()
        async with grpc(plane):
            terminal = Terminal({"controlplane": plane.address, "lineage": address}, tmp_path, capsys)
            await terminal.text("apply", str(resources))
            config = IngestionConfig(
                state_dir=tmp_path / "ingestion",
                resources_dir=resources,
                kafka=kafka_config,
                lake=lake_config,
                olap=OlapConfig(port=1),  # nothing of these roles asks it
                lineage=address,
                rpc=RpcConfig(port=free_port(), drain_seconds=1),
            )
            yield Cell(terminal, config, stub, topic)


async def test_a_verdict_names_who_publishes(cell: Cell, tmp_path: Path) -> None:
    """By a name given to Publish. Who is rejected, or has no name, is not told; what is no name is refused."""
    address, good = f"127.0.0.1:{cell.config.rpc.port}", trip_event().SerializeToString()
    async with running(serve, cell.config), channel(address) as connection:
        await connection.channel_ready()
        async with Client(ingestion=address) as client:
            for name, records in (("rejected", [b"\xff"]), ("", [good]), ("checkout", [good]), ("checkout", [good])):
                async with client.publisher(name) as publisher:
                    await publisher.publish(cell.topic, records)
            with pytest.raises(ArterialError, match="arterial-producer must be"):
                client.publisher("Jane Doe")
            stub: Stub = ingestion_service_pb2_grpc.IngestionServiceStub(connection)
            with pytest.raises(ArterialError) as caught:
                async for _ in stub.Publish(iter(()), metadata=((PRODUCER, "Jane Doe"),)):
                    pass
            assert caught.value.reason is Reason.INVALID_REQUEST
        await cell.written_by(f"producer/checkout/{cell.topic}")
    shown = await cell.check(tmp_path / "trip.proto")
    assert "field_renamed" in shown and "written by producer/checkout\n" in shown


async def test_a_producer_of_kafka_says_so_by_a_header(cell: Cell, tmp_path: Path) -> None:
    """Of the last record of a batch; a header that is no name, or that a dead record has, does no harm."""
    (partition, *_) = kafka.partitions(seed_topic(cell))
    await kafka.ensure_topics(cell.config.kafka, [seed_topic(cell)])
    producer = kafka.producer(cell.config.kafka)
    await producer.start()
    try:
        for name in (b"Jane Doe", b"\xff\xfe", b"orders.v1"):
            async with running(stream, cell.config):
                values = [(b"1", frame(1, trip_event().SerializeToString()))]
                await kafka.send_all(producer, partition, values, [(PRODUCER, name)])
                await eventually(partial(rows_in_raw, cell, 1 + (name == b"\xff\xfe") + 2 * (name == b"orders.v1")), "the record")
    finally:
        await producer.stop()
    await cell.written_by(f"producer/orders.v1/{cell.topic}")
    assert "written by producer/orders.v1\n" in await cell.check(tmp_path / "trip.proto")


def seed_topic(cell: Cell) -> Topic:
    """The topic as ingestion has it."""
    return next(topic_from_spec(each.metadata.name, each.topic) for each in seed(cell.topic) if each.kind == "Topic")


async def rows_in_raw(cell: Cell, rows: int) -> bool:
    """Whether raw has so many rows."""
    table = await asyncio.to_thread(Table.open, cell.config.lake, f"raw/{cell.topic}")
    return table is not None and sum(file.rows for file in table.files()) == rows


async def test_a_producer_that_openlineage_knows_is_named_with_its_owner(cell: Cell, tmp_path: Path) -> None:
    """In the check, and in the plan and the refusal of a change that is a one-way door."""
    written = {"namespace": "kafka://broker:9092", "name": cell.topic}
    job = {"namespace": "spark", "name": "orders", "facets": {"ownership": {"owners": [{"name": "sales"}]}}}
    await cell.lineage.PutEvents(lineage.PutEventsRequest(events=[event("", [], [written], job=job)]))
    assert "written by spark/orders (sales)" in await cell.check(tmp_path / "trip.proto")
    file = tmp_path / "resources" / "topic.yaml"
    file.write_text(file.read_text().replace("partitions: 4", "partitions: 8"))
    assert "written by spark/orders (sales)" in await cell.terminal.text("plan", str(file))
    with pytest.raises(ArterialError) as caught:
        await cell.terminal.text("apply", str(file))
    assert "written by spark/orders (sales)" in caught.value.violations[0].description


async def test_a_schema_whose_topics_are_called_otherwise_is_felt_by_these(cell: Cell, tmp_path: Path) -> None:
    """The check and the plan go by who is written with it, not by its name."""
    spec = "spec: {type: SCHEMA_TYPE_PROTOBUF, definition: 'syntax = \"proto3\"; message Order { bytes event_id = 1; int64 city = 2; }'}"
    schema = f"apiVersion: arterial.dev/v1\nkind: Schema\nmetadata: {{name: order}}\n{spec}\n"
    topics = [
        f"apiVersion: arterial.dev/v1\nkind: Topic\nmetadata: {{name: {name}}}\nspec: {{schema: order, keyField: city}}\n"
        for name in ("orders_eu", "orders_us")
    ]
    file, proto = tmp_path / "orders.yaml", tmp_path / "order.proto"
    file.write_text("---\n".join([schema, *topics]))
    await cell.terminal.text("apply", str(file))
    for name in ("eu", "us"):
        written = {"namespace": "kafka://broker:9092", "name": f"orders_{name}"}
        job = {"namespace": "spark", "name": f"orders-{name}"}
        await cell.lineage.PutEvents(lineage.PutEventsRequest(events=[event("", [], [written], job=job)]))
    proto.write_text('syntax = "proto3"; message Order { bytes event_id = 1; string city = 2; }')
    shown = await cell.terminal.text("schema", "check", str(proto), status=1)
    assert "written by spark/orders-eu\n" in shown and "written by spark/orders-us\n" in shown
    file.write_text(file.read_text().replace("int64 city", "string city"))
    planned = await cell.terminal.text("plan", str(file))
    assert "written by spark/orders-eu (not declared), spark/orders-us (not declared)" in planned


async def test_producers_without_end_are_told_up_to_a_limit(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither memory nor graph is filled by names."""
    monkeypatch.setattr(producers, "MAX_TOLD", 2)
    async with serving(database_url, tmp_path) as (address, stub):
        async with emitter(address, tmp_path) as told:
            mine = Producers(told)
            for number in range(5):
                mine.wrote(f"p{number}", "orders")
            await told.flush()
        found = await stub.Search(lineage.SearchRequest(text="producer/"))
        assert {node.name for node in found.nodes} == {"producer/p0/orders", "producer/p1/orders"}
