"""What ingestion drops of a Topic or CuratedTable that is declared no longer, after its retention."""

import asyncio
from collections.abc import Mapping

from chassis import kafka, lake, olap
from chassis.jobs import RETIRE_RECORDS, RETIRE_TABLES
from chassis.lake import Step, Table
from chassis.olap import quoted
from chassis.resources import Key
from chassis.retiring import Drop
from services.ingestion import deadletters
from services.ingestion.config import IngestionConfig
from services.ingestion.live import PROGRESS
from services.ingestion.raw import table_name
from services.ingestion.trips import TRIPS

# Progress of a follower that begins anew.
ANEW = -1


def drops(config: IngestionConfig) -> Mapping[str, Drop]:
    """What is done for each kind of run."""
    dropping = Dropping(config)
    return {RETIRE_RECORDS: dropping.records, RETIRE_TABLES: dropping.tables}


class Dropping:
    """Drops, each step so that it may be repeated."""

    def __init__(self, config: IngestionConfig) -> None:
        self._config = config

    async def records(self, key: Key) -> list[str]:
        """A Kafka topic."""
        _, topic = key
        await kafka.delete_topic(self._config.kafka, topic)
        return [f"kafka/{topic}"]

    async def tables(self, key: Key) -> list[str]:
        """Tables of a topic or a curated table. Raw is the last: the others follow it, and would take its next self for its former one."""
        kind, name = key
        if kind == "CuratedTable":
            return [await self._table(f"curated/{name}")]
        await self._live(name)
        await asyncio.to_thread(self._trips_begin_anew, name)
        dropped = [f"olap/live/{name}", await self._table(f"curated/{name}"), await self._table(table_name(name))]
        deadletters.progress_file(self._config.state_dir, name).unlink(missing_ok=True)
        return dropped

    async def _table(self, name: str) -> str:
        await asyncio.to_thread(lake.drop, self._config.lake, name)
        return f"lake/{name}"

    async def _live(self, topic: str) -> None:
        database, name = self._config.olap.database, quoted(table_name(topic))
        client = await olap.connect(self._config.olap)
        try:
            await client.command(f"DROP TABLE IF EXISTS `{database}`.`{topic}` SYNC")
            if int(str(await client.command(f"EXISTS TABLE `{database}`.`{PROGRESS}`"))):
                await client.command(f"ALTER TABLE `{database}`.`{PROGRESS}` DELETE WHERE `table` = {name} SETTINGS mutations_sync = 2")
        finally:
            await client.close()

    def _trips_begin_anew(self, topic: str) -> None:
        """Trips are made from every topic of trip events, and stay; of this one's raw table they would know a progress that is none."""
        trips, source = Table.open(self._config.lake, TRIPS), table_name(topic)
        done = None if trips is None else trips.progress(source)
        if trips is not None and done not in (None, ANEW):
            trips.append(trips.schema.empty_table(), {source: Step(done, ANEW)})
