"""ClickHouse: the async client."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import OperationalError

from chassis.config import OlapConfig
from chassis.errors import ArterialError, Reason
from chassis.olapsql import column_type, quoted

__all__ = ["Olap", "column_type", "connect", "quoted"]

# A query over many data files names each of them; the server's default is 256 KB.
MAX_QUERY_BYTES = 16_000_000


async def connect(config: OlapConfig) -> AsyncClient:
    """A client of the configured server. Raises OSError-like errors of the driver if it does not answer."""
    tls = config.tls
    return await clickhouse_connect.get_async_client(
        host=config.host,
        port=config.port,
        username=config.username,
        password=config.password,
        secure=tls is not None,
        ca_cert=str(tls.ca_file) if tls and tls.ca_file else None,
        client_cert=str(tls.cert_file) if tls and tls.cert_file else None,
        client_cert_key=str(tls.key_file) if tls and tls.key_file else None,
        settings={"max_query_size": MAX_QUERY_BYTES},
    )


class Olap:
    """A client that connects at its first use, so that a process starts while the server is away.

    All methods raise ArterialError DEPENDENCY_UNAVAILABLE if the server does not answer, and the driver's DatabaseError if it refuses.
    """

    def __init__(self, config: OlapConfig) -> None:
        self.database = config.database
        self._config = config
        self._client: AsyncClient | None = None

    async def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Result of a query; parameters are bound by the server as `{name:Type}`."""
        async with self._connected() as client:
            return await client.query_arrow(sql, parameters=dict(parameters or {}))

    async def run(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Runs a statement without result."""
        async with self._connected() as client:
            await client.command(sql, parameters=dict(parameters or {}))

    async def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            await self._client.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncClient]:
        try:
            self._client = self._client or await connect(self._config)
            yield self._client
        except OperationalError as error:
            where = f"ClickHouse at {self._config.host}:{self._config.port}"
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"{where} does not answer") from error
