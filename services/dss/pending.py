"""Which partitions wait for a profile: what commits touched, what is profiled already, when a busy one is due."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chassis.lake import Added, Commit
from chassis.lakedates import rows_of, touched


@dataclass(frozen=True)
class Note:
    """A partition's newest profile: version of the table that it is of, and when it was made, seconds since 1970."""

    version: int
    at: float


@dataclass
class Pending:
    """Partitions of one table that wait, by date, with the first version that their profile lacks. "" is the date of a null."""

    # Everything up to this version has been looked at.
    scanned: int = -1
    notes: dict[str, Note] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """Version up to which every partition is profiled."""
        return min([self.scanned, *(first - 1 for first in self.waiting.values())])

    def add_commits(self, commits: Iterable[Commit], date_column: str) -> None:
        """Takes what commits touched; of a partition that is profiled at that version or a later one, nothing."""
        for commit in commits:
            for date in touched(commit, date_column):
                if commit.version > self._profiled(date):
                    self.waiting.setdefault(date, commit.version)
            self.scanned = commit.version

    def add_partitions(self, dates: Iterable[str], version: int) -> None:
        """Takes the partitions that a snapshot has and no profile was ever made of."""
        for date in dates:
            if date not in self.notes:
                self.waiting.setdefault(date, version)

    def due(self, now: float, today: str, min_interval: float) -> list[str]:
        """Partitions to profile now, oldest first: those before today at once, the others when their last profile is old enough."""
        return sorted(
            date for date in self.waiting if _is_closed(date, today) or date not in self.notes or now - self.notes[date].at >= min_interval
        )

    def done(self, dates: Iterable[str], version: int, at: float) -> None:
        """Notes profiles of that version of the table."""
        for date in dates:
            self.notes[date] = Note(version, at)
            if self.waiting.get(date, version + 1) <= version:
                del self.waiting[date]

    def _profiled(self, date: str) -> int:
        return self.notes[date].version if date in self.notes else -1


def _is_closed(date: str, today: str) -> bool:
    """True of dates before today; "unknown" and the like may always grow."""
    return date[:1].isdigit() and date < today


def batches(waiting: Sequence[str], files: Mapping[str, Sequence[Added]], columns: int, max_cells: int, max_files: int) -> list[list[str]]:
    """The dates in runs that one statement takes: at most so many cells (rows x columns) and files, but at least one date."""
    runs: list[list[str]] = []
    cells = count = 0
    for date in waiting:
        more = rows_of(files.get(date, ())) * columns
        number = len(files.get(date, ()))
        if not runs or cells + more > max_cells or count + number > max_files:
            runs.append([])
            cells = count = 0
        runs[-1].append(date)
        cells, count = cells + more, count + number
    return runs
