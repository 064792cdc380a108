"""The raw table of a topic: batches in, exactly once, whatever ends or restarts the process."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

import pyarrow as pa
import pyarrow.dataset as ds

from chassis.adoption import columns_of
from chassis.config import CellConfig, LakeConfig
from chassis.judge import judge
from chassis.lake import Step, Table
from chassis.topics import Topic, as_it_is
from chassis.wire import Schemas
from services.ingestion import supersession
from services.ingestion.rows import PARTITION_BY, Records, raw_rows, raw_schema

# Where the last row of a partition is looked for first: the files that hold these offsets are few and new.
NEAR_OFFSETS = 1000


def table_name(topic: str) -> str:
    """Name of a topic's raw table."""
    return f"raw/{topic}"


def app_id(cell: CellConfig, source: str, incarnation: int, partition: int) -> str:
    """Name of a source partition's progress in the table's own transactions."""
    return f"{cell.kafka_cluster}/{source}#{incarnation}/{partition}"


class RawTable:
    """Judges batches of a topic and appends them, good and dead, together with their progress."""

    def __init__(self, cell: CellConfig, lake: LakeConfig, topic: Topic, schemas: Schemas) -> None:
        self.topic = topic
        self._cell = cell
        self._schemas = schemas
        schema = raw_schema(columns_of(topic, schemas))
        self.table = Table.open_or_create(lake, table_name(topic.name), schema, PARTITION_BY)

    def progress(self, source: str, incarnation: int, partition: int) -> int | None:
        """Exclusive end of what the table's newest snapshot has of a source partition; None before its first commit."""
        return self.table.progress(app_id(self._cell, source, incarnation, partition))

    def rows_of(self, records: Records, *, routed: bool = True, partitions: int = 0) -> tuple[pa.Table, list[int]]:
        """Judges records; the rows, and the indexes of records that must wait for their schema. Files have no routing.

        `partitions` is how many the log has; 0 for as many as are declared.
        """
        topic = as_it_is(self.topic, partitions)
        judged = judge(topic, self._schemas, records.values, records.partitions if routed else None)
        return raw_rows(records, judged, self._cell.region), judged.waiting

    def append(self, rows: pa.Table, source: str, incarnation: int, steps: Mapping[int, Step], supersedes: Sequence[str] = ()) -> int:
        """Appends rows together with the step of each partition; returns the version. Raises as `Table.append` does.

        The first commit of a correction names what it `supersedes`.
        """
        moved = {app_id(self._cell, source, incarnation, partition): step for partition, step in steps.items()}
        return self.table.append(rows, moved | supersession.steps(supersedes))

    def refuse_unless_superseding(self, source: str, supersedes: Sequence[str]) -> None:
        """Raises REFUSED if a file that is not in the table yet cannot supersede these sources."""
        loaded = [other for other in supersedes if self.progress(other, 0, 0) is not None]
        supersession.refuse_unless_possible(self.table, source, supersedes, loaded)

    def last_rows(self, source: str, incarnation: int, ends: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Offset and checksum of the last row of each partition, dead rows included; `ends` has the exclusive ends.

        Transactions leave gaps, so the last row may lie below end - 1: what the nearest offsets do not show is looked for in all.
        """
        found: dict[int, tuple[int, int]] = {}
        dataset = self.table.handle.to_pyarrow_dataset()
        mine = (ds.field("_topic") == source) & (ds.field("_incarnation") == incarnation)
        for reach in (NEAR_OFFSETS, None):
            asked = [
                (ds.field("_partition") == partition) & (ds.field("_offset") >= (0 if reach is None else end - reach))
                for partition, end in ends.items()
                if partition not in found
            ]
            if not asked:
                break
            rows = dataset.to_table(columns=["_partition", "_offset", "_crc"], filter=mine & reduce(or_, asked))
            for row in rows.sort_by("_offset").to_pylist():
                found[row["_partition"]] = (row["_offset"], row["_crc"])
        return found
