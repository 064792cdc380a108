"""What raw tables hold and how far their followers are, read from logs alone: no snapshot is kept, and no row is read."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from chassis.config import CellConfig, LakeConfig
from chassis.lake import Commit, Log, Table
from chassis.topics import Topic
from services.ingestion.holdings import EVENT_TIME, FILE_SOURCE, KAFKA_TIME, Block, Span, block, blocks, folded
from services.ingestion.raw import app_id, table_name

# Commits read at a time: a log that is far ahead is read in several steps.
BATCH = 500
# Commits of a table whose progress is remembered: what follows it is that far behind at most, or it is not known how far.
KEPT_COMMITS = 1000
# What the snapshot of a table says of its files.
_ACTIONS = (
    "num_records",
    "partition.ingest_date",
    "partition.dead",
    f"min.{EVENT_TIME}",
    f"max.{EVENT_TIME}",
    f"max.{KAFKA_TIME}",
    "min._topic",
    "max._topic",
)


class Position:
    """Version of a table, and the progress of its sources, kept up to date from its log."""

    def __init__(self, lake: LakeConfig, name: str, sources: Sequence[str]) -> None:
        self._lake = lake
        self._name = name
        self._sources = tuple(sources)
        self._log: Log | None = None
        self.version = -1
        self.progress: dict[str, int] = {}
        self._before: deque[tuple[int, dict[str, int]]] = deque(maxlen=KEPT_COMMITS)

    def at(self, version: int) -> Mapping[str, int] | None:
        """Progress of the sources at a version (-1: before the first); None if that is not remembered."""
        if version < 0:
            return {}
        return next((progress for number, progress in reversed(self._before) if number <= version), None)

    def refresh(self) -> None:
        """Reads on. Blocks: run it in a thread."""
        if self._log is None or self._log.is_gone(self.version):
            self._log, self.version, self.progress = None, -1, {}
            self._before.clear()
            table = Table.open(self._lake, self._name)
            if table is None:
                return
            self.version = table.version
            self.progress = {source: done for source in self._sources if (done := table.progress(source)) is not None}
            self._log = Log(self._lake, self._name)
            self._before.append((self.version, self.progress))
        for commit in newer(self._log, self.version):
            self.version = commit.version
            self.progress = self.progress | {source: done for source, done in commit.transactions.items() if source in self._sources}
            self._before.append((self.version, self.progress))


class RawLog:
    """What a raw table holds, kept up to date from its log."""

    def __init__(self, cell: CellConfig, lake: LakeConfig, topic: Topic) -> None:
        self._lake = lake
        self._name = table_name(topic.name)
        self._sources = {app_id(cell, topic.name, topic.incarnation, number): number for number in range(topic.partitions)}
        self._log: Log | None = None
        self.version = -1
        self._base = -1
        self.blocks: list[Block] = []
        # Exclusive end of each partition of the topic.
        self.ends: dict[int, int | None] = dict.fromkeys(range(topic.partitions))

    def refresh(self, taken: Iterable[int]) -> None:
        """Reads on; `taken` has the versions that the followers have taken (-1: nothing). Blocks: run it in a thread."""
        base = min((version for version in taken if version >= 0), default=None)
        if self._log is None or (base is not None and base < self._base) or self._log.is_gone(self.version):
            self._open(base)
        if self._log is None:
            return
        for commit in newer(self._log, self.version):
            self._take(commit)
        if base is not None:
            self._base = max(self._base, min(base, self.version))
            self.blocks = folded(self.blocks, self._base)

    def _open(self, base: int | None) -> None:
        """Begins with the files of one version: that which every follower has taken, so that it is known what each of them lacks."""
        self._log, self._base, self.version, self.blocks, self.ends = None, -1, -1, [], dict.fromkeys(self.ends)
        table = Table.open(self._lake, self._name)
        if table is not None and base is not None and base < table.version:
            table = Table.open(self._lake, self._name, base)
        if table is None:
            return
        self._log = Log(self._lake, self._name, (EVENT_TIME, KAFKA_TIME))
        self._base = self.version = table.version
        self.ends = {number: table.progress(source) for source, number in self._sources.items()}
        self.blocks = folded(_in_snapshot(table), self._base)

    def _take(self, commit: Commit) -> None:
        self.version = commit.version
        self.blocks += blocks([commit])
        self.ends |= {self._sources[source]: end for source, end in commit.transactions.items() if source in self._sources}


def newer(log: Log, version: int) -> Iterable[Commit]:
    """All commits after a version, a batch at a time."""
    while commits := log.newer_commits(version, BATCH):
        yield from commits
        version = commits[-1].version


def _in_snapshot(table: Table) -> list[Block]:
    """Blocks of all files of good rows; which versions brought them is not known any more, but they are not later than the snapshot's."""
    actions = pa.table(table.handle.get_add_actions(flatten=True))
    found = []
    for rows, day, dead, *times, first, last in zip(*(_values(actions, name) for name in _ACTIONS), strict=True):
        if not dead:
            live = not all(source and source.startswith(FILE_SOURCE) for source in (first, last))
            span = Span(*(None if time is None else time / 1e6 for time in times))
            found.append(block(table.version, rows or 0, day, span, live=live))
    return found


def _values(actions: pa.Table, name: str) -> list[Any]:
    """A column: dates as days, times as microseconds, which have all years; of one that no file has statistics of, nothing."""
    if name not in actions.column_names:
        return [None] * actions.num_rows
    column = actions[name]
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    found: list[Any] = column.to_pylist()
    return found
