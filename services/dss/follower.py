"""Follows one table: what commits touch is profiled, once, whatever ends or restarts the process."""

import asyncio
import datetime
import time
from dataclasses import dataclass

from chassis.clock import Clock
from chassis.lake import Table
from chassis.lakedates import files_by_date
from chassis.logs import logger
from services.dss.config import DssConfig
from services.dss.pending import Pending
from services.dss.profiler import Profiler, Target

# A table that is not there yet is looked for this often.
ABSENT_SECONDS = 10.0
# Commits and partitions of one step: other tables have their turn in between.
MAX_STEP_COMMITS, MAX_STEP_PARTITIONS = 1_000, 64
# Profiles of a busy partition rest this many times as long as one took (a twentieth of a core at most per table), those of a backlog once.
BUSY_REST_FACTOR, REST_FACTOR = 20.0, 1.0
_log = logger(__name__)


@dataclass
class Follower:
    """The follower of one table. Its progress is what the store has noted."""

    target: Target
    profiler: Profiler
    config: DssConfig
    clock: Clock
    rests_until: float = 0.0
    # Failures in a row before this follower was made.
    failures: int = 0

    _table: Table | None = None
    _pending: Pending | None = None
    _took_seconds: float = 0.0
    _told: tuple[int, int] | None = None
    _told_at: float = 0.0

    async def step(self) -> None:
        """Looks for new commits and profiles what is due. Raises as `Profiler.profile` does."""
        self._table = self._table or await asyncio.to_thread(Table.open, self.config.lake, self.target.table)
        if self._table is None:
            self.rests_until = self.clock.now() + ABSENT_SECONDS
            return
        self._pending = self._pending or await self._begin(self._table)
        pending, table = self._pending, self._table
        pending.add_commits(await asyncio.to_thread(table.newer_commits, pending.scanned, MAX_STEP_COMMITS), table.partition_columns[0])
        now = self.clock.now()
        today = datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()
        interval = max(self.config.profile.min_interval_seconds, BUSY_REST_FACTOR * self._took_seconds)
        due = pending.due(now, today, interval)[:MAX_STEP_PARTITIONS]
        if due:
            await self._profile(table, pending, due, now)
        await self._tell(pending, now, at_once=bool(due))

    async def _begin(self, table: Table) -> Pending:
        """What waits according to the notes: partitions without one, and those that were touched after theirs."""
        notes = await self.profiler.store.notes(self.target.dataset)
        noted = await self.profiler.store.version(self.target.dataset)
        base = noted if noted >= 0 else min((note.version for note in notes.values()), default=table.version)
        if base > table.version:
            raise RuntimeError(f"{self.target.dataset} is at version {table.version}, but was profiled at {base}: it is another table")
        pending = Pending(scanned=base, notes=notes)
        try:
            pending.add_commits(await asyncio.to_thread(table.commits_after, base), table.partition_columns[0])
        except OSError:
            _log.warning("commits were cleaned from the log, profiling all partitions again", dataset=self.target.dataset, after=base)
            pending = Pending(scanned=table.version)
        pending.add_partitions(files_by_date(await asyncio.to_thread(table.files), table.partition_columns[0]), table.version)
        return pending

    async def _profile(self, table: Table, pending: Pending, due: list[str], now: float) -> None:
        await asyncio.to_thread(table.refresh)
        began = time.monotonic()
        version = await self.profiler.profile(self.target, table, due)
        self._took_seconds = time.monotonic() - began
        pending.done(due, version, now)
        self.rests_until = self.clock.now() + REST_FACTOR * self._took_seconds
        _log.info("profiled", dataset=self.target.dataset, partitions=len(due), table_version=version, seconds=round(self._took_seconds, 3))

    async def _tell(self, pending: Pending, now: float, *, at_once: bool) -> None:
        """Notes how far the table is profiled, if that is news; what only grows is told no more often than it is profiled."""
        standing = (pending.version, len(pending.waiting))
        if standing == self._told or not (at_once or now - self._told_at >= self.config.profile.min_interval_seconds):
            return
        await self.profiler.store.put_standing(self.target.dataset, *standing, now)
        self._told, self._told_at = standing, now
