"""The log of changes as a process that watches it reads it, and how it hears of new ones at once."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.controlplane import rollout_rows
from services.controlplane.frames import Changed, Held, Key
from services.controlplane.store import CHANGES, RESOURCES

# Channel that a trigger of the table of changes notifies (migration 0005).
CHANNEL = "arterial_changes"


@dataclass(frozen=True)
class Everything:
    """All resources, serialised, at `version`, and the changes after `floor`."""

    bodies: tuple[tuple[Key, bytes], ...]
    recent: tuple[tuple[int, Key], ...]
    version: int
    floor: int
    held: Mapping[Key, Held]


@dataclass(frozen=True)
class Since:
    """Changes, in order, and what is not shown to all cells after them."""

    changes: tuple[Changed, ...]
    held: Mapping[Key, Held]


class ChangeFeed:
    """Reads resources and changes as bytes: they go to watchers as they are stored."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def everything(self, history: int) -> Everything:
        """All resources, and the last changes, which watchers may resume."""
        async with self._engine.connect() as connection:
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            version = int(await connection.scalar(sa.select(sa.func.max(CHANGES.c.version))) or 0)
            floor = max(0, version - history)
            resources = await connection.execute(sa.select(RESOURCES.c.kind, RESOURCES.c.name, RESOURCES.c.body))
            query = sa.select(CHANGES.c.version, CHANGES.c.kind, CHANGES.c.name).where(CHANGES.c.version > floor)
            changes = await connection.execute(query.order_by(CHANGES.c.version))
            return Everything(
                tuple(((row.kind, row.name), row.body) for row in resources),
                tuple((row.version, (row.kind, row.name)) for row in changes),
                version,
                floor,
                await rollout_rows.held(connection),
            )

    async def after(self, version: int, limit: int) -> Since | None:
        """Changes after a version, in order; None if it is not one of this database, or more than the limit came since."""
        query = sa.select(CHANGES.c.version, CHANGES.c.kind, CHANGES.c.name, CHANGES.c.body).where(CHANGES.c.version >= version)
        async with self._engine.connect() as connection:
            # One state for both: a change must never be seen without the rollout that holds it back.
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            rows = (await connection.execute(query.order_by(CHANGES.c.version).limit(limit + 2))).all()
            held = await rollout_rows.held(connection) if len(rows) > 1 or not version else {}
        if len(rows) > limit + 1 or (version and (not rows or rows[0].version != version)):
            return None
        return Since(tuple(Changed(row.version, (row.kind, row.name), row.body) for row in rows if row.version > version), held)

    @asynccontextmanager
    async def listening(self, heard: Callable[[], None]) -> AsyncIterator[Callable[[], bool]]:
        """Calls `heard` when something was changed, or the connection was lost; what it gives says whether it still listens."""
        async with self._engine.connect() as connection:
            driver = await _driver(connection)

            def notified(*_: object) -> None:
                heard()

            await driver.add_listener(CHANNEL, notified)
            driver.add_termination_listener(notified)
            try:
                yield lambda: not driver.is_closed()
            finally:
                if not driver.is_closed():
                    driver.remove_termination_listener(notified)
                    await driver.remove_listener(CHANNEL, notified)


async def _driver(connection: AsyncConnection) -> "asyncpg.Connection[asyncpg.Record]":
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection[asyncpg.Record] = raw.driver_connection
    return driver
