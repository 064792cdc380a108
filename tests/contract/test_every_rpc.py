"""Every RPC of every service, over the wire, on the running stack."""

import time
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, schema_registry_service_pb2, specs_pb2
from arterial.api.events.v1 import trip_event_pb2
from arterial.api.ingestion.v1 import ingestion_service_pb2 as ingestion
from arterial.api.pricing.v1 import pricing_service_pb2 as pricing
from arterial.api.types.v1 import page_pb2, position_pb2
from chassis.errors import ArterialError, Reason
from chassis.rpc.client import channel

CELL = 0x882A100D2DFFFFF
LONG = "x" * 300
BAD_PAGE = page_pb2.PageRequest(page_size=5000)


def trip_event() -> bytes:
    """A valid trip event, serialised."""
    event = trip_event_pb2.TripEvent(event_id=uuid.uuid4().bytes, city_id=1, trip_id="contract", producer="contract")
    event.event_time.GetCurrentTime()
    event.trip_requested_at.GetCurrentTime()
    return event.SerializeToString()


def dataset(name: str = "contract/dataset", tier: int = 2) -> resource_pb2.Resource:
    """A dataset resource; tier 9 is invalid."""
    return resource_pb2.Resource(
        api_version="arterial.dev/v1",
        kind="Dataset",
        metadata=resource_pb2.Metadata(name=name, owner="data-platform"),
        dataset=specs_pb2.DatasetSpec(description="for the contract test", tier=tier),
    )


def schema() -> schema_registry_service_pb2.Schema:
    """A small self-contained schema."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="contract/v1/thing.proto", package="contract.v1", syntax="proto3")
    message = file.message_type.add(name="Thing")
    message.field.add(name="event_id", number=1, type=12, label=1)
    return schema_registry_service_pb2.Schema(file_descriptor_set=files.SerializeToString(), message="contract.v1.Thing")


@dataclass(frozen=True)
class Case:
    """A request that is answered, one that breaks the contract in `field`, and the refusals that count as an answer."""

    good: Message
    bad: Message
    field: str
    accepted: frozenset[Reason] = frozenset()


CASES = {
    "IngestionService/Publish": Case(
        ingestion.PublishRequest(frame_id=1, topic="trip_events_v2", records=[trip_event()]),
        ingestion.PublishRequest(records=[b"x"]),
        "topic",
    ),
    "IngestionService/GetPipelineStatus": Case(
        ingestion.GetPipelineStatusRequest(), ingestion.GetPipelineStatusRequest(topic=LONG), "topic"
    ),
    "IngestionService/ListLag": Case(ingestion.ListLagRequest(), ingestion.ListLagRequest(page=BAD_PAGE), "page.page_size"),
    "IngestionService/Audit": Case(
        ingestion.AuditRequest(topics=["app_telemetry_v1"]), ingestion.AuditRequest(ledger_topic=LONG), "ledger_topic"
    ),
    "IngestionService/ListDeadLetters": Case(
        ingestion.ListDeadLettersRequest(), ingestion.ListDeadLettersRequest(page=BAD_PAGE), "page.page_size"
    ),
    "PricingService/GetSurge": Case(
        pricing.GetSurgeRequest(city_id=1, cell=CELL), pricing.GetSurgeRequest(city_id=0, cell=CELL), "city_id"
    ),
    "PricingService/ListCitySurge": Case(
        pricing.ListCitySurgeRequest(city_id=1), pricing.ListCitySurgeRequest(city_id=1, page=BAD_PAGE), "page.page_size"
    ),
    "PricingService/Quote": Case(
        pricing.QuoteRequest(
            city_id=1,
            product="standard",
            pickup=position_pb2.Position(latitude=40.75, longitude=-73.98),
            distance_m=3000,
            duration_seconds=600,
        ),
        pricing.QuoteRequest(city_id=1, product="standard", pickup=position_pb2.Position(latitude=140.0, longitude=-73.98)),
        "pickup",
    ),
    "ControlPlaneService/Plan": Case(
        control.PlanRequest(resources=[dataset()]), control.PlanRequest(resources=[dataset(tier=9)]), "resources[0].dataset.tier"
    ),
    "ControlPlaneService/Apply": Case(
        control.ApplyRequest(resources=[dataset()]), control.ApplyRequest(resources=[dataset(tier=9)]), "resources[0].dataset.tier"
    ),
    "ControlPlaneService/GetResource": Case(
        control.GetResourceRequest(kind="Topic", name="trip_events_v2"), control.GetResourceRequest(name="trip_events_v2"), "kind"
    ),
    "ControlPlaneService/ListResources": Case(
        control.ListResourcesRequest(kind="Topic"), control.ListResourcesRequest(page=BAD_PAGE), "page.page_size"
    ),
    "ControlPlaneService/DeleteResource": Case(
        control.DeleteResourceRequest(kind="Dataset", name="contract/absent"),
        control.DeleteResourceRequest(kind="Dataset"),
        "name",
        frozenset({Reason.NOT_FOUND}),
    ),
    "ControlPlaneService/Watch": Case(control.WatchRequest(), control.WatchRequest(resource_version=-1), "resource_version"),
    "ControlPlaneService/ReportStatus": Case(
        control.ReportStatusRequest(kind="Topic", name="trip_events_v2", status=resource_pb2.Status()),
        control.ReportStatusRequest(kind="Topic", name="trip_events_v2"),
        "status",
    ),
    "SchemaRegistryService/RegisterSchema": Case(
        schema_registry_service_pb2.RegisterSchemaRequest(subject="contract-value", schema=schema()),
        schema_registry_service_pb2.RegisterSchemaRequest(schema=schema()),
        "subject",
    ),
    "SchemaRegistryService/GetSchema": Case(
        schema_registry_service_pb2.GetSchemaRequest(schema_id=1), schema_registry_service_pb2.GetSchemaRequest(), "schema_id"
    ),
    "SchemaRegistryService/CheckSchema": Case(
        schema_registry_service_pb2.CheckSchemaRequest(subject="contract-value", schema=schema()),
        schema_registry_service_pb2.CheckSchemaRequest(subject="contract-value"),
        "schema",
    ),
}


def services() -> list[ServiceDescriptor]:
    """The services of the contracts."""
    files = {case.good.DESCRIPTOR.file.name for case in CASES.values()}
    pool = descriptor_pool.Default()
    return [service for name in sorted(files) for service in pool.FindFileByName(name).services_by_name.values()]


def methods() -> list[MethodDescriptor]:
    """Every RPC of the contracts."""
    return [method for service in services() for method in service.methods]


def key(method: MethodDescriptor) -> str:
    """Service and method, as in CASES."""
    return f"{method.containing_service.name}/{method.name}"


def address_of(addresses: dict[str, str], service: ServiceDescriptor) -> str:
    """Where the service listens: the domain is the third part of its package."""
    return addresses[service.full_name.split(".")[2]]


async def call(address: str, method: MethodDescriptor, request: Message, timeout: float = 60.0) -> Message:
    """Calls any RPC with one request; of a stream, returns the first response."""
    async with channel(address) as connection:
        path = f"/{method.containing_service.full_name}/{method.name}"
        serialise, parse = type(request).SerializeToString, message_factory.GetMessageClass(method.output_type).FromString

        async def requests() -> AsyncIterator[Message]:
            yield request

        if method.client_streaming and method.server_streaming:
            return await first(connection.stream_stream(path, serialise, parse)(requests(), timeout=timeout))
        if method.client_streaming:
            return await connection.stream_unary(path, serialise, parse)(requests(), timeout=timeout)  # type: ignore[no-any-return]
        if method.server_streaming:
            return await first(connection.unary_stream(path, serialise, parse)(request, timeout=timeout))
        return await connection.unary_unary(path, serialise, parse)(request, timeout=timeout)  # type: ignore[no-any-return]


async def first(responses: Any) -> Message:
    """The first response of a stream."""
    async for response in responses:
        responses.cancel()
        return response  # type: ignore[no-any-return]
    raise AssertionError("the stream ended without a response")


def ids(values: Iterable[MethodDescriptor]) -> list[str]:
    """Readable test ids."""
    return [key(value) for value in values]


def test_every_rpc_of_the_contracts_has_a_case() -> None:
    """A new RPC without a case fails here."""
    assert {key(method) for method in methods()} == set(CASES)


@pytest.mark.parametrize("method", methods(), ids=ids(methods()))
async def test_a_good_request_is_answered(addresses: dict[str, str], method: MethodDescriptor) -> None:
    """The happy path answers, or refuses with a reason that the contract states."""
    case = CASES[key(method)]
    try:
        await call(address_of(addresses, method.containing_service), method, case.good)
    except ArterialError as error:
        assert error.reason in case.accepted, error


@pytest.mark.parametrize("method", methods(), ids=ids(methods()))
async def test_a_bad_request_names_the_field(addresses: dict[str, str], method: MethodDescriptor) -> None:
    """Bad input gives INVALID_REQUEST with a violation of that field."""
    case = CASES[key(method)]
    with pytest.raises(ArterialError) as caught:
        await call(address_of(addresses, method.containing_service), method, case.bad)
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert case.field in [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("service", services(), ids=[service.name for service in services()])
async def test_health_and_reflection_name_the_service(addresses: dict[str, str], service: ServiceDescriptor) -> None:
    """A stranger's client discovers the service and its health."""
    async with grpc.aio.insecure_channel(address_of(addresses, service)) as connection:
        stubs: Any = health_pb2_grpc
        health = await stubs.HealthStub(connection).Check(health_pb2.HealthCheckRequest(service=service.full_name))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        discovery: Any = reflection_pb2_grpc
        stub = discovery.ServerReflectionStub(connection)
        async for reply in stub.ServerReflectionInfo(iter([asked])):
            assert service.full_name in [listed.name for listed in reply.list_services_response.service]
            break


async def test_a_deadline_that_ran_out_is_a_typed_error(addresses: dict[str, str]) -> None:
    """The caller sees DEADLINE_EXCEEDED with its reason, soon after its time ran out."""
    method = next(method for method in methods() if method.name == "Audit")
    began = time.monotonic()
    with pytest.raises(ArterialError) as caught:
        await call(addresses["ingestion"], method, ingestion.AuditRequest(), timeout=0.01)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 30


async def test_a_cancelled_watch_leaves_the_server_well(addresses: dict[str, str]) -> None:
    """Cancelling streams costs the server nothing: it answers as before."""
    watch = next(method for method in methods() if method.name == "Watch")
    get = next(method for method in methods() if method.name == "GetResource")
    for _ in range(20):
        await call(addresses["controlplane"], watch, control.WatchRequest())
    assert await call(addresses["controlplane"], get, CASES[key(get)].good)
