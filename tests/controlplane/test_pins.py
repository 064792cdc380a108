"""Cells that stay at a version of a schema: what they and the others see, what may not go, and what comes when the pin is taken away."""

import dataclasses
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis import kafka, testing
from chassis.adoption import columns_of
from chassis.config import CellConfig, KafkaConfig, ServiceConfig
from chassis.desired import DesiredFeed, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.judge import judge
from chassis.testing import channel, eventually
from chassis.topics import Adoption, Topic
from chassis.wire import frame, split
from cli.publish import written_with
from services.controlplane.registry.definition import CODE
from services.ingestion.publish import Publisher
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.registry import rest
from tests.controlplane.stubs import Stubs, stubs

RIDE = """syntax = "proto3";
package rides.v1;
import "google/protobuf/timestamp.proto";
message Ride {{ bytes event_id = 1; google.protobuf.Timestamp event_time = 2; int32 city_id = 3; {more} }}
"""
FIRST, SECOND, THIRD = (RIDE.format(more=more) for more in ("", "int64 tip = 4;", "int64 tip = 4; string note = 5;"))


def topic(name: str) -> Topic:
    """A topic of that schema."""
    return Topic(name, "", "city_id", partitions=1, schema=name)


@dataclasses.dataclass(frozen=True)
class Two:
    """Cells eu and us with a process each, and a Schema with three versions."""

    to: Stubs
    plane: ControlPlane
    name: str
    feeds: Mapping[str, DesiredFeed]

    @property
    def cell(self) -> Mapping[str, str]:
        """Names of the cells."""
        return {short: f"{short}-{self.name}" for short in ("eu", "us")}

    async def apply(self, *resources: resource_pb2.Resource, **more: Any) -> pb.ApplyResponse:
        """Applies."""
        reply: pb.ApplyResponse = await self.to.control.Apply(pb.ApplyRequest(resources=resources, **more))
        return reply

    async def pin(self, short: str, version: int, **more: Any) -> None:
        """Pins a cell; 0 takes the pin away."""
        await self.apply(cell_of(self.cell[short], [(self.name, version)] if version else []), **more)

    async def schema(self, text: str, **more: Any) -> None:
        """Declares the schema."""
        metadata = resource_pb2.Metadata(name=self.name, owner="data-platform")
        spec = specs_pb2.SchemaSpec(type=specs_pb2.SCHEMA_TYPE_PROTOBUF, definition=text)
        await self.apply(resource_pb2.Resource(api_version="arterial.dev/v1", kind="Schema", metadata=metadata, schema=spec), **more)

    async def got(self) -> resource_pb2.Resource:
        """The schema as the control plane has it."""
        reply: pb.GetResourceResponse = await self.to.control.GetResource(pb.GetResourceRequest(kind="Schema", name=self.name))
        return reply.resource

    async def sees(self, short: str, version: int) -> None:
        """Waits until a cell sees a version of the schema."""
        await eventually(lambda: self._seen(short, version), f"{short} sees version {version}")

    async def _seen(self, short: str, version: int) -> bool:
        return version_of(self.feeds[short], self.name) == version


def version_of(feed: DesiredFeed, name: str) -> int:
    """Version of the schema that a process goes by; 0 if it has none."""
    found = feed.current.schemas.get(name)
    return 0 if found is None else found.status.schema.version


def cell_of(name: str, pins: Sequence[tuple[str, int]] = ()) -> resource_pb2.Resource:
    """A Cell."""
    spec = specs_pb2.CellSpec(region="r", schema_pins=[specs_pb2.SchemaPin(schema=schema, version=version) for schema, version in pins])
    metadata = resource_pb2.Metadata(name=name, owner="data-platform")
    return resource_pb2.Resource(api_version="arterial.dev/v1", kind="Cell", metadata=metadata, cell=spec)


def config(folder: Path, cell: str, address: str | None) -> ServiceConfig:
    """Of a process of a cell."""
    return ServiceConfig(state_dir=folder / cell, control_plane=address, cell=CellConfig(name=cell))


@asynccontextmanager
async def followed(plane: ControlPlane, folder: Path) -> AsyncIterator[Two]:
    """The cells, once they see the newest version."""
    async with AsyncExitStack() as stack:
        to = await stack.enter_async_context(stubs(plane))
        name = f"rides_{uuid.uuid4().hex[:8]}"
        two = Two(to, plane, name, {})
        await two.apply(*(cell_of(cell) for cell in two.cell.values()))
        feeds = {
            short: await stack.enter_async_context(follow_desired(config(folder, cell, plane.address), testing.context()))
            for short, cell in two.cell.items()
        }
        two = dataclasses.replace(two, feeds=feeds)
        for text in (FIRST, SECOND, THIRD):
            await two.schema(text)
        for short in feeds:
            await two.sees(short, 3)
        yield two
        for cell in two.cell.values():  # other tests of the control plane have its own cell only
            await to.control.DeleteResource(pb.DeleteResourceRequest(kind="Cell", name=cell, approvals=[f"Cell/{cell}:deleted"]))


@pytest.fixture
async def two(shared_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Two]:
    """Cells of the shared control plane."""
    async with followed(shared_plane, tmp_path) as found:
        yield found


async def test_only_the_cell_that_pins_goes_by_the_pinned_version(two: Two, tmp_path: Path) -> None:
    """On its disk too, without a control plane; a new version passes it by; without the pin it sees the newest; the status says so."""
    await two.pin("eu", 2)
    await two.sees("eu", 2)
    pinned = [each for each in (await two.got()).status.conditions if each.type == "Pinned"]
    assert [(each.cell, each.message) for each in pinned] == [
        (two.cell["eu"], f"cell {two.cell['eu']} stays at version 2; declared is version 3")
    ]
    await two.schema(RIDE.format(more="int64 tip = 4; string note = 5; bool paid = 6;"))
    await two.sees("us", 4)
    assert version_of(two.feeds["eu"], two.name) == 2
    seen = two.feeds["eu"].current.schemas[two.name]
    assert "note" not in seen.schema.definition and "tip" in seen.schema.definition
    restarted = tmp_path / "restarted"
    restarted.mkdir()
    (restarted / two.cell["eu"]).symlink_to(tmp_path / two.cell["eu"])
    async with follow_desired(config(restarted, two.cell["eu"], None), testing.context()) as feed:
        assert version_of(feed, two.name) == 2 and "note" not in columns_of(topic(two.name), feed.schemas).names
    described = await two.to.control.DescribeResource(pb.DescribeResourceRequest(kind="Schema", name=two.name))
    assert f"Cell/{two.cell['eu']}" in described.referred_to_by
    await two.pin("eu", 0)
    await two.sees("eu", 4)
    assert not [each for each in (await two.got()).status.conditions if each.type == "Pinned"]


async def test_a_watcher_that_was_away_learns_of_a_pin(two: Two, tmp_path: Path) -> None:
    """It goes on after its version, and finds that it sees another schema."""
    async with follow_desired(config(tmp_path / "other", two.cell["us"], two.plane.address), testing.context()) as feed:
        await eventually(lambda: _is(version_of(feed, two.name) == 3), "the newest")
    await two.pin("us", 1)
    async with follow_desired(config(tmp_path / "other", two.cell["us"], two.plane.address), testing.context()) as feed:
        await eventually(lambda: _is(version_of(feed, two.name) == 1), "the pinned")


async def _is(value: bool) -> bool:
    return value


async def test_a_pin_to_what_is_not_there_is_refused(two: Two) -> None:
    """With the versions that are; so is a schema that is pinned twice or not declared, and a version that was deleted."""
    name, cell = two.name, two.cell["eu"]
    wrong = {
        "Schema/" + name + " has no version 9; there are 1, 2, 3": [(name, 9)],
        "schema_pins must name each schema once": [(name, 1), (name, 2)],
        "refers to Schema/nowhere, which does not exist": [("nowhere", 1)],
        "greater than or equal to 1": [(name, 0)],
    }
    for why, pins in wrong.items():
        for call in (two.to.control.Plan(pb.PlanRequest(resources=[cell_of(cell, pins)])), two.apply(cell_of(cell, pins))):
            with pytest.raises(ArterialError) as caught:
                await call
            assert why in str([each.description for each in caught.value.violations]), caught.value
    async with rest(two.plane) as http:
        assert (await http("DELETE", f"/subjects/{name}-value/versions/1"))[0] == 200
    with pytest.raises(ArterialError) as caught:
        await two.pin("eu", 1)
    assert caught.value.violations[0].field == "resources[0].spec.schemaPins[0].version"
    assert caught.value.violations[0].description == f"Schema/{name} has no version 1; there are 2, 3"


async def test_a_pin_may_come_with_its_schema(two: Two) -> None:
    """To the version that this makes, and to no other."""
    new = await two.got()
    new.metadata.name, new.metadata.resource_version = f"{two.name}_new", 0
    for version in (2, 1):
        wanted = two.apply(new, cell_of(two.cell["eu"], [(new.metadata.name, version)]))
        if version == 1:
            await wanted
            continue
        with pytest.raises(ArterialError) as caught:
            await wanted
        assert [each.description for each in caught.value.violations] == [f"Schema/{new.metadata.name} has no version 2; there are 1"]


async def test_what_a_cell_pins_cannot_be_deleted(two: Two) -> None:
    """Neither the version, softly or for good, nor the subject, nor the Schema; without the pin they can."""
    subject = f"/subjects/{two.name}-value"
    await two.pin("eu", 1)
    async with rest(two.plane) as http:
        for path in (f"{subject}/versions/1", f"{subject}/versions/1?permanent=true", subject):
            status, body = await http("DELETE", path)
            if "permanent" in path:
                assert body["error_code"] == 40407  # softly first, which is refused
            else:
                assert (status, body["error_code"]) == (422, 42206) and two.cell["eu"] in body["message"]
        assert (await http("DELETE", f"{subject}/versions/2"))[0] == 200
        with pytest.raises(ArterialError) as caught:
            await two.to.control.DeleteResource(pb.DeleteResourceRequest(kind="Schema", name=two.name))
        assert caught.value.reason is Reason.REFUSED and f"Cell/{two.cell['eu']}" in caught.value.message
        assert CODE not in caught.value.metadata
        await two.pin("eu", 0)
        assert (await http("DELETE", f"{subject}/versions/1"))[0] == 200
        await two.to.control.DeleteResource(pb.DeleteResourceRequest(kind="Schema", name=two.name))


async def test_publish_and_plain_values_go_by_the_pin_and_framed_ones_by_their_writer(two: Two, kafka_config: KafkaConfig) -> None:
    """The same bytes: the pinned cell frames them with its id and has no column of the newest version; a framed record brings its own."""
    await two.pin("eu", 1)
    await two.sees("eu", 1)
    spec = specs_pb2.TopicSpec(key_field="city_id", partitions=1, schema=two.name)
    metadata = resource_pb2.Metadata(name=two.name, owner="data-platform")
    await two.apply(resource_pb2.Resource(api_version="arterial.dev/v1", kind="Topic", metadata=metadata, topic=spec))
    await kafka.ensure_topics(kafka_config, [topic(two.name)])
    ids = {short: feed.schemas.id_of(topic(two.name)) for short, feed in two.feeds.items()}
    assert ids["eu"] != ids["us"] and ids["us"] is not None
    newest = two.feeds["us"].schemas.of(topic(two.name))
    columns = {"event_id": pa.array([b"0123456789abcdef"]), "event_time": pa.array([0], pa.timestamp("us", "UTC"))}
    (payload,) = newest.encode(columns | {"note": pa.array(["n"]), "tip": pa.array([5])}, 1)  # type: ignore[attr-defined]
    producer = kafka.producer(kafka_config)
    await producer.start()
    try:
        for feed in two.feeds.values():
            await eventually(lambda feed=feed: _is(two.name in feed.current.topics), "the topic")  # type: ignore[misc]
            await Publisher(producer, feed).publish(two.name, [payload], 0)
    finally:
        await producer.stop()
    written = await read(kafka_config, two.name, 2)
    assert [split(value)[0] for value in written] == [ids["eu"], ids["us"]]
    plain = dataclasses.replace(topic(two.name), adoption=Adoption(False, "event_id", "event_time"), any_partition=True)
    pinned = two.feeds["eu"]
    names = {short: judge(plain, feed.schemas, [payload], None).columns.schema.names for short, feed in two.feeds.items()}
    assert "note" in names["us"] and "note" not in names["eu"] and "tip" not in names["eu"]
    framed = frame(ids["us"], payload)
    await pinned.find_schemas(topic(two.name), [framed])
    assert judge(topic(two.name), pinned.schemas, [framed], None).columns["note"].to_pylist() == ["n"]


async def test_the_command_line_publishes_what_its_cell_pins(plane: ControlPlane, tmp_path: Path) -> None:
    """`arterial publish` in the stack's own cell, which is called local."""
    async with followed(plane, tmp_path) as two, channel(plane.address) as connection:
        spec = specs_pb2.TopicSpec(key_field="city_id", schema=two.name)
        metadata = resource_pb2.Metadata(name=two.name, owner="data-platform")
        await two.apply(resource_pb2.Resource(api_version="arterial.dev/v1", kind="Topic", metadata=metadata, topic=spec))
        newest, descriptor = await written_with(connection, two.name)
        assert "note" in descriptor.fields_by_name
        local = (await two.to.control.GetResource(pb.GetResourceRequest(kind="Cell", name="local"))).resource
        local.cell.schema_pins.add(schema=two.name, version=2)
        await two.apply(local)
        pinned, descriptor = await written_with(connection, two.name)
        assert pinned != newest and "tip" in descriptor.fields_by_name and "note" not in descriptor.fields_by_name


async def read(config: KafkaConfig, name: str, count: int) -> list[bytes]:
    """The first values of partition 0."""
    consumer = kafka.consumer(config)
    await consumer.start()
    try:
        (partition,) = kafka.partitions(topic(name))
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        found: list[bytes] = []
        while len(found) < count:
            found += [record.value for records in (await consumer.getmany(timeout_ms=500)).values() for record in records]
        return found
    finally:
        await consumer.stop()


async def test_a_pin_and_a_schema_that_go_from_cell_to_cell(plane: ControlPlane, tmp_path: Path) -> None:
    """A cell pins when it is its turn; a Schema is held back from the others until theirs, and processes that know it let it go on."""
    await soaking(plane, 3600.0)
    async with followed(plane, tmp_path) as two, follow_desired(config(tmp_path, "local", plane.address), testing.context()) as local:
        await eventually(lambda: _is(version_of(local, two.name) == 3), "the newest")
        await two.schema(RIDE.format(more="int64 tip = 4; string note = 5; bool paid = 6;"), canary=two.cell["us"])
        await two.sees("us", 4)
        ready = partial(ready_in, two, two.cell["us"])
        await eventually(ready, "a process of us that says that it knows the schema")
        assert [version_of(feed, two.name) for feed in (two.feeds["eu"], local)] == [3, 3]
        await soaking(plane, 0.0)
        await two.sees("eu", 4)
        await eventually(lambda: _is(version_of(local, two.name) == 4), "the last cell")
        await soaking(plane, 3600.0)
        await two.pin("eu", 1, canary=two.cell["us"])
        await eventually(lambda: _is(pins_seen(two, "us") == 1), "the pin")
        assert "Pinned" in [each.type for each in (await two.got()).status.conditions]
        assert [version_of(feed, two.name) for feed in two.feeds.values()] == [4, 4] and pins_seen(two, "eu") == 0
        await soaking(plane, 0.0)
        await two.sees("eu", 1)
        assert version_of(two.feeds["us"], two.name) == 4


async def soaking(plane: ControlPlane, seconds: float) -> None:
    """Has a well cell believed after so long."""
    await plane.stop()
    plane.config = plane.config.model_copy(update={"rollout_soak_seconds": seconds, "rollout_timeout_seconds": 7200.0})
    await plane.start()
    async with stubs(plane):
        pass  # it answers


async def ready_in(two: Two, cell: str) -> bool:
    """Whether a process of the cell says that the newest generation is ready."""
    found = await two.got()
    ready = [each for each in found.status.conditions if (each.type, each.cell, each.status) == ("Ready", cell, "True")]
    return [each.observed_generation for each in ready] == [found.metadata.generation]


def pins_seen(two: Two, short: str) -> int:
    """Pins of eu as a cell sees them."""
    found = [each for each in two.feeds[short].current.resources if (each.kind, each.metadata.name) == ("Cell", two.cell["eu"])]
    return len(found[0].cell.schema_pins)
