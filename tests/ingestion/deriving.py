"""Source tables of a derived table, filled and corrected by date, and what must follow from them."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from chassis.config import CellConfig, LakeConfig
from chassis.lake import Step, Table
from chassis.olap import Olap
from services.ingestion.derivation import Derivation
from services.ingestion.derived import Derived

SCHEMA = pa.schema(
    [("id", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("value", pa.int64()), ("event_date", pa.string()), ("region", pa.string())]
)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DATES = [*((FIRST + timedelta(days=day)).date().isoformat() for day in range(3)), "unknown"]
OUT = "curated/out"


@dataclass(frozen=True)
class Told:
    """A row of a source: what it is of, its time in hours after the first date (None: no time), its value, the date that it lies under."""

    id: int
    hour: int | None = 0
    value: int = 0
    date: str = DATES[0]

    @property
    def at(self) -> datetime | None:
        """The time."""
        return None if self.hour is None else FIRST + timedelta(hours=self.hour)


def rows(told: Iterable[Told]) -> pa.Table:
    """Rows of a source."""
    return pa.Table.from_pylist([{"id": t.id, "at": t.at, "value": t.value, "event_date": t.date, "region": "local"} for t in told], SCHEMA)


@dataclass
class Filled:
    """A source table, and what it has now."""

    lake: LakeConfig
    name: str
    now: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = Table.open_or_create(self.lake, self.name, SCHEMA, ["event_date", "region"])

    def add(self, *told: Told) -> None:
        """A commit of more rows."""
        self.table.append(rows(told), self._step())
        self.now += told

    def correct(self, date: str, *told: Told) -> None:
        """A commit that puts these rows in the place of all of a date."""
        self.table.refresh()
        self.table.replace([rows(told)], f"event_date = '{date}'", self._step())
        self.now = [each for each in self.now if each.date != date] + list(told)

    def _step(self) -> dict[str, Step]:
        done = self.table.progress("test")
        return {"test": Step(done, (done or 0) + 1)}


def derived(lake: LakeConfig, olap: Olap, sql: str, *, chunk_rows: int = 2, name: str = "out", stage: str = "stage") -> Derived:
    """A follower as a new process makes it."""
    derivation = Derivation(name, sql, ("id",), "at")
    return Derived(derivation, lake, olap, cell=CellConfig(), stage=f"{stage}_{olap.database}", chunk_rows=chunk_rows)


async def follow_all(table: Derived) -> int:
    """Steps until nothing is left; how many there were."""
    steps = 0
    while await table.step() is not None:
        steps += 1
    return steps


def there(lake: LakeConfig, *columns: str, name: str = OUT) -> list[tuple[Any, ...]]:
    """Columns of the derived table's rows, sorted."""
    table = Table.open(lake, name)
    assert table is not None
    return sorted(
        tuple(row[column] for column in columns) for row in pa.table(table.handle.to_pyarrow_table(columns=list(columns))).to_pylist()
    )


class Dying:
    """An engine that its client loses before the n-th statement from now."""

    def __init__(self, olap: Olap, statements: int) -> None:
        self._olap = olap
        self._left = statements
        self.database = olap.database

    async def rows(self, sql: str) -> pa.Table:
        """Result of a query, or death."""
        self._die()
        return await self._olap.rows(sql)

    async def run(self, sql: str) -> None:
        """Runs a statement, or dies."""
        self._die()
        await self._olap.run(sql)

    def _die(self) -> None:
        if self._left == 0:
            raise ConnectionError("killed")
        self._left -= 1


class Sleeping:
    """An engine that answers a statement with these words only when something else has been done, once."""

    def __init__(self, olap: Olap, words: str, first: Callable[[], Awaitable[None]]) -> None:
        self._olap = olap
        self._words = words
        self._first: Callable[[], Awaitable[None]] | None = first
        self.database = olap.database
        self.run = olap.run

    async def rows(self, sql: str) -> pa.Table:
        """Result of a query."""
        if self._words in sql and self._first is not None:
            first, self._first = self._first, None
            await first()
        return await self._olap.rows(sql)
