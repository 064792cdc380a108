"""Data of a removed topic are dropped on real engines; a topic declared again begins anew, and misses nothing."""

import pytest
from deltalake.fs import DeltaStorageHandler

from chassis import kafka, lake, olap
from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Table
from services.ingestion.config import IngestionConfig
from services.ingestion.curated import Curated
from services.ingestion.deadletters import progress_file
from services.ingestion.live import Live, live_version
from services.ingestion.retiring import Dropping
from tests.ingestion.conftest import Ingestion
from tests.ingestion.raw_tables import RawFeeder, feeder, rows_of

TABLES = ("raw/trip_events_v2", "curated/trip_events_v2", "curated/trips")


async def followed(raw: RawFeeder, config: IngestionConfig) -> None:
    """Brings what raw has to the curated and live tables."""
    curated = Curated(config.lake, raw.topic)
    while curated.step():
        pass
    client = await olap.connect(config.olap)
    live = Live(config.lake, config.olap, raw.topic)
    while await live.step(client):
        pass
    await client.close()


async def live_rows(config: OlapConfig) -> int | None:
    """Rows of the live table; None if it is not there."""
    client = await olap.connect(config)
    try:
        if not int(str(await client.command(f"EXISTS TABLE `{config.database}`.trip_events_v2"))):
            return None
        return int(str(await client.command(f"SELECT count() FROM `{config.database}`.trip_events_v2")))
    finally:
        await client.close()


async def test_a_dropped_topic_that_comes_back_misses_nothing(ingestion: Ingestion) -> None:
    """Tables, their progress and the letters' go, as often as one drops; trips stay, and take what comes later, too."""
    config = ingestion.config
    raw, dropping = feeder(config.lake), Dropping(config)
    for trip in range(3):
        raw.append_trips([(trip, 1)])
    await followed(raw, config)
    noted = progress_file(config.state_dir, raw.topic.name)
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.write_text('{"version": 3}')
    assert [len(rows_of(config.lake, name)) for name in TABLES] == [3, 3, 3] and await live_rows(config.olap) == 3
    for _ in range(2):
        dropped = await dropping.tables(("Topic", raw.topic.name))
    assert dropped == [f"olap/live/{raw.topic.name}", f"lake/curated/{raw.topic.name}", f"lake/raw/{raw.topic.name}"]
    assert [Table.open(config.lake, name) is None for name in TABLES] == [True, True, False]
    assert await live_rows(config.olap) is None and not noted.exists()
    client = await olap.connect(config.olap)
    assert await live_version(client, config.olap.database, raw.topic.name) == -1
    await client.close()
    raw = feeder(config.lake)
    raw.append_trips([(7, 1)])
    await followed(raw, config)
    assert [len(rows_of(config.lake, name)) for name in TABLES] == [1, 1, 4] and await live_rows(config.olap) == 1


async def test_records_of_a_topic_go(ingestion: Ingestion) -> None:
    """The topic is gone from Kafka; a second time is fine."""
    dropping = Dropping(ingestion.config)
    for _ in range(2):
        assert await dropping.records(("Topic", ingestion.topic.name)) == [f"kafka/{ingestion.topic.name}"]
    client = kafka.consumer(ingestion.config.kafka)
    await client.start()
    assert ingestion.topic.name not in await client.topics()
    await client.stop()


def test_a_table_that_was_dropped_half_is_dropped_whole(lake_config: LakeConfig) -> None:
    """Cut off after its log: data files without one are no table, and go the next time."""
    raw = feeder(lake_config)
    raw.append_trips([(1, 1)])
    (file,) = raw.table.files()
    DeltaStorageHandler(lake_config.table(raw.table.name)).delete_dir("_delta_log")
    assert Table.open(lake_config, raw.table.name) is None
    lake.drop(lake_config, raw.table.name)
    with pytest.raises(FileNotFoundError):
        raw.table.read_file(file)
