"""Role `backfill`: files into the raw zone, with their original times: sources like a topic, exact, resumable, idempotent."""

import asyncio
import sys
from pathlib import Path

import numpy as np

from chassis.adoption import columns_of
from chassis.clock import Clock
from chassis.desired import Desired, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.lake import Step
from chassis.lineage import JobDefinition, emitting
from chassis.logs import logger
from chassis.process import Context
from chassis.recordfiles import Batch, RecordFile, SourceFile, open_file
from chassis.topics import Topic
from chassis.wire import BUILTIN_IDS, Schemas
from services.ingestion.config import IngestionConfig
from services.ingestion.raw import RawTable
from services.ingestion.rows import Records, raw_job
from services.ingestion.supersession import is_superseded

_log = logger(__name__)


async def backfill(config: IngestionConfig, context: Context) -> None:
    """Loads the configured files one after another, each from where an earlier run stopped; prints progress, one line per commit.

    All files are opened before the first is loaded: what is no known file, or of no declared topic, stops everything at the start.

    Raises:
        ArterialError: INVALID_REQUEST or NOT_FOUND, a file or its topic is unknown; REFUSED, a correction that is impossible.
    """
    if not config.backfill_files:
        raise ArterialError(Reason.INVALID_REQUEST, "backfill_files names no file")
    files = await asyncio.to_thread(_open, config.backfill_files)
    async with follow_desired(config, context) as feed, emitting(config, context) as lineage:
        topics = [_topic(feed.current, file) for file in files]
        tables: dict[str, RawTable] = {}
        for file, topic in zip(files, topics, strict=True):
            if topic.name not in tables:
                tables[topic.name] = await asyncio.to_thread(RawTable, config.cell, config.lake, topic, feed.schemas)
            lineage.emit(_job(file, topic, feed.schemas))
            await load(tables[topic.name], file, context.clock, context.stopping)


async def load(table: RawTable, file: SourceFile, clock: Clock, stopping: asyncio.Event) -> None:
    """Loads what the table lacks of a file; nothing of a file that was superseded meanwhile."""
    await asyncio.to_thread(table.table.refresh)
    done = table.progress(file.source, 0, 0)
    if done is None:
        table.refuse_unless_superseding(file.source, file.supersedes)
    if done is not None and done >= file.rows:
        return
    batches = file.batches(done or 0, table.topic.message)
    while not stopping.is_set():
        if is_superseded(table.table, file.source):
            _log.warning("a correction has superseded the file: nothing more of it is loaded", source=file.source, rows=done)
            return
        batch = await asyncio.to_thread(next, batches, None)
        if batch is None:
            break
        done = await asyncio.to_thread(_commit, table, file, batch, done, clock.now())
        print(f"{file.source} {done} {file.rows}", flush=True, file=sys.stdout)
    _log.info("backfill done", source=file.source, topic=table.topic.name, rows=done, of=file.rows)


def _job(file: SourceFile, topic: Topic, schemas: Schemas) -> JobDefinition:
    """A job of its own for each file: what a table was made from is not forgotten. Columns of trip files are not those of events."""
    name = f"ingestion.backfill.{file.source.removeprefix('file:')[:12]}"
    return raw_job(file.source, topic.name, columns_of(topic, schemas), name=name, known=isinstance(file, RecordFile))


def _open(paths: tuple[Path, ...]) -> list[SourceFile]:
    return [open_file(path) for path in paths]


def _topic(desired: Desired, file: SourceFile) -> Topic:
    topic = desired.topics.get(file.topic)
    if topic is None:
        raise ArterialError(Reason.NOT_FOUND, f"{file.source} is of topic {file.topic}, which is not declared")
    if topic.message not in BUILTIN_IDS:
        raise ArterialError(Reason.INVALID_REQUEST, f"topic {topic.name} has no built-in schema: its files cannot be backfilled")
    return topic


def _commit(table: RawTable, file: SourceFile, batch: Batch, done: int | None, now: float) -> int:
    count = len(batch.values)
    records = Records(
        source=file.source,
        incarnation=0,
        partitions=np.zeros(count, np.int32),
        offsets=np.arange(batch.start, batch.start + count),
        times_us=np.full(count, int(now * 1e6), np.int64),
        keys=[None] * count,
        values=batch.values,
        headers=[()] * count,
    )
    rows, _ = table.rows_of(records, routed=False)
    end = batch.start + count
    table.append(rows, file.source, 0, {0: Step(done, end)}, supersedes=file.supersedes if done is None else ())
    return end
