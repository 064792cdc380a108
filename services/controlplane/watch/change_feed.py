"""The log of changes as a process that watches it reads it, and how it hears of new ones at once."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.controlplane.resources.store import CHANGES, RESOURCES
from services.controlplane.watch.differing import differing
from services.controlplane.watch.frames import Changed, Held, Key

# What the driver raises by itself, where SQLAlchemy does not stand between.
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError)
# Channel that a trigger of the table of changes notifies (migration 0005).
CHANNEL = "arterial_changes"


@dataclass(frozen=True)
class Place:
    """Where a reader is: a version, and when it was made. A database that was restored may have other changes under the same versions."""

    version: int
    at: datetime | None = None


@dataclass(frozen=True)
class Everything:
    """All resources, serialised, as they are there, and the changes after `floor`."""

    bodies: tuple[tuple[Key, bytes], ...]
    recent: tuple[tuple[int, Key], ...]
    place: Place
    floor: int
    held: Mapping[Key, Held]


@dataclass(frozen=True)
class Since:
    """Changes, in order, and what is not shown to all cells after them, which is there."""

    changes: tuple[Changed, ...]
    place: Place
    held: Mapping[Key, Held]


class ChangeFeed:
    """Reads resources and changes as bytes: they go to watchers as they are stored."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def everything(self, history: int) -> Everything:
        """All resources, and the last changes, which watchers may resume."""
        async with self._engine.connect() as connection:
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            newest = sa.select(CHANGES.c.version, CHANGES.c.at).order_by(CHANGES.c.version.desc()).limit(1)
            row = (await connection.execute(newest)).one_or_none()
            place = Place(0) if row is None else Place(row.version, row.at)
            floor = max(0, place.version - history)
            resources = await connection.execute(sa.select(RESOURCES.c.kind, RESOURCES.c.name, RESOURCES.c.body))
            query = sa.select(CHANGES.c.version, CHANGES.c.kind, CHANGES.c.name).where(CHANGES.c.version > floor)
            changes = await connection.execute(query.order_by(CHANGES.c.version))
            return Everything(
                tuple(((row.kind, row.name), row.body) for row in resources),
                tuple((row.version, (row.kind, row.name)) for row in changes),
                place,
                floor,
                await differing(connection),
            )

    async def after(self, place: Place, limit: int) -> Since | None:
        """Changes after a place, in order; None if it is not one of this database, or more than the limit came since."""
        version = place.version
        columns = (CHANGES.c.version, CHANGES.c.at, CHANGES.c.kind, CHANGES.c.name, CHANGES.c.body)
        query = sa.select(*columns).where(CHANGES.c.version >= version)
        async with self._engine.connect() as connection:
            # One state for both: a change must never be seen without the rollout that holds it back.
            await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            rows = (await connection.execute(query.order_by(CHANGES.c.version).limit(limit + 2))).all()
            held = await differing(connection) if len(rows) > 1 or not version else {}
        if len(rows) > limit + 1 or (version and (not rows or (rows[0].version, rows[0].at) != (version, place.at))):
            return None
        changes = tuple(Changed(row.version, (row.kind, row.name), row.body) for row in rows if row.version > version)
        return Since(changes, Place(rows[-1].version, rows[-1].at) if rows else place, held)

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
                driver.remove_termination_listener(notified)
                with suppress(*DRIVER_ERRORS):
                    await driver.remove_listener(CHANNEL, notified)


async def _driver(connection: AsyncConnection) -> "asyncpg.Connection[asyncpg.Record]":
    raw = await connection.get_raw_connection()
    driver: asyncpg.Connection[asyncpg.Record] = raw.driver_connection
    return driver
