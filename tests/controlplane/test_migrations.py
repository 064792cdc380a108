"""Migrations: from every revision there was, with rows in every table, up to the newest."""

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chassis import sql
from services.controlplane.__main__ import MIGRATIONS
from services.controlplane.backup import catalogue

REVISIONS = sql.revisions(MIGRATIONS)
# A value of each type, as SQL: bytes are an empty message, which any parser takes.
VALUES = {
    "text": "'x'",
    "int4": "1",
    "int8": "1",
    "float8": "1.5",
    "bool": "true",
    "bytea": "''::bytea",
    "jsonb": "'{}'::jsonb",
    "date": "date '2026-11-24'",
    "timestamptz": "timestamptz '2026-11-24 00:00:00Z'",
    "_text": "ARRAY['x']",
}
COLUMNS = """
SELECT attname, typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a'
"""


async def fill(connection: AsyncConnection) -> set[str]:
    """A row in every table, those that others refer to first: all values are equal, so that references hold. Returns the tables."""
    names = [table.name for table in await catalogue.tables(connection)]
    for name in names:
        columns = (await connection.execute(sa.text(COLUMNS), {"name": catalogue.quoted(name)})).all()
        given = ", ".join(catalogue.quoted(column.attname) for column in columns)
        values = ", ".join(VALUES[column.typname] for column in columns)
        await connection.execute(sa.text(f"INSERT INTO {catalogue.quoted(name)} ({given}) VALUES ({values})"))
    return set(names)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_database_of_any_revision_comes_up_to_the_newest_with_its_rows(database_url: str, revision: str) -> None:
    """Every table that is still there has its row; the newest revision is reached, and takes rows."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(sql.upgrade, MIGRATIONS, revision)
        filled = await fill(connection)
    await sql.migrate(engine, MIGRATIONS)
    async with engine.begin() as connection:
        assert await catalogue.revision(connection) == REVISIONS[-1]
        tables = await catalogue.tables(connection)
        missing = {table.name for table in tables} & filled - set(await catalogue.with_rows(connection, tables))
        assert filled and not missing
    await engine.dispose()


def test_revisions_are_one_chain() -> None:
    """Numbered without a gap: two that were made at the same time would both follow the same one."""
    assert [f"{number:04}" for number in range(1, len(REVISIONS) + 1)] == REVISIONS
