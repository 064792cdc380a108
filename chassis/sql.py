"""PostgreSQL through SQLAlchemy and asyncpg, migrated by Alembic."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chassis.config import SqlConfig

# Connections of one process: PostgreSQL's are costly, and statements here are short.
POOL_SIZE = 5
# One lock for all processes that migrate the same database at once.
MIGRATION_LOCK = 0x41525445


def engine(config: SqlConfig, *, idle_in_transaction_seconds: int = 0) -> AsyncEngine:
    """An engine; it connects when first used.

    With `idle_in_transaction_seconds` the database ends a transaction that says nothing for so long: a process that hangs in the middle of
    one keeps its locks no longer.
    """
    settings = {"idle_in_transaction_session_timeout": f"{idle_in_transaction_seconds}s"} if idle_in_transaction_seconds else {}
    arguments: dict[str, Any] = {"server_settings": settings}
    if config.tls is not None:
        arguments["ssl"] = config.tls.context()
    return create_async_engine(config.url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_pre_ping=True, connect_args=arguments)


async def migrate(database: AsyncEngine, scripts: Path) -> None:
    """Brings the database to the newest revision of the scripts (a folder with env.py and versions/)."""
    async with database.begin() as connection:
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        await connection.run_sync(upgrade, scripts)


def upgrade(connection: Connection, scripts: Path, revision: str = "head") -> None:
    """Brings the database to a revision, within the transaction of the connection."""
    config = _config(scripts)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def revisions(scripts: Path) -> list[str]:
    """All revisions of the scripts, the first one first."""
    return [script.revision for script in ScriptDirectory.from_config(_config(scripts)).walk_revisions()][::-1]


def _config(scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    return config
