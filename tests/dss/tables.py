"""Lake tables and a plain recount of their statistics."""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.config import LakeConfig
from chassis.desired import Desired
from chassis.lake import Step, Table

SCHEMA = pa.schema(
    [
        ("whole", pa.int64()),
        ("real", pa.float64()),
        ("small", pa.float32()),
        ("flag", pa.bool_()),
        ("text", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
        ("raw", pa.binary()),
        ("tags", pa.list_(pa.string())),
        ("city_id", pa.int32()),
        ("event_date", pa.string()),
        ("region", pa.string()),
    ]
)
NAME = "curated/t"
DATASET = f"lake/{NAME}"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# (market, column, metric) -> value
Statistics = dict[tuple[str, str, str], float]


def row(date: str | None, city: int | None, **values: Any) -> dict[str, Any]:
    """A row of the test table."""
    return {"event_date": date, "region": "local", "city_id": city} | values


def open_table(lake: LakeConfig, name: str = NAME, schema: pa.Schema = SCHEMA) -> Table:
    """The test table, made if missing."""
    return Table.open_or_create(lake, name, schema, ["event_date", "region"])


def append(table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """A commit of these rows."""
    table.refresh()
    done = table.progress("test")
    table.append(pa.Table.from_pylist(list(rows), schema=table.schema), {"test": Step(done, (done or 0) + 1)})


def desired(*datasets: str, market: str = "city_id") -> Desired:
    """Desired state that registers these datasets."""
    spec = specs_pb2.DatasetSpec(description="test", tier=3, market_column=market)
    found = [
        resource_pb2.Resource(
            api_version="arterial.dev/v1", kind="Dataset", metadata=resource_pb2.Metadata(name=name, owner="o"), dataset=spec
        )
        for name in datasets
    ]
    return Desired(tuple(found))


def recount(rows: Sequence[Mapping[str, Any]]) -> Statistics:
    """Statistics of a partition's rows, column by column, by the definitions of the contract."""
    markets = {""} | {str(row["city_id"]) for row in rows if row["city_id"] is not None}
    found: Statistics = {}
    for market in markets:
        chosen = [row for row in rows if market in ("", str(row["city_id"]))]
        found[market, "", "COUNT"] = len(chosen)
        for field in SCHEMA:
            if field.name != "event_date":
                values = [row.get(field.name) for row in chosen]
                found |= {(market, field.name, metric): value for metric, value in _column(values, field.type).items()}
    return found


def _column(values: Sequence[Any], kind: pa.DataType) -> dict[str, float]:
    present = [value for value in values if value not in (None, []) and not (isinstance(value, float) and math.isnan(value))]
    nulls = len(values) - len(present)
    found = {"COUNT": len(values), "NULLS": nulls, "MISSING_PERCENT": 100 * nulls / len(values)}
    found["DISTINCT"] = len({tuple(value) if isinstance(value, list) else value for value in present})
    number = _number(kind)
    if pa.types.is_string(kind):
        lengths = [len(value) for value in present]
        return found | {"MIN": min(lengths, default=math.nan), "MAX": max(lengths, default=math.nan)}
    if number is None:
        return found
    numbers = np.array([number(value) for value in present], np.float64)
    if not len(numbers):
        return found | dict.fromkeys(("MIN", "MAX", "MEAN", "MEDIAN"), math.nan)
    return found | {"MIN": numbers.min(), "MAX": numbers.max(), "MEAN": numbers.mean(), "MEDIAN": float(np.median(numbers))}


def _number(kind: pa.DataType) -> Callable[[Any], float] | None:
    if pa.types.is_timestamp(kind):
        return lambda value: (value - EPOCH) / datetime.timedelta(seconds=1)
    if pa.types.is_date(kind):
        return lambda value: (value - EPOCH.date()).days * 86400.0
    return float if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) else None
