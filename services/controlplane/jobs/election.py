"""Which of the replicas does what only one may do: the one whose session holds an advisory lock of the database."""

import asyncio
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.logs import logger
from chassis.process import Context

INTERVAL_SECONDS = 1.0
# The database ends a session that says nothing for so long, and frees its lock: also of a process that was stopped, not killed.
SILENT_SECONDS = 5
# And gives up a connection whose other end is gone without a word, such as a machine that lost its power.
KEEPALIVES = {"tcp_keepalives_idle": "2", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3", "tcp_user_timeout": "5000"}
_log = logger(__name__)


class Election:
    """Stands for an office until the process stops; `leading` says whether it is this process's now.

    A leader may learn late that it lost the office: what it does must be harmless twice, which keys of the database see to.
    """

    def __init__(self, engine: AsyncEngine, office: str) -> None:
        self._engine = engine
        self._office = office
        self.leading = False

    async def run(self, context: Context) -> None:
        """Holds one connection of the engine; it is closed at the end, so that another replica leads at once."""
        connection: AsyncConnection | None = None
        try:
            while not context.stopping.is_set():
                try:
                    connection = connection or await self._connected()
                    self._now(await self._asked(connection))
                except (OSError, SQLAlchemyError) as error:
                    _log.warning("election: store away", office=self._office, error=repr(error))
                    self._now(False)
                    await _closed(connection)
                    connection = None
                with suppress(TimeoutError):
                    await asyncio.wait_for(context.stopping.wait(), INTERVAL_SECONDS)
        finally:
            self._now(False)
            await _closed(connection)

    async def _connected(self) -> AsyncConnection:
        connection = await self._engine.connect()
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for name, value in (KEEPALIVES | {"idle_session_timeout": f"{SILENT_SECONDS}s"}).items():
            await connection.execute(sa.text(f"SET {name} = '{value}'"))
        return connection

    async def _asked(self, connection: AsyncConnection) -> bool:
        """Whether the session holds the lock. A session that has it is not given it again: it would have to be returned as often."""
        if self.leading:
            await connection.execute(sa.select(1))
            return True
        key = sa.func.hashtextextended(f"election/{self._office}", 0)
        return bool(await connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))))

    def _now(self, leading: bool) -> None:
        if leading != self.leading:
            _log.info("office taken" if leading else "office left", office=self._office)
        self.leading = leading


async def _closed(connection: AsyncConnection | None) -> None:
    """Ends the session, which frees its lock: given back to a pool, it would keep it."""
    if connection is not None:
        with suppress(OSError, SQLAlchemyError):
            await connection.invalidate()
        with suppress(OSError, SQLAlchemyError):
            await connection.close()
