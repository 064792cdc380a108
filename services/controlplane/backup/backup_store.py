"""Reads all state of the control plane from PostgreSQL at one moment, and writes it back whole or not at all."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import sql
from chassis.errors import ArterialError, Reason, Violation
from services.controlplane.backup import backup_file, catalogue
from services.controlplane.backup.backup_file import DATA_BYTES, FORMAT, BackupError, Header, Table, Writer
from services.controlplane.backup.catalogue import quoted
from services.controlplane.resources.store import SEED_ACTOR

# Rows that a control plane brings itself when it starts on an empty database: its resources, and the built-in contracts with what these
# import. Any other row of any table is somebody's, and a restore does not touch it.
_OF_A_START = {
    "changes": f"actor = '{SEED_ACTOR}'",
    "resources": "true",
    "schemas": "message LIKE 'arterial.api.%'",
    "schema_versions": "subject LIKE 'arterial/api/%' OR schema_id < 1000",
}
# A restore waits so long for those who use the tables, and then gives up.
LOCK_SECONDS = 10
# Deadlocks that it may lose meanwhile, and PostgreSQL's code for one.
LOCK_ATTEMPTS, DEADLOCK = 10, "40P01"
Write = Callable[[bytes], Awaitable[None]]


class BackupStore:
    """Backs up and restores. `scripts` is the folder of the migrations."""

    def __init__(self, engine: AsyncEngine, scripts: Path) -> None:
        self._engine = engine
        self._scripts = scripts

    async def back_up(self, write: Write, compression_level: int = 1) -> None:
        """Writes the bytes of a file: everything as it was at one moment."""
        writer = Writer(compression_level)
        async with self._engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            # A slow client is waited for: nobody waits for this transaction.
            await connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            tables, revision = await catalogue.tables(connection), await catalogue.revision(connection)
            # Read after the moment of the snapshot: no row of it has a number that is not given out yet.
            header = Header(revision, datetime.now(UTC).isoformat(), await catalogue.sequences(connection))
            await write(writer.header(header))
            rows = {}
            for table in tables:
                await write(writer.table(table))
                rows[table.name] = await _copy_out(connection, table, writer, write)
            await write(writer.end(rows))

    async def restore(self, file: BinaryIO) -> tuple[Mapping[str, int], str]:
        """Rows of each table and the revision of the file.

        Raises:
            ArterialError: INVALID_REQUEST if the file is no backup or not whole; REFUSED if it is of a later version, or anything is there.
        """
        try:
            header = await asyncio.to_thread(_verified, file)
        except BackupError as error:
            raise ArterialError(Reason.INVALID_REQUEST, str(error), violations=[Violation("data", str(error))]) from error
        if header.format > FORMAT or header.revision not in sql.revisions(self._scripts):
            raise ArterialError(Reason.REFUSED, f"the backup (revision {header.revision}) is of a later version of the control plane")
        async with self._engine.begin() as connection:
            names = await _expect_empty(connection)
            earlier = header.revision != await catalogue.revision(connection)
            if earlier:
                await catalogue.drop_everything(connection)
                await connection.run_sync(sql.upgrade, self._scripts, header.revision)
            else:
                await connection.execute(sa.text(f"TRUNCATE {names}"))
            rows = await _load(connection, file)
            await catalogue.advance(connection, header.sequences)
            if earlier:
                await connection.run_sync(sql.upgrade, self._scripts)
        if earlier:
            # Other connections remember tables that are not there any more.
            await self._engine.dispose()
        return rows, header.revision


def _verified(file: BinaryIO) -> Header:
    file.seek(0)
    backup_file.verify(file)
    return backup_file.header_of(file)


async def _copy_out(connection: AsyncConnection, table: Table, writer: Writer, write: Write) -> int:
    """Writes the rows of a table; returns how many."""
    raw, gathered = await _raw(connection), bytearray()

    async def out(data: bytes) -> None:
        gathered.extend(data)
        if len(gathered) >= DATA_BYTES:
            await write(await asyncio.to_thread(writer.data, bytes(gathered)))
            gathered.clear()

    # Of a table with partitions, COPY takes a query only.
    query = f"SELECT {', '.join(map(quoted, table.columns))} FROM {quoted(table.name)}"
    status: str = await raw.copy_from_query(query, output=out)
    if gathered:
        await write(writer.data(bytes(gathered)))
    return int(status.rpartition(" ")[2])


async def _expect_empty(connection: AsyncConnection) -> str:
    """Locks all tables, and returns their names as SQL has them. Raises REFUSED if anything is there that the start did not bring."""
    await connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({sql.MIGRATION_LOCK})"))
    tables = await catalogue.tables(connection)
    names = ", ".join(quoted(table.name) for table in tables)
    await _lock(connection, names)
    filled = await catalogue.with_rows(connection, tables, _OF_A_START)
    if filled:
        told = f"this control plane is not empty (there are {', '.join(filled)})"
        raise ArterialError(Reason.REFUSED, f"{told}: start one on an empty database, away from all that reports to it, to restore into it")
    return names


async def _lock(connection: AsyncConnection, names: str) -> None:
    """Locks tables. Loops of the start read several in an order of their own: who loses a deadlock to them lets go, and tries again."""
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            async with connection.begin_nested():
                await connection.execute(sa.text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
            return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") != DEADLOCK or attempt == LOCK_ATTEMPTS:
                raise
            await asyncio.sleep(random.uniform(0.05, 0.2))


async def _load(connection: AsyncConnection, file: BinaryIO) -> Mapping[str, int]:
    """Fills the tables; those that others refer to come first, as the file has them. Triggers keep still: what they did is in the file."""
    raw, items = await _raw(connection), backup_file.tables(file)
    rows: dict[str, int] = {}
    item: Any = await asyncio.to_thread(next, items)
    while isinstance(item, Table):
        name = quoted(item.name)
        source = _Source(items)
        await connection.execute(sa.text(f"ALTER TABLE {name} DISABLE TRIGGER USER"))
        status: str = await raw.copy_to_table(item.name, source=source.data(), columns=item.columns)
        await connection.execute(sa.text(f"ALTER TABLE {name} ENABLE TRIGGER USER"))
        rows[item.name] = int(status.rpartition(" ")[2])
        item = source.following
    if rows != item:
        raise ArterialError(Reason.INTERNAL, "the numbers of rows restored are not those of the backup: nothing was kept")
    return rows


class _Source:
    """The data of one table, and then what follows it in the file."""

    def __init__(self, items: Iterator[Table | bytes | Mapping[str, int]]) -> None:
        self._items = items
        self.following: Table | bytes | Mapping[str, int] = {}

    async def data(self) -> AsyncIterator[bytes]:
        """Pieces of data, until something else comes."""
        while True:
            self.following = await asyncio.to_thread(next, self._items)
            if not isinstance(self.following, bytes):
                return
            yield self.following


async def _raw(connection: AsyncConnection) -> Any:
    """The driver's own connection, within the same transaction: COPY is not part of SQLAlchemy."""
    return (await connection.get_raw_connection()).driver_connection
