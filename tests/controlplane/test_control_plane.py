"""Plan, apply, watch and schemas over the wire; the data plane's last good state."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf import descriptor_pb2

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc as grpc_stubs
from arterial.api.controlplane.v1 import resource_pb2, schema_registry_service_pb2, schema_registry_service_pb2_grpc
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from arterial.api.types.v1 import page_pb2
from chassis import desired, resourcefiles, sql, testing
from chassis.config import RpcConfig, ServiceConfig, SqlConfig
from chassis.desired import Desired, DesiredFeed
from chassis.errors import ArterialError, Reason
from chassis.testing import channel, eventually
from chassis.topics import Adoption, Topic
from chassis.wire import descriptor_set, frame
from deploy.local.child import free_port
from services.controlplane.config import ControlPlaneConfig, RegistryConfig
from services.controlplane.resources.store import CHANGES, RESOURCES
from tests.controlplane.conftest import SEED, ControlPlane

# The generated stubs are typed for the synchronous runtime.
Stub = Any


@asynccontextmanager
async def connected(plane: ControlPlane) -> AsyncIterator[Stub]:
    """A stub, once the server answers."""
    async with channel(plane.address) as connection:
        await asyncio.wait_for(connection.channel_ready(), 60)
        yield grpc_stubs.ControlPlaneServiceStub(connection)


async def found(stub: Stub, kind: str, name: str) -> resource_pb2.Resource:
    """One resource."""
    reply: pb.GetResourceResponse = await stub.GetResource(pb.GetResourceRequest(kind=kind, name=name))
    return reply.resource


def seeds() -> list[resource_pb2.Resource]:
    """The seed resources."""
    return resourcefiles.read([SEED])


@pytest.mark.parametrize("what", ["port", "loop"])
async def test_a_process_that_cannot_do_all_of_its_work_ends(database_url: str, tmp_path: Path, what: str) -> None:
    """Whether a port is another's, or one of its loops fails: else leases would never run out, and nobody would know."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        registry = RegistryConfig(port=taken.getsockname()[1]) if what == "port" else None
        config = ControlPlaneConfig(state_dir=tmp_path, sql=SqlConfig(url=database_url), rpc=RpcConfig(port=free_port()), registry=registry)
        plane = ControlPlane(config)
        await plane.start()
        assert plane.task is not None
        if what == "loop":
            async with connected(plane):
                engine = sql.engine(config.sql)
                async with engine.begin() as connection:
                    await connection.execute(sa.insert(RESOURCES).values(kind="Model", name="torn", version=1, body=b"\xff"))
                    await connection.execute(sa.insert(CHANGES).values(kind="Model", name="torn", version=1, actor="", message=""))
                await engine.dispose()
        await asyncio.wait({plane.task}, timeout=60)
        assert plane.task.done()
        with pytest.raises(ExceptionGroup):
            await plane.task


async def test_applying_what_is_so_already_changes_nothing(plane: ControlPlane) -> None:
    """Idempotent: no change, no new version."""
    async with connected(plane) as stub:
        before = (await found(stub, "Topic", "trip_events_v2")).metadata.resource_version
        reply = await stub.Apply(pb.ApplyRequest(resources=seeds()))
        assert {change.action for change in reply.changes} == {pb.Change.ACTION_NONE}
        assert (await found(stub, "Topic", "trip_events_v2")).metadata.resource_version == before


async def test_a_one_way_door_needs_an_approval_and_nothing_else_is_done_without(plane: ControlPlane) -> None:
    """All or none; the plan names the door."""
    by_name = {(resource.kind, resource.metadata.name): resource for resource in seeds()}
    wanted = [by_name["Topic", "trip_events_v2"], by_name["Pipeline", "raw"]]
    wanted[0].topic.partitions, wanted[1].pipeline.paused = 32, True
    async with connected(plane) as stub:
        planned = await stub.Plan(pb.PlanRequest(resources=wanted))
        doors = [f"{c.kind}/{c.name}:{f.path}" for c in planned.changes for f in c.fields if f.one_way_door]
        with pytest.raises(ArterialError) as caught:
            await stub.Apply(pb.ApplyRequest(resources=wanted))
        assert not (await found(stub, "Pipeline", "raw")).pipeline.paused
        await stub.Apply(pb.ApplyRequest(resources=wanted, approvals=doors))
        assert (await found(stub, "Topic", "trip_events_v2")).topic.partitions == 32
    assert (doors, caught.value.reason) == (["Topic/trip_events_v2:spec.partitions"], Reason.REFUSED)


async def test_of_two_concurrent_edits_the_second_is_told(plane: ControlPlane) -> None:
    """By resource version."""
    async with connected(plane) as stub:
        mine, theirs = await found(stub, "Pipeline", "raw"), await found(stub, "Pipeline", "raw")
        theirs.pipeline.interval_ms = 2000
        await stub.Apply(pb.ApplyRequest(resources=[theirs]))
        mine.pipeline.paused = True
        with pytest.raises(ArterialError) as caught:
            await stub.Apply(pb.ApplyRequest(resources=[mine]))
    assert caught.value.reason is Reason.CONFLICT


async def test_what_is_referred_to_cannot_be_deleted(plane: ControlPlane) -> None:
    """The message names who refers to it; what nobody refers to goes."""
    async with connected(plane) as stub:
        with pytest.raises(ArterialError, match="Pipeline/raw"):
            await stub.DeleteResource(pb.DeleteResourceRequest(kind="Topic", name="trip_events_v2"))
        await stub.DeleteResource(
            pb.DeleteResourceRequest(kind="Dataset", name="feature/surge", approvals=["Dataset/feature/surge:deleted"])
        )
        with pytest.raises(ArterialError) as caught:
            await found(stub, "Dataset", "feature/surge")
    assert caught.value.reason is Reason.NOT_FOUND


async def test_the_policy_of_a_running_pipeline_cannot_be_deleted(plane: ControlPlane) -> None:
    """Who computes surge, live speeds and decisions has no terms without it."""
    policies = {"PricingPolicy/surge": "Pipeline/surge", "EtaPolicy/eta": "Pipeline/speed", "RiskPolicy/risk": "Pipeline/risk"}
    async with connected(plane) as stub:
        for policy, pipeline in policies.items():
            kind, name = policy.split("/")
            request = pb.DeleteResourceRequest(kind=kind, name=name, approvals=[f"{policy}:deleted"])
            with pytest.raises(ArterialError, match=pipeline) as caught:
                await stub.DeleteResource(request)
            assert caught.value.reason is Reason.REFUSED


async def test_references_to_nothing_are_refused(plane: ControlPlane) -> None:
    """A pipeline over a topic that does not exist."""
    pipeline = next(resource for resource in seeds() if resource.kind == "Pipeline")
    pipeline.pipeline.topics.append("no_such_topic")
    async with connected(plane) as stub:
        with pytest.raises(ArterialError) as caught:
            await stub.Apply(pb.ApplyRequest(resources=[pipeline]))
    assert caught.value.reason is Reason.INVALID_REQUEST and "no_such_topic" in caught.value.violations[0].description


async def test_lists_are_paged_without_gaps_or_repeats(plane: ControlPlane) -> None:
    """Pages of 7 add up to all; a token of another list is refused."""
    names: list[tuple[str, str]] = []
    async with connected(plane) as stub:
        page = page_pb2.PageRequest(page_size=7)
        while True:
            reply = await stub.ListResources(pb.ListResourcesRequest(page=page))
            names += [(resource.kind, resource.metadata.name) for resource in reply.resources]
            if not reply.page.next_page_token:
                break
            page = page_pb2.PageRequest(page_size=7, page_token=reply.page.next_page_token)
        with pytest.raises(ArterialError) as caught:
            await stub.ListResources(pb.ListResourcesRequest(kind="Topic", page=page))
    assert sorted(names) == sorted((resource.kind, resource.metadata.name) for resource in seeds())
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


async def test_a_watcher_resumes_where_it_was(plane: ControlPlane) -> None:
    """Everything first, then what changed since the version that it names, deletions included."""
    async with connected(plane) as stub:
        version, kinds = 0, []
        async for event in stub.Watch(pb.WatchRequest(kinds=["Dataset"])):
            kinds.append(event.type)
            version = event.resource_version
            if event.type == pb.WatchResponse.TYPE_SYNCED:
                break
        assert (kinds[0], kinds[-1]) == (pb.WatchResponse.TYPE_RESYNC, pb.WatchResponse.TYPE_SYNCED)
        await stub.DeleteResource(
            pb.DeleteResourceRequest(kind="Dataset", name="feature/surge", approvals=["Dataset/feature/surge:deleted"])
        )
        later = []
        async for event in stub.Watch(pb.WatchRequest(kinds=["Dataset"], resource_version=version)):
            later.append((event.type, event.resource.metadata.name))
            if event.type == pb.WatchResponse.TYPE_SYNCED:
                break
    assert later == [(pb.WatchResponse.TYPE_DELETED, "feature/surge"), (pb.WatchResponse.TYPE_SYNCED, "")]


def schema(change: str = "") -> schema_registry_service_pb2.Schema:
    """The trip event's schema, changed."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set(TripEvent.DESCRIPTOR))
    message = files.file[-1].message_type[0]
    if change == "added":
        message.field.add(name="tip_minor", number=99, type="TYPE_INT64", label="LABEL_OPTIONAL")
    if change == "retyped":
        message.field[3].type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    if change == "removed":
        del message.field[-1]
    return schema_registry_service_pb2.Schema(file_descriptor_set=files.SerializeToString(), message=TripEvent.DESCRIPTOR.full_name)


async def test_schemas_are_checked_against_what_the_topic_has(plane: ControlPlane) -> None:
    """An added field is registered, once; retyped and removed ones are refused with path and rule."""
    subject = "trip_events_v2-value"
    async with connected(plane), channel(plane.address) as connection:
        stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(connection)
        for change, rule in (("retyped", "field_type_changed"), ("removed", "field_removed")):
            reply = await stub.CheckSchema(schema_registry_service_pb2.CheckSchemaRequest(subject=subject, schema=schema(change)))
            assert rule in [violation.rule for violation in reply.violations]
            with pytest.raises(ArterialError) as caught:
                await stub.RegisterSchema(schema_registry_service_pb2.RegisterSchemaRequest(subject=subject, schema=schema(change)))
            assert caught.value.reason is Reason.REFUSED and caught.value.violations
        request = schema_registry_service_pb2.RegisterSchemaRequest(subject=subject, schema=schema("added"))
        first, second = await stub.RegisterSchema(request), await stub.RegisterSchema(request)
        got = await stub.GetSchema(schema_registry_service_pb2.GetSchemaRequest(schema_id=first.schema_id))
    assert first == second and first.schema_id >= 1000 and first.version == 2
    wanted, kept = schema("added"), got.registered.schema
    assert (kept.file_descriptor_set, kept.message) == (wanted.file_descriptor_set, wanted.message)


def data_plane(tmp_path: Path, plane: ControlPlane | None) -> ServiceConfig:
    """Configuration of a process that follows the control plane."""
    return ServiceConfig(state_dir=tmp_path / "data-plane", resources_dir=SEED, control_plane=plane.address if plane else None)


async def test_a_process_reacts_to_changes_and_survives_the_control_plane(plane: ControlPlane, tmp_path: Path) -> None:
    """A change arrives without restart; away, the last good state stays, also across the process's own restart; back, it follows again."""
    config, context = data_plane(tmp_path, plane), testing.context()
    async with connected(plane) as stub, desired.follow_desired(config, context) as feed:
        pipeline = await found(stub, "Pipeline", "raw")
        pipeline.pipeline.paused = True
        await stub.Apply(pb.ApplyRequest(resources=[pipeline]))

        async def paused() -> bool:
            return feed.current.pipelines["raw"].paused

        await eventually(paused, "the change at the process")
    await plane.stop()
    async with desired.follow_desired(config, testing.context()) as again:
        assert again.current.pipelines["raw"].paused
        await plane.start()
        async with connected(plane) as stub:
            pipeline = await found(stub, "Pipeline", "raw")
            pipeline.pipeline.paused = False
            await stub.Apply(pb.ApplyRequest(resources=[pipeline]))

        async def resumed() -> bool:
            return not again.current.pipelines["raw"].paused

        await eventually(resumed, "the change after the control plane's return")


async def test_a_registered_schema_is_found_and_kept(plane: ControlPlane, tmp_path: Path) -> None:
    """A cell asks once, then decodes without the control plane."""
    async with connected(plane), channel(plane.address) as connection:
        stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(connection)
        request = schema_registry_service_pb2.RegisterSchemaRequest(subject="trip_events_v2-value", schema=schema("added"))
        schema_id = (await stub.RegisterSchema(request)).schema_id
    config = data_plane(tmp_path, plane)
    feed = DesiredFeed(desired.load(config), config.state_dir, config.control_plane)
    assert await feed.find_schema(schema_id) and not await feed.find_schema(999_999)
    alone = DesiredFeed(desired.load(config), config.state_dir, None)
    assert await alone.find_schema(schema_id)
    decoder = alone.schemas.get(schema_id)
    assert decoder is not None and "tip_minor" in decoder.arrow.names


async def test_schemas_that_cannot_be_found_hold_nothing_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A control plane that is away is not asked for each; what is not framed, and ids that there cannot be, are not asked for at all."""
    topic, plain = Topic("t", "m", "k"), Topic("t", "m", "k", adoption=Adoption(False, "id", "time"))
    feed = DesiredFeed(Desired(()), tmp_path, f"127.0.0.1:{free_port()}")
    await feed.find_schemas(topic, [b"\0" + number.to_bytes(4, "big") + b"rest" for number in (0, 2**31, 2**32 - 1)])
    await feed.find_schemas(plain, [frame(999_999, b"rest")])
    assert "schema not found" not in capsys.readouterr().err
    await feed.find_schemas(topic, [frame(number, b"rest") for number in range(900_000, 900_010)])
    await feed.find_schemas(topic, [frame(999_999, b"rest")])
    assert capsys.readouterr().err.count("schema not found") == 1


def test_a_corrupt_last_good_state_gives_way_to_the_seed(tmp_path: Path) -> None:
    """Half a file is not a state."""
    config = data_plane(tmp_path, None)
    feed = DesiredFeed(desired.load(config), config.state_dir, None)
    feed.replace(feed.current)
    file = config.state_dir / "last_good.pb"
    file.write_bytes(file.read_bytes()[:-7])
    assert desired.load(config).topics.keys() == feed.current.topics.keys()
