"""Calls between services: typed errors, constraints, deadlines, retries, drain; over real sockets."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from pydantic import ValidationError

from arterial.api.pricing.v1 import pricing_service_pb2 as pb
from arterial.api.pricing.v1 import pricing_service_pb2_grpc
from chassis import testing
from chassis.config import RpcConfig
from chassis.errors import ArterialError, Reason, Violation
from chassis.process import Context
from chassis.rpc import deadlines
from chassis.rpc.client import channel
from chassis.rpc.server import serve

GOOD = pb.GetSurgeRequest(city_id=1, cell=1)
Behaviour = Callable[[pb.GetSurgeRequest, Any], Awaitable[pb.GetSurgeResponse]]


class Pricing(pricing_service_pb2_grpc.PricingServiceServicer):
    """Serves GetSurge by a given behaviour."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    async def GetSurge(self, request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        """As told."""
        return await self._behaviour(request, context)

    async def ListCitySurge(self, request: pb.ListCitySurgeRequest, context: Any) -> pb.ListCitySurgeResponse:
        """Nothing."""
        return pb.ListCitySurgeResponse()

    async def Quote(self, request: pb.QuoteRequest, context: Any) -> pb.QuoteResponse:
        """Nothing."""
        return pb.QuoteResponse()

    async def ForecastDemand(self, request: pb.ForecastDemandRequest, context: Any) -> pb.ForecastDemandResponse:
        """Nothing."""
        return pb.ForecastDemandResponse()


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[tuple[str, Context]]:
    """A server on a free port."""
    context = testing.context()
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def register(server: grpc.aio.Server) -> list[str]:
        pricing_service_pb2_grpc.add_PricingServiceServicer_to_server(Pricing(behaviour), server)
        return [pb.DESCRIPTOR.services_by_name["PricingService"].full_name]

    task = asyncio.create_task(serve(RpcConfig(port=0, drain_seconds=60), register, context, bound=bound))
    try:
        yield f"127.0.0.1:{await bound}", context
    finally:
        context.stopping.set()
        await task


async def get_surge(address: str, request: pb.GetSurgeRequest = GOOD, timeout: float = 60.0, attempts: int = 4) -> pb.GetSurgeResponse:
    """One call."""
    async with channel(address, attempts=attempts) as connection:
        return await pricing_service_pb2_grpc.PricingServiceStub(connection).GetSurge(request, timeout=timeout)


@pytest.mark.parametrize("reason", list(Reason))
async def test_an_error_crosses_the_wire_intact(reason: Reason) -> None:
    """Reason, message, violations and metadata arrive as they were raised."""
    raised = ArterialError(reason, "why", violations=[Violation("a.b", "wrong")], metadata={"hint": "x"})

    async def fail(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        raise raised

    async with serving(fail) as (address, _):
        with pytest.raises(ArterialError) as caught:
            await get_surge(address, attempts=1)
    error = caught.value
    assert (error.reason, error.message, error.violations, error.metadata) == (reason, "why", raised.violations, {"hint": "x"})


async def test_an_unforeseen_exception_tells_nothing_about_the_inside() -> None:
    """The caller learns INTERNAL; the details are for the log."""

    async def fail(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        raise KeyError("secret")

    async with serving(fail) as (address, _):
        with pytest.raises(ArterialError) as caught:
            await get_surge(address)
    assert caught.value.reason is Reason.INTERNAL and "secret" not in str(caught.value)


async def test_every_broken_constraint_is_named_and_the_handler_not_called() -> None:
    """One violation per field."""

    async def unreachable(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        raise AssertionError("called")

    async with serving(unreachable) as (address, _):
        with pytest.raises(ArterialError) as caught:
            await get_surge(address, pb.GetSurgeRequest())
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert {violation.field for violation in caught.value.violations} == {"city_id", "cell"}


async def test_an_unavailable_server_is_asked_again() -> None:
    """Two failures with UNAVAILABLE, then the answer: the retry policy is where gRPC reads it."""
    calls = 0

    async def third_time(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, "not yet")
        return pb.GetSurgeResponse()

    async with serving(third_time) as (address, _):
        await get_surge(address)
    assert calls == 3


async def test_a_refusal_is_not_asked_again() -> None:
    """Only UNAVAILABLE is retried."""
    calls = 0

    async def refuse(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        nonlocal calls
        calls += 1
        raise ArterialError(Reason.REFUSED, "no")

    async with serving(refuse) as (address, _):
        with pytest.raises(ArterialError):
            await get_surge(address)
    assert calls == 1


async def test_deadlines_are_handed_on_and_shaved_at_each_hop() -> None:
    """The first server has what the caller gave (gRPC rounds it up by as much as a hundredth), the second what is left, shaved."""
    left: list[float] = []

    async def inner(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        left.append(context.time_remaining())
        return pb.GetSurgeResponse()

    async with serving(inner) as (inner_address, _):

        async def outer(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
            left.append(context.time_remaining())
            return await get_surge(inner_address, timeout=600)

        async with serving(outer) as (outer_address, _):
            await get_surge(outer_address, timeout=60)
    assert left[0] <= 60 * 1.01
    assert 0 < left[1] < left[0] * (1 - deadlines.SHAVE_SHARE) * 1.01


async def test_calls_in_flight_finish_while_the_server_drains() -> None:
    """A stop lets the call end and refuses new ones."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        entered.set()
        await release.wait()
        return pb.GetSurgeResponse()

    async with serving(slow) as (address, context):
        call = asyncio.create_task(get_surge(address))
        await entered.wait()
        context.stopping.set()
        await asyncio.sleep(0.3)
        with pytest.raises(ArterialError) as caught:
            await get_surge(address, attempts=1, timeout=1)
        release.set()
        assert await call == pb.GetSurgeResponse()
    assert caught.value.reason in (Reason.DEPENDENCY_UNAVAILABLE, Reason.DEADLINE_EXCEEDED)


async def test_a_cancelled_call_is_cancelled_on_the_server() -> None:
    """Work that nobody waits for stops."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(request: pb.GetSurgeRequest, context: Any) -> pb.GetSurgeResponse:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return pb.GetSurgeResponse()

    async with serving(endless) as (address, _):
        call = asyncio.create_task(get_surge(address, timeout=30))
        await entered.wait()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 60)


@asynccontextmanager
async def taking_streams() -> AsyncIterator[str]:
    """A server whose one method reads all requests of a stream and then does not answer for a minute."""

    async def take(requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for _ in requests:
            pass
        await asyncio.sleep(60)
        return b""

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("test.Streams", {"Take": grpc.stream_unary_rpc_method_handler(take)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def send(address: str, requests: AsyncIterable[bytes] | Iterable[bytes], timeout: float) -> None:
    """One stream of requests."""
    async with channel(address) as connection:
        await connection.channel_ready()
        await connection.stream_unary("/test.Streams/Take", bytes, bytes)(requests, timeout=timeout)


@pytest.mark.parametrize("after", [0, 1])
async def test_a_deadline_that_runs_out_while_requests_are_sent_is_a_typed_error(after: int) -> None:
    """Also if it has run out before the end of the stream is sent: nobody is cancelled who was not."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"one"
        # The loop stands still: the call has ended before anything else can be written.
        time.sleep(0.1)  # noqa: ASYNC251
        for _ in range(after):
            yield b"two"

    async with taking_streams() as address:
        with pytest.raises(ArterialError) as caught:
            await send(address, requests(), timeout=0.05)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_what_the_iterator_of_requests_raises_reaches_the_caller() -> None:
    """And not a cancellation of whoever waits for the call."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"one"
        raise OSError("the file is gone")

    async with taking_streams() as address:
        with pytest.raises(OSError, match="the file is gone"):
            await send(address, requests(), timeout=30)


async def test_requests_may_be_any_iterable() -> None:
    """Also one that does not wait for anything, and fails."""

    def requests() -> Iterator[bytes]:
        yield b"one"
        raise OSError("the file is gone")

    async with taking_streams() as address:
        with pytest.raises(OSError, match="the file is gone"):
            await send(address, requests(), timeout=30)
        with pytest.raises(ArterialError):
            await send(address, [b"one", b"two"], timeout=0.1)


async def test_requests_are_not_asked_for_after_the_call_has_ended() -> None:
    """The iterator is closed: what it holds is let go."""
    closed = asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.sleep(60)
        finally:
            closed.set()

    async with taking_streams() as address:
        with pytest.raises(ArterialError):
            await send(address, requests(), timeout=0.1)
        await asyncio.wait_for(closed.wait(), 60)


def test_a_server_listens_beyond_loopback_only_with_tls() -> None:
    """Plain text stays on the machine."""
    with pytest.raises(ValidationError, match="not loopback"):
        RpcConfig(host="0.0.0.0", port=1)
