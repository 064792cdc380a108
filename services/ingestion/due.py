"""Which dates of its sources a derived table must be made of anew, and what progress that is."""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from chassis.lake import Added, Commit, Step, Table
from chassis.lakedates import files_by_date, rows_of, touched
from services.ingestion.supersession import rows_of_sources, superseded_by

# Progress of a table besides that of its sources (their last version that it has): of which function it is, and down to which date it has
# been made by that function, newest date first: the ordinal of that date, 0 when all are done.
DEFINITION, HISTORY = "definition", "history"
BEGIN = datetime.date.max.toordinal() + 1
# What one step takes: bounds its length, so that other tables have their turn, and what is done again after a kill. More dates than these
# in one commit of a source, and the whole table is made anew, in as many steps as it takes.
MAX_STEP_DATES, MAX_STEP_ROWS, MAX_STEP_COMMITS = 64, 2_000_000, 1000
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Restart(Exception):
    """What changed cannot be told, or is too much: all dates must be made anew."""


@dataclass(frozen=True)
class Source:
    """A table that is read: its logical name, and a snapshot."""

    dataset: str
    table: Table

    @cached_property
    def files(self) -> Mapping[str, Sequence[Added]]:
        """Good data files of the snapshot, by date. Takes time for many files, and is needed only where there is work."""
        return files_by_date(self.table.files(), self.table.partition_columns[0])


@dataclass(frozen=True)
class Work:
    """Source dates to make anew, the progress that their commit moves, and how many dates of history are left then."""

    dates: tuple[str, ...]
    steps: Mapping[str, Step]
    left: int = 0


def changed(table: Table, sources: Sequence[Source]) -> Work | None:
    """What the sources' commits since the table's progress touched; None if there are none.

    Raises:
        Restart: commits were cleaned from a log, a source is older than its progress, or it is too much for one step.
    """
    dates: set[str] = set()
    steps: dict[str, Step] = {}
    for source in sources:
        done = table.progress(source.table.name)
        if done is None or done > source.table.version:
            raise Restart(f"{source.dataset} is at version {source.table.version}, the table at {done}")
        if done == source.table.version:
            continue
        commits = [commit for commit in source.table.newer_commits(done, MAX_STEP_COMMITS) if commit.version <= source.table.version]
        if not commits:
            raise Restart(f"commits of {source.dataset} after {done} were cleaned from its log")
        for commit in commits:
            dates |= touched(commit, source.table.partition_columns[0]) | _of_superseded(source.table, commit)
        steps[source.table.name] = Step(done, commits[-1].version)
    if len(dates) > MAX_STEP_DATES:
        raise Restart(f"{len(dates)} dates changed at once")
    return Work(tuple(sorted(dates)), steps) if steps else None


def history(table: Table | None, sources: Sequence[Source], definition: int, made: Sequence[str], *, anew: bool) -> Work:
    """The next dates of a table that is not wholly made by its definition, newest first. Whatever its sources gain while its history is
    made counts as changed afterwards.

    Args:
        table: the derived one; None before its first commit.
        sources: as they are now.
        definition: which function it is.
        made: source dates that the table has rows of.
        anew: begin with the newest date.
    """
    begun = progress(table, HISTORY)
    position = BEGIN if anew or begun is None else begun
    rows = dict.fromkeys(made, 0)
    for source in sources:
        for date, files in source.files.items():
            rows[date] = rows.get(date, 0) + rows_of(files)
    waiting = sorted((date for date in rows if ordinal(date) < position), key=lambda date: (ordinal(date), date), reverse=True)
    taken = _first_of(waiting, rows)
    end = ordinal(taken[-1]) if len(taken) < len(waiting) else 0
    steps = {HISTORY: Step(begun, end)}
    if anew:
        steps[DEFINITION] = Step(progress(table, DEFINITION), definition)
        steps |= {source.table.name: Step(progress(table, source.table.name), source.table.version) for source in sources}
    return Work(tuple(taken), steps, len(waiting) - len(taken))


def progress(table: Table | None, app_id: str) -> int | None:
    """Progress of a table that may not be there yet."""
    return table.progress(app_id) if table is not None else None


def ordinal(date: str) -> int:
    """The place of a date, from 1 on; 0 of "unknown" and other partitions that are no date."""
    return datetime.date.fromisoformat(date).toordinal() if _ISO_DATE.fullmatch(date) else 0


def _first_of(waiting: Sequence[str], rows: Mapping[str, int]) -> list[str]:
    """As many as one step takes, at least one; those that are no dates have one place, and are taken together."""
    taken: list[str] = []
    total = 0
    for date in waiting:
        total += rows[date]
        full = len(taken) >= MAX_STEP_DATES or total > MAX_STEP_ROWS
        if taken and full and not ordinal(date) == ordinal(taken[-1]) == 0:
            break
        taken.append(date)
    return taken


def _of_superseded(table: Table, commit: Commit) -> set[str]:
    """Dates of the rows that a correction in a raw table supersedes: they are there still, but are not to be read any more."""
    sources = superseded_by(commit)
    if not sources:
        return set()
    column = table.partition_columns[0]
    rows = rows_of_sources(table, column, sources)
    return set(rows.cast(pa.string()).unique().to_pylist())
