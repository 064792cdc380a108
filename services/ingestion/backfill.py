"""Role `backfill`: a trip file into the raw zone, with its original times: a source like a topic, exact, resumable, idempotent."""

import asyncio
import sys

import numpy as np

from chassis.desired import follow_desired
from chassis.errors import ArterialError, Reason
from chassis.lake import Step
from chassis.logs import logger
from chassis.process import Context
from chassis.tripfiles import Chunk, TripFile
from services.ingestion.config import IngestionConfig
from services.ingestion.raw import RawTable
from services.ingestion.rows import Records

TOPIC = "trip_events_v2"
_log = logger(__name__)


async def backfill(config: IngestionConfig, context: Context) -> None:
    """Loads the configured file from where an earlier run stopped; prints progress, one line per commit."""
    if config.backfill_file is None:
        raise ArterialError(Reason.INVALID_REQUEST, "backfill_file names no file")
    file = await asyncio.to_thread(TripFile, config.backfill_file)
    async with follow_desired(config, context) as feed:
        table = await asyncio.to_thread(RawTable, config.cell, config.lake, feed.current.topics[TOPIC], feed.schemas)
        done = table.progress(file.source, 0, 0)
        while (done or 0) < file.rows and not context.stopping.is_set():
            chunk = await asyncio.to_thread(next, file.chunks(done or 0))
            done = await asyncio.to_thread(_load, table, file, chunk, done, context.clock.now())
            print(f"{file.source} {done} {file.rows}", flush=True, file=sys.stdout)
    _log.info("backfill done", source=file.source, rows=file.rows)


def _load(table: RawTable, file: TripFile, chunk: Chunk, done: int | None, now: float) -> int:
    count = len(chunk.raw)
    records = Records(
        source=file.source,
        incarnation=0,
        partitions=np.zeros(count, np.int32),
        offsets=np.arange(chunk.start, chunk.start + count),
        times_us=np.full(count, int(now * 1e6), np.int64),
        keys=[None] * count,
        values=file.values(chunk),
        headers=[()] * count,
    )
    rows, _ = table.rows_of(records, routed=False)
    table.append(rows, file.source, 0, {0: Step(done, chunk.start + count)})
    return chunk.start + count
