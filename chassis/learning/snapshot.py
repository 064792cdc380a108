"""Training sets: SQL over pinned versions of lake tables, read by the OLAP engine, with a note of what exactly was read.

The SQL speaks of datasets by their logical names in backticks (`lake/curated/trips`); each becomes the data files that the table's version
has in the window of dates that the Model declares. So the gate, which holds a run for the partitions of that window, and the read agree.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from chassis import lakesql, olap
from chassis.config import LakeConfig
from chassis.errors import ArterialError, Reason
from chassis.lake import Added, Table
from chassis.learning.artefact import TableSnapshot
from chassis.learning.task import Task

DATE, LAKE = "event_date", "lake/"


@dataclass(frozen=True)
class Pinned:
    """One version of a table within a window of dates: what SQL calls it by, its files and its schema."""

    table: str
    snapshot: TableSnapshot
    files: tuple[Added, ...]
    schema: pa.Schema

    @classmethod
    def open(cls, lake: LakeConfig, dataset: str, first: date, last: date) -> "Pinned":
        """The table's newest version. Blocks.

        Raises:
            ArterialError: NOT_FOUND if the lake has no such table, REFUSED if the dataset is not a table of the lake.
        """
        if not dataset.startswith(LAKE):
            raise ArterialError(Reason.REFUSED, f"{dataset} is not a table of the lake: it has no versions to pin")
        name = dataset.removeprefix(LAKE)
        table = Table.open(lake, name)
        if table is None:
            raise ArterialError(Reason.NOT_FOUND, f"the lake has no table {name}")
        # ISO dates order as text; "unknown" is beyond all of them.
        files = tuple(added for added in table.files() if first.isoformat() <= str(added.partition_values[DATE]) <= last.isoformat())
        rows = sum(added.rows for added in files)
        snapshot = TableSnapshot(dataset, table.version, first.isoformat(), last.isoformat(), rows)
        return cls(name, snapshot, files, pa.schema(table.handle.schema()))


class TrainingData:
    """The inputs of a run, each pinned when it is first read: all queries of a run see the same versions."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._pinned: dict[str, Pinned] = {}

    @property
    def snapshots(self) -> tuple[TableSnapshot, ...]:
        """What was read so far."""
        return tuple(pinned.snapshot for pinned in self._pinned.values())

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        """Schemas of what was read so far, by logical name."""
        return {dataset: pinned.schema for dataset, pinned in self._pinned.items()}

    async def read(self, sql: str) -> pa.Table:
        """The rows of a query.

        Raises:
            ArterialError: NOT_FOUND or REFUSED for a dataset that is not there, or that the Model does not declare as an input.
        """
        sources = {}
        for dataset in lakesql.logical_names(sql):
            if dataset not in self._pinned:
                self._pinned[dataset] = await asyncio.to_thread(Pinned.open, self._task.lake, dataset, *self._task.window(dataset))
            pinned = self._pinned[dataset]
            sources[dataset] = lakesql.source(self._task.lake, pinned.table, pinned.files, pinned.schema)
        client = await olap.connect(self._task.olap)
        try:
            rows: pa.Table = await client.query_arrow(lakesql.resolved(sql, sources), use_strings=True)
        finally:
            await client.close()
        return rows
