"""A control plane's schema registry as tests speak to it: by REST and by gRPC."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from arterial.api.controlplane.v1 import schema_registry_service_pb2_grpc as grpc_stubs
from chassis.testing import channel
from tests.controlplane.conftest import ControlPlane

JSON = {"Content-Type": "application/vnd.schemaregistry.v1+json"}


class Rest:
    """The REST API; every answer is (status, body)."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def __call__(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One call."""
        data = None if body is None else body if isinstance(body, str) else json.dumps(body)
        address = URL(self.url + path, encoded=True)
        async with self._session.request(method, address, data=data, headers=headers or (JSON if data is not None else {})) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if text.startswith(("{", "[", '"')) or text.isdigit() else text

    async def register(self, subject: str, schema: Any, kind: str = "AVRO", **more: Any) -> tuple[int, Any]:
        """Registers a schema."""
        query = "?normalize=true" if more.pop("normalize", False) else ""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        body = {"schema": text, "schemaType": kind, **more}
        return await self("POST", f"/subjects/{quote(subject, safe='')}/versions{query}", body)


@asynccontextmanager
async def rest(plane: ControlPlane) -> AsyncIterator[Rest]:
    """The REST API, once the server answers."""
    assert plane.config.registry is not None
    async with grpc(plane), aiohttp.ClientSession() as session:
        yield Rest(session, f"http://127.0.0.1:{plane.config.registry.port}")


@asynccontextmanager
async def grpc(plane: ControlPlane) -> AsyncIterator[Any]:
    """A stub, once the server answers."""
    async with channel(plane.address) as connection:
        await asyncio.wait_for(connection.channel_ready(), 60)
        yield grpc_stubs.SchemaRegistryServiceStub(connection)
