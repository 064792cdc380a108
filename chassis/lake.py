"""Delta tables whose progress is part of the very commit that moves the rows (one-way doors 5 to 7 of the design)."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from chassis.config import LakeConfig
from chassis.logs import logger

# A file is one block of the OLAP engine and one unit of its deduplication.
MAX_FILE_ROWS = 2_000_000
# Attempts of one commit against other writers of the table before the caller is told.
MAX_ATTEMPTS = 10
# Every so many commits the log is condensed into a checkpoint, so that opening a table stays cheap.
CHECKPOINT_EVERY = 100
_WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=MAX_FILE_ROWS)
_log = logger(__name__)


class Superseded(Exception):
    """Another writer moved this progress: drop the batch and begin again at the table's progress."""


@dataclass(frozen=True)
class Step:
    """Progress of one source that a commit makes: from `start` (None if there is none yet) to `end`, exclusive."""

    start: int | None
    end: int


@dataclass(frozen=True)
class Added:
    """A data file of a commit; `path` is relative to the table's root, `rows` -1 if the log does not count them."""

    path: str
    partition_values: Mapping[str, str | None]
    rows: int
    size_bytes: int
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Least and largest value of columns, as the log writes them; of those that a `Log` was asked for."""

    @property
    def good(self) -> bool:
        """False of files of dead rows, which only raw tables have."""
        return self.partition_values.get("dead") != "true"


@dataclass(frozen=True)
class Commit:
    """A commit of the log. `data_change` is false for compaction and the like."""

    version: int
    added: tuple[Added, ...]
    removed: tuple[str, ...]
    transactions: Mapping[str, int]
    data_change: bool
    info: Mapping[str, Any] = field(default_factory=dict)


class Table:
    """A Delta table and the handle whose snapshot decides whether a commit may go ahead."""

    def __init__(self, config: LakeConfig, name: str, handle: DeltaTable) -> None:
        self.name = name
        self.uri = config.table(name)
        self._options = config.storage_options
        self.handle = handle
        self._files = pa.fs.PyFileSystem(DeltaStorageHandler.from_table(handle._table))

    @classmethod
    def open(cls, config: LakeConfig, name: str, version: int | None = None) -> "Table | None":
        """The table, at its newest version or at that one, or None if it does not exist.

        Raises:
            DeltaError: the version does not exist or was cleaned from the log.
        """
        try:
            return cls(config, name, DeltaTable(config.table(name), version=version, storage_options=config.storage_options or None))
        except TableNotFoundError:
            return None

    @classmethod
    def open_or_create(
        cls,
        config: LakeConfig,
        name: str,
        schema: pa.Schema,
        partition_by: Sequence[str],
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> "Table":
        """The table; created, empty, if it does not exist. Two creators at once are fine. `properties` are Delta's, of a new table."""
        table = cls.open(config, name)
        if table is not None:
            return table
        settings = {"delta.checkpointInterval": str(CHECKPOINT_EVERY), "delta.logRetentionDuration": "interval 30 days", **properties}
        try:
            DeltaTable.create(
                config.table(name),
                schema,
                mode="error",
                partition_by=list(partition_by),
                configuration=settings,
                storage_options=config.storage_options or None,
            )
        except DeltaError:
            _log.info("table was created by another writer", table=name)
        created = cls.open(config, name)
        if created is None:
            raise OSError(f"table {name} could not be created")
        return created

    @property
    def version(self) -> int:
        """Version of the handle's snapshot."""
        return self.handle.version()

    def refresh(self) -> None:
        """Moves the handle to the newest version."""
        self.handle.update_incremental()

    @property
    def schema(self) -> pa.Schema:
        """Columns of the handle's snapshot, partition columns included."""
        return pa.schema(self.handle.schema())

    @property
    def partition_columns(self) -> list[str]:
        """Partition columns of the handle's snapshot; the first one is the date."""
        return list(self.handle.metadata().partition_columns)

    def progress(self, app_id: str) -> int | None:
        """Progress of a source as the handle's snapshot has it."""
        return self.handle.transaction_version(app_id)

    def append(self, rows: pa.Table, steps: Mapping[str, Step]) -> int:
        """Appends rows and moves the progress of their sources, all or nothing; returns the version.

        The handle is refreshed, compared with every step's start, and then used for the append without another refresh: a writer that
        committed the same source since makes the append fail. A failure is resolved by comparing again.

        Raises:
            Superseded: some progress is neither at its start nor at its end.
            OSError: the commit did not succeed after MAX_ATTEMPTS.
        """
        transactions = [Transaction(app_id, step.end) for app_id, step in steps.items()]
        for attempt in range(MAX_ATTEMPTS):
            self.refresh()
            if self._committed(steps):
                return self.version
            try:
                write_deltalake(
                    self.handle,
                    self.conformed(rows),
                    mode="append",
                    schema_mode="merge" if self._has_new_columns(rows.schema) else None,
                    writer_properties=_WRITER,
                    commit_properties=CommitProperties(app_transactions=transactions, max_commit_retries=15),
                    post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
                )
                return self.version
            except (DeltaError, OSError) as error:
                _log.warning("append failed, comparing progress", table=self.name, attempt=attempt, error=str(error)[:300])
        raise OSError(f"append to {self.name} failed {MAX_ATTEMPTS} times")

    def replace(self, parts: Iterable[pa.Table], predicate: str, steps: Mapping[str, Step]) -> int:
        """Puts rows in the place of those that an SQL predicate selects and moves the progress, in one commit; returns the version.

        Readers see the old rows or the new ones. `parts`, at least one, are written as they come and have the columns of the first; all
        rows must satisfy the predicate. The handle must be as fresh as what `parts` were made from: another writer's commit since makes it
        fail.

        Raises:
            Superseded: some progress of the handle is not at its start.
            DeltaError: another writer committed since, or a row does not satisfy the predicate.
        """
        if self._committed(steps):
            raise Superseded(f"{self.name}: {sorted(steps)} are done already")
        parts = _elsewhere(parts)
        first = self.conformed(next(parts))
        rest = (self.conformed(part).select(first.column_names).cast(first.schema) for part in parts)
        batches = (batch for part in chain([first], rest) for batch in part.to_batches())
        write_deltalake(
            self.handle,
            pa.RecordBatchReader.from_batches(first.schema, batches),
            mode="overwrite",
            predicate=predicate,
            schema_mode="merge" if self._has_new_columns(first.schema) else None,
            writer_properties=_WRITER,
            commit_properties=CommitProperties(app_transactions=[Transaction(app_id, step.end) for app_id, step in steps.items()]),
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )
        return self.version

    def _committed(self, steps: Mapping[str, Step]) -> bool:
        """True if all steps are done, False if none is."""
        found = {app_id: self.progress(app_id) for app_id in steps}
        if all(found[app_id] == step.start for app_id, step in steps.items()):
            return False
        if all(found[app_id] == step.end for app_id, step in steps.items()):
            return True
        raise Superseded(f"{self.name}: { ({key: (found[key], step.start, step.end) for key, step in steps.items()}) }")

    def conformed(self, rows: pa.Table) -> pa.Table:
        """The rows with a null column for each column of the table that they lack."""
        for known in pa.schema(self.handle.schema()):
            if known.name not in rows.column_names:
                rows = rows.append_column(known, pa.nulls(rows.num_rows, known.type))
        return rows

    def _has_new_columns(self, schema: pa.Schema) -> bool:
        known = {known.name for known in self.handle.schema().fields}
        return any(name not in known for name in schema.names)

    def commits_after(self, version: int) -> list[Commit]:
        """The commits after `version`, in order, up to the handle's snapshot.

        Raises:
            OSError: a commit was cleaned from the log.
        """
        return [self._commit(number) for number in range(version + 1, self.version + 1)]

    def newer_commits(self, version: int, limit: int) -> list[Commit]:
        """The commits after `version` that the log has by now, at most `limit`; the handle stays as it is.

        Costs one look for a file if there is none, so it may be asked often. Of a log whose next commit was cleaned it finds none.
        """
        return _newer(self._files, version, limit)

    def _commit(self, version: int) -> Commit:
        return _commit(self._files, version)

    def is_gone(self) -> bool:
        """True if the log lacks the handle's version: the table was dropped, and may be another one by now, of the same name."""
        return _lacks(self._files, self.version)

    def delete_replaced(self, hours: int) -> list[str]:
        """Deletes the data files that commits removed at least so many hours ago, and returns them; who reads a version older than that
        finds them gone."""
        return self.handle.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False)

    def read_file(self, added: Added, columns: Sequence[str] | None = None) -> pa.Table:
        """A data file, without partition columns."""
        with self._files.open_input_file(added.path) as file:
            return pa.parquet.read_table(file, columns=columns, partitioning=None)

    def files(self) -> list[Added]:
        """The data files of the handle's snapshot, newest first."""
        actions = pa.table(self.handle.get_add_actions(flatten=False))
        rows = actions.sort_by([("modification_time", "descending")]).to_pylist()
        return [
            Added(unquote(row["path"]), _partition_values(row), -1 if row["num_records"] is None else row["num_records"], row["size_bytes"])
            for row in rows
        ]

    def files_between(self, first: str, last: str) -> list[Added]:
        """The data files of the handle's snapshot whose date (first partition column) is within these ISO 8601 dates, both included."""
        date = self.partition_columns[0]
        return [added for added in self.files() if first <= (added.partition_values[date] or "") <= last and added.good]


def drop(config: LakeConfig, name: str) -> None:
    """Deletes a table, its log first, so that nobody opens what is half gone; one that is not there, or cut off before, is fine."""
    try:
        files = DeltaStorageHandler(config.table(name), config.storage_options or None)
    except TableNotFoundError:
        return
    for folder in ("_delta_log", ""):
        files.delete_dir(folder)


class Log:
    """The log of a table, for who needs only what it says and no snapshot, which holds every file in memory."""

    def __init__(self, config: LakeConfig, name: str, bounds_of: Sequence[str] = ()) -> None:
        """`bounds_of` names the columns whose least and largest values files are given with."""
        self._files = pa.fs.PyFileSystem(DeltaStorageHandler(config.table(name), config.storage_options or None))
        self._bounds_of = tuple(bounds_of)

    def newer_commits(self, version: int, limit: int) -> list[Commit]:
        """As `Table.newer_commits`."""
        return _newer(self._files, version, limit, self._bounds_of)

    def is_gone(self, version: int) -> bool:
        """As `Table.is_gone`, for who has read the log up to a version."""
        return _lacks(self._files, version)


def _lacks(files: pa.fs.FileSystem, version: int) -> bool:
    return not _newer(files, version - 1, 1)


def _newer(files: pa.fs.FileSystem, version: int, limit: int, bounds_of: Sequence[str] = ()) -> list[Commit]:
    found: list[Commit] = []
    while len(found) < limit:
        try:
            found.append(_commit(files, version + 1 + len(found), bounds_of))
        except FileNotFoundError:
            break
    return found


def _commit(files: pa.fs.FileSystem, version: int, bounds_of: Sequence[str] = ()) -> Commit:
    with files.open_input_stream(f"_delta_log/{version:020d}.json") as stream:
        actions = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
    adds = [action["add"] for action in actions if "add" in action]
    removes = [action["remove"] for action in actions if "remove" in action]
    return Commit(
        version=version,
        added=tuple(_added(add, bounds_of) for add in adds),
        removed=tuple(unquote(remove["path"]) for remove in removes),
        transactions={action["txn"]["appId"]: action["txn"]["version"] for action in actions if "txn" in action},
        data_change=any(action.get("dataChange", True) for action in adds + removes),
        info=next((action["commitInfo"] for action in actions if "commitInfo" in action), {}),
    )


def _elsewhere(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The parts, made on a thread of their own: the writer asks for them on threads of its runtime, which must not read the store."""
    source = iter(parts)
    with ThreadPoolExecutor(1) as pool:
        while (part := pool.submit(next, source, None).result()) is not None:
            yield part


def _partition_values(row: Mapping[str, Any]) -> dict[str, str | None]:
    """Partition values as the log writes them: text."""
    values = row.get("partition") or row.get("partition_values") or {}
    return {
        name: str(value).lower() if isinstance(value, bool) else None if value is None else str(value) for name, value in values.items()
    }


def _added(action: Mapping[str, Any], bounds_of: Sequence[str] = ()) -> Added:
    statistics = json.loads(action.get("stats") or "{}")
    least, most = statistics.get("minValues", {}), statistics.get("maxValues", {})
    bounds = {name: (str(least[name]), str(most[name])) for name in bounds_of if name in least and name in most}
    return Added(unquote(action["path"]), action["partitionValues"], int(statistics.get("numRecords", -1)), int(action["size"]), bounds)
