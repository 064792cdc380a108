"""A declared curated table follows its sources: for the dates that changed the engine runs the SELECT, and one commit takes what it gives.

What follows is in `derivation` (what the table is) and `due` (what is to be done). Its progress is in the table's own transactions. A step
that is cut off has changed nothing: what it put on its stage, a table of the OLAP engine, is dropped by the next.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil

import pyarrow as pa
from clickhouse_connect.driver.exceptions import DatabaseError

from chassis import lake
from chassis.config import CellConfig, LakeConfig
from chassis.lake import Added, Table
from chassis.lakedates import date_of, rows_of
from chassis.lakesql import resolved, source
from chassis.lineage import ColumnInput, JobDefinition, Lineage, Output, from_sql
from chassis.lineage.definition import TRANSFORMATION, SqlNotUnderstood
from chassis.olap import Olap, quoted
from chassis.olapsql import column_type, kept_type
from services.ingestion import due
from services.ingestion.derivation import (
    LAKE,
    MAX_CHUNK_ROWS,
    PARTITION_BY,
    SOURCE_DATE,
    Absent,
    Derivation,
    DerivationError,
    Shape,
    Statements,
    dated,
    dates_of_days,
    refuse_unless_it_fits,
    shape_of,
)
from services.ingestion.due import DEFINITION, HISTORY, Restart, Source, Work, progress
from services.ingestion.supersession import is_superseded

# Each step replaces files: those replaced stay for queries that began before, and go then. Their removal stays in the log for longer, so
# that none is forgotten.
KEPT_HOURS, CLEAN_SECONDS = 1, 600.0
PROPERTIES = {"delta.deletedFileRetentionDuration": "interval 3 hours"}
# What the engine says that people need: not its code, not the statement around.
_SAID = re.compile(r"DB::Exception: (.*?)(?::? In scope |: [Ww]hile |\. \([A-Z_]+\)|$)", re.DOTALL)
_SAID_LENGTH = 300


class Derived:
    """One declared table; the only writer of it."""

    def __init__(
        self,
        derivation: Derivation,
        lake_config: LakeConfig,
        olap: Olap,
        *,
        cell: CellConfig,
        stage: str,
        lineage: Lineage | None = None,
        chunk_rows: int = MAX_CHUNK_ROWS,
    ) -> None:
        """`stage` is the name of a database of the engine that no other process uses; `chunk_rows` come to Python at a time."""
        self.derivation = derivation
        self._lake = lake_config
        self._olap = olap
        self._region = cell.region
        self._stage = f"`{stage}`.`{derivation.name}`"
        self._lineage = lineage
        self._chunk_rows = chunk_rows
        self._sources: dict[str, Table] = {}
        self._table: Table | None = None
        self._cleaned_at = -CLEAN_SECONDS
        self._statements: tuple[Mapping[str, pa.Schema], Statements] | None = None

    async def step(self) -> Work | None:
        """Takes what the sources have in addition; what was done, None if there was nothing.

        Raises:
            DerivationError: the table cannot be made as it is declared.
            ArterialError: DEPENDENCY_UNAVAILABLE, the OLAP engine does not answer.
            DatabaseError, DeltaError, OSError: a file is gone, or another writer was there; a later step begins at the table's progress.
        """
        sources = await asyncio.to_thread(self._read)
        statements = await self._prepared(sources)
        table = await asyncio.to_thread(self._opened, statements)
        work = await self._work(table, sources, statements)
        if work is None:
            return None
        try:
            await self._fill(statements, table, sources, work)
            table = await self._write(statements, table, work)
        finally:
            await self._olap.run(statements.drop())
        if time.monotonic() - self._cleaned_at >= CLEAN_SECONDS:
            await asyncio.to_thread(table.delete_replaced, KEPT_HOURS)
            self._cleaned_at = time.monotonic()
        return work

    def _read(self) -> list[Source]:
        found = []
        for dataset in self.derivation.sources:
            if not dataset.startswith(LAKE):
                raise DerivationError("InvalidSelect", f"{dataset} is no table of the lake")
            table = self._sources.get(dataset)
            if table is None or table.is_gone():
                table = Table.open(self._lake, dataset.removeprefix(LAKE))
            if table is None:
                self._sources.pop(dataset, None)
                raise Absent("SourceMissing", f"the lake has no table {dataset.removeprefix(LAKE)} yet")
            self._sources[dataset] = table
            table.refresh()
            if not table.partition_columns or not table.partition_columns[0].endswith("_date"):
                raise DerivationError("InvalidSelect", f"{dataset} is not partitioned by date: what changes of it cannot be told")
            found.append(Source(dataset, table))
        return found

    async def _prepared(self, sources: Sequence[Source]) -> Statements:
        """The statements for sources of these columns; what is made from what is told when that changes."""
        schemas = {each.dataset: each.table.schema for each in sources}
        if self._statements is not None and self._statements[0] == schemas:
            return self._statements[1]
        empty = {each.dataset: source(self._lake, each.table.name, [], each.table.schema) for each in sources}
        described = await self._ran(f"DESCRIBE TABLE (\n{resolved(self.derivation.sql, empty)}\n)")
        job = await asyncio.to_thread(defined, self.derivation, schemas)
        shape = shape_of(self.derivation, [(row["name"], row["type"], _kept(row, job)) for row in described.to_pylist()])
        columns = {field.name: column_type(field) for field in shape.schema}
        statements = Statements(self.derivation, shape, self._stage, columns, self._region)
        if self._lineage is not None:
            self._lineage.emit(told(job, self.derivation, shape))
        self._statements = (schemas, statements)
        return statements

    def _opened(self, statements: Statements) -> Table | None:
        """The table, if it has ever been made."""
        name = self.derivation.table
        table = self._table if self._table is not None and not self._table.is_gone() else Table.open(self._lake, name)
        if table is None:
            return None
        table.refresh()
        if SOURCE_DATE not in table.schema.names:
            raise DerivationError("NotItsTable", f"the lake has a table {name} that was made by something else")
        try:
            refuse_unless_it_fits(statements.shape, statements.columns, {field.name: column_type(field) for field in table.schema})
        except DerivationError:
            if table.progress(DEFINITION) is not None:
                raise
            # Its first commit never came: what it would have been binds nobody.
            lake.drop(self._lake, name)
            return None
        self._table = table
        return table

    async def _work(self, table: Table | None, sources: Sequence[Source], statements: Statements) -> Work | None:
        definition = self.derivation.digest(str(each.table.handle.metadata().id) for each in sources)
        anew = progress(table, DEFINITION) != definition
        if table is not None and not anew and table.progress(HISTORY) == 0:
            try:
                return await asyncio.to_thread(due.changed, table, sources)
            except Restart:
                anew = True
        made = await self._ran(statements.made_of(self._existing(table, statements)))
        return await asyncio.to_thread(due.history, table, sources, definition, _texts(made[SOURCE_DATE]), anew=anew)

    async def _fill(self, statements: Statements, table: Table | None, sources: Sequence[Source], work: Work) -> None:
        """Puts on the stage all rows of the dates, and what they had beaten on others that may stay now."""
        for statement in statements.create():
            await self._olap.run(statement)
        await asyncio.to_thread(lambda: [each.files for each in sources])
        if not work.dates:
            return
        for date in work.dates:
            await self._fill_date(statements, sources, date)
        existing = self._existing(table, statements)
        (beaten,) = (await self._ran(statements.beaten(existing, work.dates))).to_pylist()
        if beaten["keys"]:
            known = sorted({date for each in sources for date in each.files} - set(work.dates))
            condition = statements.among_beaten(existing, work.dates)
            for date in (date for date in known if beaten["first"] <= date <= beaten["last"]):
                await self._fill_date(statements, sources, date, condition)
        (faults,) = (await self._ran(statements.faults())).to_pylist()
        _refuse_faults(faults)

    async def _fill_date(self, statements: Statements, sources: Sequence[Source], date: str, condition: str = "1") -> None:
        # A SELECT of no rows may give one (an aggregate without keys): a date that no source has gives none.
        if any(date in each.files for each in sources):
            given = {each.dataset: await self._rows_in_force(each, each.files.get(date, ())) for each in sources}
            await self._ran(statements.fill(resolved(self.derivation.sql, given), date, condition))

    async def _rows_in_force(self, given: Source, files: Sequence[Added]) -> str:
        """A table expression over data files; of a raw table without what corrections supersede."""
        table = given.table
        expression = source(self._lake, table.name, files, table.schema)
        if "dead" not in table.partition_columns or not files:
            return expression
        loaded = await self._ran(f"SELECT DISTINCT _topic FROM {expression} WHERE startsWith(_topic, 'file:')")
        superseded = [name for name in _texts(loaded["_topic"]) if is_superseded(table, name)]
        if not superseded:
            return expression
        return f"(SELECT * FROM {expression} WHERE _topic NOT IN ({', '.join(quoted(name) for name in superseded)}))"

    async def _write(self, statements: Statements, table: Table | None, work: Work) -> Table:
        days = (await self._ran(statements.staged_days())).to_pylist()
        dates = dates_of_days([row["_day"] for row in days])
        if table is None:
            table = await asyncio.to_thread(Table.open_or_create, self._lake, self.derivation.table, statements.shape.schema, PARTITION_BY)
        elif work.dates:
            found = await self._ran(statements.touched_dates(self._existing(table, statements), work.dates))
            dates |= set(_texts(found["event_date"]))
        if not dates:
            await asyncio.to_thread(table.append, statements.shape.schema.empty_table(), work.steps)
            return table
        files = [added for added in table.files() if date_of(added, "event_date") in dates]
        chunks = max(1, ceil((sum(row["rows"] for row in days) + rows_of(files)) / self._chunk_rows))
        existing = source(self._lake, table.name, files, statements.shape.schema)
        sqls = [statements.winners(existing, work.dates, chunk, chunks) for chunk in range(chunks)]
        predicate = f"event_date IN ({', '.join(quoted(date) for date in sorted(dates))})"
        parts = self._chunks(sqls, statements.shape, asyncio.get_running_loop())
        await asyncio.to_thread(table.replace, parts, predicate, work.steps)
        return table

    def _chunks(self, sqls: Sequence[str], shape: Shape, loop: asyncio.AbstractEventLoop) -> Iterator[pa.Table]:
        """Results one after the other, for a thread that writes them."""
        for sql in sqls:
            yield dated(asyncio.run_coroutine_threadsafe(self._ran(sql), loop).result(), shape)

    def _existing(self, table: Table | None, statements: Statements) -> str:
        """All rows of the table, as a table expression."""
        return source(self._lake, self.derivation.table, table.files() if table is not None else [], statements.shape.schema)

    async def _ran(self, sql: str) -> pa.Table:
        """Result of a statement, without one of an INSERT."""
        try:
            if sql.startswith("INSERT"):
                await self._olap.run(sql)
                return pa.table({})
            return await self._olap.rows(sql)
        except DatabaseError as error:
            raise DerivationError("SelectFailed", said(error)) from error


def said(error: Exception) -> str:
    """What the engine says, for people."""
    text = " ".join(str(error).split())
    found = _SAID.search(text)
    return (found[1] if found is not None else text)[:_SAID_LENGTH]


def job_name(table: str) -> str:
    """Name of the job that makes a declared table."""
    return f"ingestion.derived.{table}"


def defined(derivation: Derivation, schemas: Mapping[str, pa.Schema]) -> JobDefinition:
    """What a table is made from, from its SQL; where that is not understood the whole table from all of its sources."""
    name, output = job_name(derivation.name), f"{LAKE}{derivation.table}"
    types = {dataset: {field.name: str(field.type) for field in schema} for dataset, schema in schemas.items()}
    try:
        return from_sql(name, derivation.sql, output, types)
    except SqlNotUnderstood:
        return JobDefinition(name, derivation.sources, (Output(output),), derivation.sql)


def told(job: JobDefinition, derivation: Derivation, shape: Shape) -> JobDefinition:
    """The definition with the columns that the table itself has."""
    (output,) = job.outputs
    columns = {name: inputs for name, inputs in output.columns.items() if name in shape.schema.names}
    if columns:
        time = columns.get(derivation.time, ())
        columns["event_date"] = tuple(ColumnInput(item.dataset, item.column, TRANSFORMATION) for item in time)
    types = {field.name: str(field.type) for field in shape.schema}
    return replace(job, outputs=(replace(output, columns=columns, types=types),))


def _kept(row: Mapping[str, str], job: JobDefinition) -> pa.DataType:
    """The lake's type of a column. The engine has one type for text and bytes: bytes that are only copied stay bytes."""
    try:
        kind = kept_type(row["type"])
    except ValueError as error:
        raise DerivationError("InvalidSelect", f"column {row['name']}: {error}; cast it to another type") from error
    return pa.binary() if pa.types.is_string(kind) and job.outputs[0].types.get(row["name"]) == "binary" else kind


def _refuse_faults(faults: Mapping[str, int]) -> None:
    """Refuses rows without a key, and text that is none."""
    found = []
    for name, count in faults.items():
        what, _, column = name.partition(" ")
        if count and what == "null":
            found.append(f"{count} rows have no {column}, which is a key: leave them out by a condition")
        elif count:
            found.append(f"{count} rows have bytes in {column} that are no text: give hex({column})")
    if found:
        raise DerivationError("InvalidRows", "; ".join(found))


def _texts(column: pa.ChunkedArray) -> list[str]:
    return list(column.cast(pa.string()).to_pylist())
