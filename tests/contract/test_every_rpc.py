"""Every RPC of every service, over the wire, on the running stack."""

import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.ingestion.v1 import ingestion_service_pb2 as ingestion
from chassis.errors import ArterialError, Reason
from chassis.rpc.client import channel
from tests.contract.cases import all_cases

CASES = all_cases()


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
