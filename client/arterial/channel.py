"""A gRPC channel that retries what may be retried, bounds every unary call in time and raises `ArterialError`."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from arterial.errors import from_rpc

Metadata = tuple[tuple[str, str], ...]
Requests = AsyncIterable[Any] | Iterable[Any]
# Given the caller's timeout and metadata, what goes out: the place of deadlines and traces of a surrounding service.
Outgoing = Callable[[float | None, Metadata], tuple[float | None, Metadata]]
# Longest time of a unary call for which the caller named none: nothing waits for ever.
DEFAULT_TIMEOUT_SECONDS = 5.0
# A frame of records, or a page of 1,000 resources.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# A connection with a call in flight is pinged when it is quiet: one that is half open is noticed within 25 s. Channels to one address share
# a connection, so a new channel alone would not escape it. The servers of the suite allow it.
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 20_000),
    # Both are needed: in grpcio 1.85 the second is what a ping waits for, by default a minute (measured).
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)
# A server that was away is looked for at least this often. By itself gRPC pauses up to two minutes, in which all calls to the address fail,
# those of new channels too.
RECONNECT = (("grpc.max_reconnect_backoff_ms", 5_000),)


def service_config(attempts: int) -> str:
    """Retries on UNAVAILABLE. `retryPolicy` must sit inside `methodConfig`: anywhere else gRPC ignores it in silence."""
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}] if attempts > 1 else []})


@dataclass(frozen=True)
class _Method:
    """Any method of a channel: prepares the call, and wraps it so that its errors are typed."""

    call: Any
    outgoing: Outgoing
    unary: bool = False
    streams: bool = False

    def __call__(self, request: Any = None, timeout: float | None = None, metadata: Sequence[tuple[str, str]] | None = None) -> "Call":
        if timeout is None and self.unary:
            timeout = DEFAULT_TIMEOUT_SECONDS
        timeout, sent = self.outgoing(timeout, tuple(metadata or ()))
        if self.streams:
            return Call(self.call(timeout=timeout, metadata=sent), request)
        return Call(self.call(request, timeout=timeout, metadata=sent))


class Call:
    """A call in flight: await it, iterate it, cancel it; failures are `ArterialError`, or what the iterator of its requests raised."""

    def __init__(self, call: Any, requests: Requests | None = None) -> None:
        self._call = call
        self._failure: Exception | None = None
        if requests is not None:
            sending = asyncio.create_task(self._send(requests))
            # Whoever makes requests need not go on for a call that has ended.
            call.add_done_callback(lambda _: sending.cancel())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        with self._typed():
            return await self._call

    async def __aiter__(self) -> AsyncIterator[Any]:
        with self._typed():
            async for response in self._call:
                yield response

    async def _send(self, requests: Requests) -> None:
        """Sends the requests. gRPC's own loop takes a call that ends while it writes for our failure, and cancels who waits for it."""
        try:
            async for request in _each(requests):
                if not await _written(self._call.write(request)):
                    return
            await _written(self._call.done_writing())
        except Exception as error:
            self._failure = error
            self._call.cancel()

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            raise self._failure from None


async def _each(requests: Requests) -> AsyncIterator[Any]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


async def _written(writing: Awaitable[None]) -> bool:
    """Whether it could be written. If not, the call has ended, and its status says why."""
    try:
        await writing
    except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
        return False
    return True


def _unchanged(timeout: float | None, metadata: Metadata) -> tuple[float | None, Metadata]:
    return timeout, metadata


class Channel(grpc.aio.Channel):
    """Wraps a channel of gRPC; generated stubs take it as one."""

    def __init__(self, inner: grpc.aio.Channel, outgoing: Outgoing = _unchanged) -> None:
        self._inner = inner
        self._outgoing = outgoing

    async def __aenter__(self) -> "Channel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; calls in flight may go on for `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The channel's connectivity."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the connectivity is another."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the server is connected."""
        await self._inner.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """One request, one response."""
        return _Method(self._inner.unary_unary(*args, **kwargs), self._outgoing, unary=True)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """One request, a stream of responses."""
        return _Method(self._inner.unary_stream(*args, **kwargs), self._outgoing)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """A stream of requests, one response."""
        return _Method(self._inner.stream_unary(*args, **kwargs), self._outgoing, streams=True)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """A stream of requests, a stream of responses."""
        return _Method(self._inner.stream_stream(*args, **kwargs), self._outgoing, streams=True)


def connect(
    address: str, *, credentials: grpc.ChannelCredentials | None = None, attempts: int = 4, outgoing: Outgoing = _unchanged
) -> Channel:
    """A channel to host:port; plain text only without credentials. `attempts` counts the first try."""
    options = [
        ("grpc.service_config", service_config(attempts)),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        *KEEPALIVE,
        *RECONNECT,
    ]
    if credentials is None:
        return Channel(grpc.aio.insecure_channel(address, options=options), outgoing)
    return Channel(grpc.aio.secure_channel(address, credentials, options=options), outgoing)
