"""What is measured of a table's columns, as SQL: every column, market and partition in one pass of the OLAP engine."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

# Columns of a raw table that only dead rows have, and its partition column that tells them apart.
_DEAD_ONLY = frozenset({"_key", "_value", "_headers", "_error", "dead"})
# A market column whose values are many (a wrong declaration, garbage) must not become as many series: the largest ones are kept.
MAX_MARKETS = 200
# Exact medians keep every value (8 bytes each) in the engine's memory; partitions with more rows get a t-digest (about 1 % of rank).
MAX_ROWS_EXACT_MEDIAN = 10_000_000
METRICS = ("COUNT", "NULLS", "MISSING_PERCENT", "MIN", "MAX", "MEAN", "MEDIAN", "DISTINCT")


class Kind(Enum):
    """What can be measured of a column."""

    NUMBER = "number"
    TIME = "time"
    DATE = "date"
    TEXT = "text"
    LIST = "list"
    OTHER = "other"


@dataclass(frozen=True)
class Profile:
    """What of a table is profiled: its columns, by which date and by which market (None: whole partitions only)."""

    columns: tuple[pa.Field, ...]
    date_column: str
    market_column: str | None


def profile_of(schema: pa.Schema, date_column: str, market_column: str) -> Profile:
    """The profile of a table: all columns but its date and those that only dead rows have. A market column that it lacks is none."""
    columns = tuple(field for field in schema if field.name != date_column and not _is_of_dead_rows(field.name, schema))
    return Profile(columns, date_column, market_column if market_column in schema.names else None)


def _is_of_dead_rows(name: str, schema: pa.Schema) -> bool:
    return name in _DEAD_ONLY and "dead" in schema.names


def kind_of(kind: pa.DataType) -> Kind:
    """What can be measured of a column of this type."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return Kind.NUMBER
    if pa.types.is_timestamp(kind):
        return Kind.TIME
    if pa.types.is_date(kind):
        return Kind.DATE
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Kind.TEXT
    return Kind.LIST if pa.types.is_list(kind) else Kind.OTHER


def groups_of(profile: Profile, rows: int, max_cells: int) -> Iterator[Profile]:
    """The profile in parts of so few columns that rows x columns stay within `max_cells`, at least one column each."""
    width = max(1, max_cells // max(rows, 1))
    for first in range(0, len(profile.columns), width):
        yield Profile(profile.columns[first : first + width], profile.date_column, profile.market_column)


def profile_sql(dataset: str, profile: Profile, *, exact_median: bool = True, with_rows: bool = True) -> str:
    """Selects (partition_date, market, column, metric, value) of the dataset, which is named in backticks.

    Market "" is the whole partition; a row without a market counts there only. A value is null where the metric has none. `with_rows` adds
    the number of rows, column "". Statistics follow these definitions:

    * a null is a null, a float that is not a number, or an empty list (protobuf has no other absent list);
    * numbers (booleans are 0 and 1) and times (seconds since 1970): min, max, mean and median of what is not null; the median of an even
      number of values is the mean of the middle two (Hyndman and Fan 1996, type 7);
    * texts: min and max of the length in characters;
    * distinct values, nulls aside, exact.
    """
    cells = [cell for field in profile.columns for cell in _cells(field, exact_median)]
    if with_rows:
        cells.append(_cell("", "COUNT", "count()"))
    market = f"toString(`{profile.market_column}`)" if profile.market_column else "''"
    sets = "(_date, _market), (_date)" if profile.market_column else "(_date)"
    kept = "(if(grouping(_market) = 1, '', ifNull(_market, '')))" if profile.market_column else "''"
    largest = (
        f" HAVING grouping(_market) = 1 OR _market != '' ORDER BY grouping(_market) DESC, count() DESC LIMIT {MAX_MARKETS + 1} BY _date"
        if profile.market_column
        else ""
    )
    return (
        "SELECT date AS partition_date, market, cell.1 AS column, cell.2 AS metric, cell.3 AS value "
        f"FROM (SELECT _date AS date, {kept} AS market, [{', '.join(cells)}] AS cells "
        f"FROM (SELECT *, ifNull(toString(`{profile.date_column}`), '') AS _date, {market} AS _market FROM `{dataset}`) "
        f"GROUP BY GROUPING SETS ({sets}){largest}) ARRAY JOIN cells AS cell"
    )


def read_columns(profile: Profile) -> list[str]:
    """Columns that the SQL of a profile reads, each once."""
    names = [field.name for field in profile.columns] + [profile.date_column]
    return list(dict.fromkeys(names + ([profile.market_column] if profile.market_column else [])))


def _cells(field: pa.Field, exact_median: bool) -> list[str]:
    kind, present = kind_of(field.type), _present(f"`{field.name}`", field.type)
    nulls = f"(count() - countIf(notEmpty({present})))" if kind is Kind.LIST else f"(count() - count({present}))"
    cells = [
        _cell(field.name, "COUNT", "count()"),
        _cell(field.name, "NULLS", nulls),
        _cell(field.name, "MISSING_PERCENT", f"100 * {nulls} / count()"),
    ]
    if kind is Kind.TEXT:
        cells += [_cell(field.name, metric, f"{metric.lower()}(lengthUTF8({present}))") for metric in ("MIN", "MAX")]
    elif kind in (Kind.NUMBER, Kind.TIME, Kind.DATE):
        median = "quantileExactInclusive(0.5)" if exact_median else "quantileTDigest(0.5)"
        value, unit = _value(kind, field.type, present)
        for metric, aggregate in (("MIN", f"min({value})"), ("MAX", f"max({value})"), ("MEDIAN", f"{median}({value})")):
            cells.append(_cell(field.name, metric, f"{aggregate}{unit}"))
        cells.append(_cell(field.name, "MEAN", f"avg(toFloat64({value})){unit}"))
    distinct = f"uniqExactIf({present}, notEmpty({present}))" if kind is Kind.LIST else f"uniqExact({present})"
    return [*cells, _cell(field.name, "DISTINCT", distinct)]


def _cell(column: str, metric: str, expression: str) -> str:
    literal = column.replace("\\", "\\\\").replace("'", "\\'")
    return f"('{literal}', '{metric}', toNullable(toFloat64({expression})))"


def _present(name: str, kind: pa.DataType) -> str:
    """The column with null for what is no value."""
    return f"if(isNaN({name}), NULL, {name})" if pa.types.is_floating(kind) else name


def _value(kind: Kind, arrow: pa.DataType, present: str) -> tuple[str, str]:
    """What numbers are taken of, and what brings the result to its unit."""
    if kind is Kind.TIME:
        return f"toUnixTimestamp64Micro({present})", " / 1e6"
    if kind is Kind.DATE:
        return f"toInt32({present})", " * 86400"
    if pa.types.is_boolean(arrow):
        return f"toUInt8({present})", ""
    return (f"toFloat64({present})" if pa.types.is_decimal(arrow) else present), ""
