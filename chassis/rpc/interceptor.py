"""What surrounds every call on the server: trace, deadline, identity, validation, typed errors, metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_status import rpc_status
from opentelemetry import trace

from arterial.errors import to_status
from chassis.errors import ArterialError, Reason
from chassis.logs import logger
from chassis.rpc import deadlines
from chassis.rpc.validation import check
from chassis.telemetry import TRACEPARENT, Telemetry, context_from

# Given method and metadata, lets the caller pass or raises DENIED: the place where identity is checked.
Identity = Callable[[str, dict[str, Any]], Awaitable[None]]
_log = logger(__name__)


async def anyone(_method: str, _metadata: dict[str, Any]) -> None:
    """Lets every caller pass: servers listen on loopback only, unless TLS is configured."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server."""

    def __init__(self, telemetry: Telemetry, identity: Identity = anyone) -> None:
        self._tracer = telemetry.tracer
        self._identity = identity
        self._duration = telemetry.meter.create_histogram("rpc.server.duration", unit="ms", description="Time from request to answer")

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Replaces the handler by a wrapped one of the same kind."""
        handler = await continuation(details)
        if handler is None or details.method.startswith("/grpc."):
            return handler
        kind = ("stream" if handler.request_streaming else "unary") + "_" + ("stream" if handler.response_streaming else "unary")
        behaviour = getattr(handler, kind)
        wrapped = (self._streaming if handler.response_streaming else self._single)(details.method, behaviour, handler.request_streaming)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(wrapped, handler.request_deserializer, _serializer(handler.response_serializer))

    def _single(self, method: str, behaviour: Any, request_streaming: bool) -> Any:
        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._around(method, context):
                return await behaviour(_checked(request, request_streaming), context)

        return handle

    def _streaming(self, method: str, behaviour: Any, request_streaming: bool) -> Any:
        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async with self._around(method, context):
                async for response in behaviour(_checked(request, request_streaming), context):
                    yield response

        return handle

    @asynccontextmanager
    async def _around(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        metadata = dict(context.invocation_metadata() or ())
        began, outcome = time.monotonic(), "OK"
        deadlines.begin(context.time_remaining())
        parent = context_from(metadata.get(TRACEPARENT))
        with self._tracer.start_as_current_span(method.lstrip("/"), context=parent, kind=trace.SpanKind.SERVER) as span:
            try:
                await self._identity(method, metadata)
                yield
            except (asyncio.CancelledError, GeneratorExit):
                outcome = str(Reason.CANCELLED)
                raise
            except Exception as error:
                typed = _typed(error, method)
                outcome = str(typed.reason)
                span.set_status(trace.StatusCode.ERROR, outcome)
                await context.abort_with_status(rpc_status.to_status(to_status(typed)))
            finally:
                self._duration.record((time.monotonic() - began) * 1000, {"rpc.method": method, "outcome": outcome})


def _serializer(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A handler may answer bytes: what a thousand streams are sent is serialised once."""
    return lambda response: response if isinstance(response, bytes) else serialize(response)


def _typed(error: Exception, method: str) -> ArterialError:
    """Lower errors are translated here, once. What is not foreseen is a defect: logged whole, told without details."""
    if isinstance(error, ArterialError):
        return error
    if isinstance(error, TimeoutError):
        return ArterialError(Reason.DEADLINE_EXCEEDED, "the time of the call ran out")
    if isinstance(error, OSError):
        _log.warning("dependency unavailable", method=method, error=repr(error))
        return ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"an engine that is needed does not answer ({type(error).__name__})")
    _log.exception("unexpected error in a handler", method=method)
    return ArterialError(Reason.INTERNAL, "internal error; the log has the details")


def _checked(request: Any, streaming: bool) -> Any:
    if not streaming:
        check(request)
        return request
    return _checked_stream(request)


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        check(request)
        yield request
