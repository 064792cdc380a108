"""PostgreSQL through SQLAlchemy and asyncpg, migrated by Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from chassis.config import SqlConfig

# Connections of one process: PostgreSQL's are costly, and statements here are short.
POOL_SIZE = 5
# One lock for all processes that migrate the same database at once.
MIGRATION_LOCK = 0x41525445


def engine(config: SqlConfig) -> AsyncEngine:
    """An engine; it connects when first used."""
    arguments = {} if config.tls is None else {"ssl": config.tls.context()}
    return create_async_engine(config.url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_pre_ping=True, connect_args=arguments)


async def migrate(database: AsyncEngine, scripts: Path) -> None:
    """Brings the database to the newest revision of the scripts (a folder with env.py and versions/)."""
    async with database.begin() as connection:
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        await connection.run_sync(_upgrade, scripts)


def _upgrade(connection: Connection, scripts: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
