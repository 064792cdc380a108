"""ClickHouse: the async client, and statements generated from Arrow schemas."""

from collections.abc import Mapping

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.asyncclient import AsyncClient

from chassis.config import OlapConfig

_TYPES: Mapping[pa.DataType, str] = {
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float32(): "Float32",
    pa.float64(): "Float64",
    pa.bool_(): "Bool",
    pa.string(): "String",
    pa.binary(): "String",
    pa.date32(): "Date32",
}


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
    )


def column_type(field: pa.Field, *, nullable: bool = True) -> str:
    """The type of a column.

    Raises:
        ValueError: ClickHouse has no type for it here.
    """
    if pa.types.is_timestamp(field.type):
        name = "DateTime64(6, 'UTC')"
    elif pa.types.is_list(field.type):
        return f"Array({column_type(field.type.value_field, nullable=False)})"
    elif pa.types.is_struct(field.type):
        return "Tuple(" + ", ".join(f"`{part.name}` {column_type(part, nullable=False)}" for part in field.type) + ")"
    elif pa.types.is_decimal(field.type):
        name = f"Decimal({field.type.precision}, {field.type.scale})"
    elif field.type in _TYPES:
        name = _TYPES[field.type]
    else:
        raise ValueError(f"column {field.name}: no ClickHouse type for {field.type}")
    return f"Nullable({name})" if nullable else name


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
