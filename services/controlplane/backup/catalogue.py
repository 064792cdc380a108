"""What the database says of its own tables: a backup has no list of them to keep up to date."""

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.controlplane.backup.backup_file import Table

# Alembic's own: it says the revision, which a backup says itself.
REVISION_TABLE = "alembic_version"
_TABLES = """
SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) AS columns FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> :revision
AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' GROUP BY c.relname ORDER BY c.relname
"""
_REFERENCES = """
SELECT source.relname AS source, target.relname AS target FROM pg_constraint AS k JOIN pg_class AS source ON source.oid = k.conrelid
JOIN pg_class AS target ON target.oid = k.confrelid WHERE k.contype = 'f' AND k.connamespace = current_schema()::regnamespace
AND source.oid <> target.oid
"""
_SEQUENCES = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = current_schema() AND last_value IS NOT NULL"
_OWN = "relnamespace = current_schema()::regnamespace"


async def tables(connection: AsyncConnection) -> list[Table]:
    """All tables with their columns, those that others refer to first."""
    rows = (await connection.execute(sa.text(_TABLES), {"revision": REVISION_TABLE})).all()
    found = {row.relname: Table(row.relname, row.columns) for row in rows}
    needs: dict[str, set[str]] = {name: set() for name in found}
    for row in (await connection.execute(sa.text(_REFERENCES))).all():
        needs[row.source].add(row.target)
    return [found[name] for name in TopologicalSorter(needs).static_order()]


async def revision(connection: AsyncConnection) -> str:
    """Revision of the schema."""
    return str(await connection.scalar(sa.text(f"SELECT version_num FROM {REVISION_TABLE}")))


async def sequences(connection: AsyncConnection) -> dict[str, int]:
    """The last value that each sequence gave out."""
    return {row.sequencename: int(row.last_value) for row in (await connection.execute(sa.text(_SEQUENCES))).all()}


async def with_rows(connection: AsyncConnection, among: Sequence[Table], but: Mapping[str, str] | None = None) -> list[str]:
    """Names of the tables that have rows; of a table in `but`, other rows than those of the condition."""
    conditions = {table.name: f"WHERE NOT ({(but or {})[table.name]})" if table.name in (but or {}) else "" for table in among}
    return [
        name
        for name, where in conditions.items()
        if await connection.scalar(sa.text(f"SELECT EXISTS (SELECT FROM {quoted(name)} {where})"))
    ]


async def advance(connection: AsyncConnection, last: Mapping[str, int]) -> None:
    """Sequences give out nothing again that they gave out before."""
    for name, value in last.items():
        await connection.execute(sa.text("SELECT setval(CAST(:name AS regclass), :value)"), {"name": quoted(name), "value": value})


async def drop_everything(connection: AsyncConnection) -> None:
    """Drops tables, sequences and functions of the schema: what migrations made."""
    for kind, query in (
        ("TABLE", f"SELECT oid::regclass::text FROM pg_class WHERE {_OWN} AND relkind IN ('r', 'p') AND NOT relispartition"),
        ("SEQUENCE", f"SELECT oid::regclass::text FROM pg_class WHERE {_OWN} AND relkind = 'S'"),
        ("ROUTINE", "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"),
        ("TYPE", "SELECT oid::regtype::text FROM pg_type WHERE typnamespace = current_schema()::regnamespace AND typtype IN ('e', 'd')"),
    ):
        for name in (await connection.scalars(sa.text(query))).all():
            await connection.execute(sa.text(f"DROP {kind} IF EXISTS {name} CASCADE"))


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
