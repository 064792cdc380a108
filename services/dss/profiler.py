"""Profiles partitions: picks their data files, has the OLAP engine measure them, and notes the version that they were measured at."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chassis.clock import Clock
from chassis.config import LakeConfig
from chassis.lake import Added, Table
from chassis.lakedates import files_by_date, rows_of
from chassis.lakesql import resolved, source
from chassis.lineage import JobDefinition, Lineage, from_sql
from chassis.olap import column_type
from services.dss.pending import Note, batches
from services.dss.statistics import MAX_ROWS_EXACT_MEDIAN, Profile, groups_of, profile_of, profile_sql, read_columns
from services.dss.store import SeriesStore

# Exact medians and distinct counts need about 120 bytes of the engine's memory per row and column: a statement takes about 250 MB.
MAX_CELLS = 2_000_000
# Files of a statement: what a query may name, with room to spare.
MAX_FILES = 5_000
OUTPUT = "olap/dss/series"
LAKE = "lake/"


@dataclass(frozen=True)
class Target:
    """A table that is profiled: its logical name, and the column of its markets ("" for none)."""

    dataset: str
    market_column: str

    @property
    def table(self) -> str:
        """Name within the lake."""
        return self.dataset.removeprefix(LAKE)


class Profiler:
    """Profiles partitions of tables, and tells lineage what it runs."""

    def __init__(self, lake: LakeConfig, store: SeriesStore, clock: Clock, lineage: Lineage | None = None) -> None:
        self.store = store
        self._lake = lake
        self._clock = clock
        self._lineage = lineage
        # What lineage was told of each dataset: reading it from the SQL costs more than many a profile.
        self._told: dict[str, Profile] = {}

    async def profile(self, target: Target, table: Table, dates: Sequence[str]) -> int:
        """Profiles partitions at the version of the table's handle, and returns it.

        Raises:
            ArterialError: DEPENDENCY_UNAVAILABLE, the OLAP engine does not answer.
            DatabaseError: the engine refuses, for example because a data file is gone.
        """
        await self.store.create()
        note = Note(table.version, self._clock.now())
        files = files_by_date(await asyncio.to_thread(table.files), table.partition_columns[0])
        profile = profile_of(table.schema, table.partition_columns[0], target.market_column)
        for batch in batches(dates, files, len(profile.columns), MAX_CELLS, MAX_FILES):
            chosen = [added for date in batch for added in files.get(date, ())]
            empty = [date for date in batch if not any(added.rows for added in files.get(date, ()))]
            if len(empty) < len(batch):
                await self._measure(target, table, profile, chosen, note)
            if empty:
                await self.store.insert_empty(target.dataset, empty, note)
        self._tell(target, table, profile)
        return note.version

    def leave(self, target: Target) -> None:
        """A table is profiled no longer."""
        if self._told.pop(target.dataset, None) is not None and self._lineage is not None:
            self._lineage.end(job_name(target))

    async def _measure(self, target: Target, table: Table, profile: Profile, files: Sequence[Added], note: Note) -> None:
        rows = rows_of(files)
        parts = list(groups_of(profile, rows, MAX_CELLS))
        for number, part in enumerate(parts, 1):
            read = source(self._lake, table.name, files, table.schema, read_columns(part))
            # The row count is the note that the partition is profiled: last.
            sql = profile_sql(target.dataset, part, exact_median=rows <= MAX_ROWS_EXACT_MEDIAN, with_rows=number == len(parts))
            await self.store.run(resolved(self.store.insert_sql(target.dataset, sql, note), {target.dataset: read}))

    def _tell(self, target: Target, table: Table, profile: Profile) -> None:
        if self._lineage is None or self._told.get(target.dataset) == profile:
            return
        self._told[target.dataset] = profile
        types = {field.name: column_type(field) for field in table.schema}
        self._lineage.emit_from(job_name(target), lambda: definition(self.store, target, profile, types))


def job_name(target: Target) -> str:
    """Name of the job that profiles a table."""
    return f"dss.profile.{target.table}"


def definition(store: SeriesStore, target: Target, profile: Profile, types: Mapping[str, str]) -> JobDefinition:
    """What profiling a table reads and makes, from the statement itself (of no version and time)."""
    statement = store.insert_sql(target.dataset, profile_sql(target.dataset, profile), Note(0, 0.0))
    return from_sql(job_name(target), statement, OUTPUT, {target.dataset: types})
