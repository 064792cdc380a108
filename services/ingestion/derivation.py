"""What a declared curated table is: a function of its sources, as SQL of the OLAP engine. Pure.

The SELECT is run for each date of the sources (their first partition column: `event_date`, of raw tables `ingest_date`), over the rows of
that date in all of them. Of all rows that it gives over all dates, one stays of each `keys`: the latest by the time column; of several as
late that of the later source date ("unknown" is later than all dates); of these the one whose columns, in the order of the SELECT, are
greater (null is less than anything). So the table is the same in whatever steps its sources came.

A row is filed under the date of its time (UTC), whatever date of the sources it was made of, and its keys compete with those of all other
dates. It is filed under "unknown" if it has no time or one outside the years 1 to 9999, or was made of rows that are "unknown" themselves,
because their clock is not trusted. `_source_date` says which date of the sources a row was made of; `_source_first` and `_source_last` are
the first and last date that ever gave a row of its keys. Where they differ the row has beaten others, which must be found again should it
go. All columns of the result are kept but `event_date` and names that begin with `_`, which are the table's own (and its sources', if the
SELECT takes all columns); `region` is the cell's where the SELECT gives none. One that depends on anything but its sources, such as the
time of day, is as of when a date last changed.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from arterial.api.controlplane.v1 import specs_pb2
from chassis.lineage.definition import logical_names
from chassis.olapsql import named, quoted
from services.ingestion.dates import UNKNOWN_DATE, date_of

PARTITION_BY = ("event_date", "region")
SOURCE_DATE, SOURCE_FIRST, SOURCE_LAST = PROVENANCE = ("_source_date", "_source_first", "_source_last")
LAKE, ZONE = "lake/", "curated/"
DAY_US = 86_400_000_000
# Microseconds of the first and last moment that have a date: the years 1 and 9999.
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
# The time of a row without one: before all others.
NO_TIME = -(2**63)
# Rows that are sorted, and come to Python, at a time (about 1 KB per row).
MAX_CHUNK_ROWS = 100_000
# What one statement may take of the engine's memory, which all services of the cell share, before it goes to its disk.
SETTINGS = (
    "SETTINGS max_threads = 1, max_memory_usage = 1000000000, max_bytes_before_external_sort = 200000000, "
    "max_bytes_before_external_group_by = 200000000"
)


class DerivationError(ValueError):
    """The table cannot be made as it is declared; `reason` is stable, in CamelCase, the text is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Absent(DerivationError):
    """A source is not there yet: a table of the lake comes to be with its first rows."""


@dataclass(frozen=True)
class Derivation:
    """A declared table."""

    name: str
    sql: str
    keys: tuple[str, ...]
    time: str

    @classmethod
    def of(cls, name: str, spec: specs_pb2.CuratedTableSpec) -> "Derivation":
        """As a resource declares it."""
        return cls(name, spec.sql.strip().rstrip(";"), tuple(spec.keys), spec.time_column)

    @property
    def table(self) -> str:
        """Name within the lake."""
        return f"{ZONE}{self.name}"

    @property
    def sources(self) -> list[str]:
        """Logical names of what it reads."""
        return logical_names(self.sql)

    def digest(self, identities: Iterable[str]) -> int:
        """What tells this function of these source tables from any other, as the progress of a table can hold it: 60 bits."""
        told = "\0".join((self.sql, *self.keys, self.time, *identities))
        return int(hashlib.sha256(told.encode()).hexdigest()[:15], 16)


@dataclass(frozen=True)
class Shape:
    """Columns that the SELECT gives, as the lake keeps them; `types` are ClickHouse's of the same columns."""

    columns: pa.Schema
    types: Mapping[str, str]
    given_region: bool

    @property
    def schema(self) -> pa.Schema:
        """Columns of the table."""
        own = [(name, pa.string()) for name in ("region", *PROVENANCE, "event_date")]
        return pa.schema([*self.columns, *(pa.field(*field) for field in own)])

    @property
    def names(self) -> list[str]:
        """Columns of a row before it has a date."""
        return [*self.columns.names, "region", *PROVENANCE]


def shape_of(derivation: Derivation, given: Sequence[tuple[str, str, pa.DataType]]) -> Shape:
    """The shape of a result whose columns have these names, ClickHouse's types and types of the lake.

    Raises:
        DerivationError: a column is doubled; keys or time are missing, or of a type that cannot be one.
    """
    given = [column for column in given if not column[0].startswith("_")]
    names = [name for name, _, _ in given]
    if len(set(names)) < len(names):
        raise DerivationError("InvalidSelect", f"the SELECT gives a column twice: {', '.join(names)}")
    missing = [name for name in (*derivation.keys, derivation.time) if name not in names or name == "event_date"]
    if missing:
        raise DerivationError(
            "InvalidSelect", f"keys or time are no columns of the SELECT: {', '.join(missing)}; it gives {', '.join(names)}"
        )
    columns = pa.schema([(name, kind) for name, _, kind in given if name not in PARTITION_BY])
    time = pa.string() if derivation.time == "region" else columns.field(derivation.time).type
    if not (pa.types.is_timestamp(time) or pa.types.is_date(time)):
        raise DerivationError("InvalidSelect", f"the time column {derivation.time} is no date or time but {time}")
    nested = [key for key in derivation.keys if key != "region" and pa.types.is_nested(columns.field(key).type)]
    if nested:
        raise DerivationError("InvalidSelect", f"keys cannot be lists or structures: {', '.join(nested)}")
    return Shape(columns, {name: kind for name, kind, _ in given}, "region" in names)


def refuse_unless_it_fits(shape: Shape, types: Mapping[str, str], there: Mapping[str, str]) -> None:
    """A table may gain columns, but loses none and changes the type of none. Both map columns to types, in whatever words.

    Raises:
        DerivationError: with what is different.
    """
    own = shape.schema.names
    gone = sorted(name for name in there if name not in own)
    other = sorted(f"{name} (is {there[name]}, would be {types[name]})" for name in there if name in types and types[name] != there[name])
    told = [f"the SELECT no longer gives {', '.join(gone)}"] if gone else []
    told += [f"columns of other types: {', '.join(other)}"] if other else []
    if told:
        raise DerivationError("ColumnsChanged", f"{'; '.join(told)}: give them as before, or declare a table of another name")


@dataclass(frozen=True)
class Statements:
    """The statements of one step. `stage` holds what the SELECT gave; `columns` are the table's, with ClickHouse's types."""

    derivation: Derivation
    shape: Shape
    stage: str
    columns: Mapping[str, str]
    region: str

    def create(self) -> list[str]:
        """An empty stage."""
        kinds = [f"{named(name)} {self.columns[name]}" for name in self.shape.columns.names]
        kinds += [f"`{name}` String" for name in ("region", *PROVENANCE)] + ["_at Int64", "_day Nullable(Int32)"]
        database = self.stage.split(".", 1)[0]
        table = f"CREATE TABLE {self.stage} ({', '.join(kinds)}) ENGINE = MergeTree ORDER BY tuple()"
        return [f"CREATE DATABASE IF NOT EXISTS {database}", self.drop(), table]

    def drop(self) -> str:
        """Takes the stage away."""
        return f"DROP TABLE IF EXISTS {self.stage} SYNC"

    def fill(self, sql: str, date: str, condition: str = "1") -> str:
        """Puts on the stage what the SELECT, resolved to the data files of a source date, gives."""
        return (
            f"INSERT INTO {self.stage} SELECT {_list(self.shape.names)}, {self._at()} AS _at, {_day()} AS _day FROM ("
            f"SELECT {', '.join(self._cast(field) for field in self.shape.columns)}, {self._region()} AS region, "
            f"{', '.join(f'{quoted(date)} AS {name}' for name in PROVENANCE)} FROM (\n{sql}\n) AS _given) WHERE {condition} {SETTINGS}"
        )

    def faults(self) -> str:
        """One row that counts the staged rows without a key, by key, and those whose text is none, by column."""
        counts = [f"countIf({self._no_key(key)}) AS {named(f'null {key}')}" for key in self.derivation.keys]
        counts += [
            f"countIf({_noquoted(field)}) AS {named(f'text {field.name}')}" for field in self.shape.columns if _hasquoted(field.type)
        ]
        return f"SELECT {', '.join(counts)} FROM {self.stage} {SETTINGS}"

    def beaten(self, existing: str, dates: Sequence[str]) -> str:
        """One row: the first and last source dates of what rows of these dates had beaten that are gone or older now, and their number."""
        return f"SELECT min(_first) AS first, max(_last) AS last, toInt64(count()) AS keys FROM ({self._lost(existing, dates)}) {SETTINGS}"

    def among_beaten(self, existing: str, dates: Sequence[str]) -> str:
        """A condition: the keys are of such a row."""
        return f"({self._keys()}) IN (SELECT {self._keys()} FROM ({self._lost(existing, dates)}))"

    def staged_days(self) -> str:
        """Days since 1970 of the staged rows (null: unknown), with their number."""
        return f"SELECT _day, toInt64(count()) AS rows FROM {self.stage} GROUP BY _day {SETTINGS}"

    def touched_dates(self, existing: str, dates: Sequence[str]) -> str:
        """Partitions of the table that hold rows of these source dates, or rows that staged ones compete with."""
        return (
            f"SELECT DISTINCT event_date FROM {existing} WHERE {_among(SOURCE_DATE, dates)} "
            f"OR ({self._keys()}) IN (SELECT {self._keys()} FROM {self.stage}) {SETTINGS}"
        )

    def made_of(self, existing: str) -> str:
        """Source dates of the table's rows."""
        return f"SELECT DISTINCT {SOURCE_DATE} FROM {existing} {SETTINGS}"

    def winners(self, existing: str, dates: Sequence[str], chunk: int, chunks: int) -> str:
        """The rows that stay, of those staged and those of the table that are of other source dates, a share of the keys at a time."""
        names, keys = _list(self.shape.names[:-2]), self._keys()
        share = f"sipHash64({', '.join(f'assumeNotNull({named(key)})' for key in self.derivation.keys)}) % {chunks} = {chunk}"
        order = ", ".join(["_gone", "_at DESC", f"{SOURCE_DATE} DESC", *(f"{named(name)} DESC" for name in self.shape.names[:-3])])
        window = f"(PARTITION BY {keys})"
        return (
            f"SELECT {names}, _first AS {SOURCE_FIRST}, _last AS {SOURCE_LAST}, _day FROM ("
            f"SELECT *, min({SOURCE_FIRST}) OVER {window} AS _first, max({SOURCE_LAST}) OVER {window} AS _last, "
            f"row_number() OVER (PARTITION BY {keys} ORDER BY {order}) AS _rank FROM ("
            f"SELECT {self._read()}, 0 AS _gone FROM {self.stage} WHERE {share} UNION ALL "
            f"SELECT {self._read(self._at())}, {_among(SOURCE_DATE, dates)} AS _gone FROM {existing} WHERE {share}"
            f")) WHERE _rank = 1 AND _gone = 0 {SETTINGS}"
        )

    def _lost(self, existing: str, dates: Sequence[str]) -> str:
        """Keys whose row of these dates had beaten others, and of which no staged row is as late. Ranges are those of the row."""
        place = f"(_at, {SOURCE_DATE})"
        old = f"{existing} WHERE {_among(SOURCE_DATE, dates)} AND {SOURCE_FIRST} != {SOURCE_LAST}"
        # Few rows have ever beaten others, often none: all that are staged need not be grouped for them.
        staged = f"{self.stage} WHERE ({self._keys()}) IN (SELECT {self._keys()} FROM {old})"
        return (
            f"SELECT {self._keys()}, min({SOURCE_FIRST}) AS _first, max({SOURCE_LAST}) AS _last FROM ("
            f"SELECT {self._read()}, 0 AS _old FROM {staged} UNION ALL "
            f"SELECT {self._read(self._at())}, 1 AS _old FROM {old}"
            f") GROUP BY {self._keys()} HAVING max(_old) = 1 AND (min(_old) = 1 OR maxIf({place}, _old = 0) < maxIf({place}, _old = 1))"
        )

    def _read(self, at: str = "") -> str:
        """Columns of a row with its moment and day: staged, or of the table, where `at` computes it."""
        if not at:
            return f"{_list(self.shape.names)}, _at, _day"
        texts = {*PROVENANCE, "region"}
        columns = [f"ifNull(`{name}`, '') AS `{name}`" if name in texts else named(name) for name in self.shape.names]
        return f"{', '.join(columns)}, {at} AS _at, {_day()} AS _day"

    def _no_key(self, key: str) -> str:
        """A condition: a key that equals nothing, not even itself."""
        of_fractions = key != "region" and pa.types.is_floating(self.shape.columns.field(key).type)
        return f"isNull({named(key)})" + (f" OR isNaN({named(key)})" if of_fractions else "")

    def _keys(self) -> str:
        return _list(self.derivation.keys)

    def _cast(self, field: pa.Field) -> str:
        # What does not fit a signed number fails instead of turning negative.
        cast = "accurateCast" if "UInt64" in self.shape.types[field.name] else "CAST"
        return f"{cast}(_given.{named(field.name)}, {quoted(self.columns[field.name])}) AS {named(field.name)}"

    def _region(self) -> str:
        own = quoted(self.region)
        return f"ifNull(nullIf(CAST(_given.region, 'Nullable(String)'), ''), {own})" if self.shape.given_region else own

    def _at(self) -> str:
        """Microseconds since 1970 of the time column."""
        column = named(self.derivation.time)
        if pa.types.is_date(self.shape.columns.field(self.derivation.time).type):
            return f"ifNull(toInt64(toInt32({column})) * {DAY_US}, {NO_TIME})"
        return f"ifNull(toUnixTimestamp64Micro({column}), {NO_TIME})"


def dated(rows: pa.Table, shape: Shape) -> pa.Table:
    """Rows as the engine gave them (`_day`: days since 1970 or null), as the table has them."""
    days = rows["_day"].cast(pa.int32()).cast(pa.date32()).cast(pa.timestamp("us"))
    filed = pc.coalesce(date_of(days), pa.scalar(UNKNOWN_DATE))
    return rows.drop_columns(["_day"]).append_column("event_date", filed).select(shape.schema.names).cast(shape.schema)


def dates_of_days(days: Collection[int | None]) -> set[str]:
    """Dates that days since 1970 (None: unknown) are filed under."""
    times = pa.array(days, pa.int32()).cast(pa.date32()).cast(pa.timestamp("us"))
    return {UNKNOWN_DATE if date is None else date for date in date_of(pa.chunked_array([times])).to_pylist()}


def _day() -> str:
    known = f"_at BETWEEN {FIRST_US} AND {LAST_US} AND match({SOURCE_DATE}, '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$')"
    return f"if({known}, toInt32(intDiv(_at - positiveModulo(_at, {DAY_US}), {DAY_US})), NULL)"


def _among(column: str, dates: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(quoted(date) for date in dates)})"


def _hasquoted(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind.value_type if pa.types.is_list(kind) else kind))


def _noquoted(field: pa.Field) -> str:
    if pa.types.is_list(field.type):
        return f"NOT arrayAll(_item -> isValidUTF8(_item), {named(field.name)})"
    return f"NOT isValidUTF8(ifNull({named(field.name)}, ''))"


def _list(names: Iterable[str]) -> str:
    return ", ".join(named(name) for name in names)
