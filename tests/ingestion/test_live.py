"""Live tables: every good row of raw once, whatever is repeated, cut off, compacted or extreme."""

import pyarrow as pa
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from deltalake import Field
from deltalake.schema import PrimitiveType

from chassis import olap
from chassis.config import LakeConfig, OlapConfig
from services.ingestion.commits import RemovalError
from services.ingestion.live import PROGRESS, Live, live_version
from tests.ingestion.raw_tables import KAFKA_US, feeder

FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


async def load_all(live: Live, client: AsyncClient) -> None:
    """Steps until nothing is left."""
    while await live.step(client):
        pass


async def offsets(client: AsyncClient, database: str) -> list[int]:
    """Offsets in the live table, sorted."""
    found = await client.query(f"SELECT _offset FROM `{database}`.trip_events_v2 ORDER BY _offset")
    return [row[0] for row in found.result_rows]


async def test_each_file_is_loaded_once_whatever_is_repeated(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """A loader that died after its inserts but before noting its progress loads the same files again: no row is doubled."""
    raw = feeder(lake_config)
    client = await olap.connect(olap_config)
    raw.append([(b"a", KAFKA_US, KAFKA_US)])
    await load_all(Live(lake_config, olap_config, raw.topic), client)
    noted = await live_version(client, olap_config.database, raw.topic.name)
    for name in (b"b", b"c", b"d"):
        raw.append([(name, KAFKA_US, KAFKA_US)])
    raw.append_dead()
    await load_all(Live(lake_config, olap_config, raw.topic), client)
    assert await live_version(client, olap_config.database, raw.topic.name) == raw.table.version
    await client.command(f"ALTER TABLE `{olap_config.database}`.`{PROGRESS}` DELETE WHERE version > {noted} SETTINGS mutations_sync = 2")
    await load_all(Live(lake_config, olap_config, raw.topic), client)
    assert await offsets(client, olap_config.database) == [0, 1, 2, 3]
    await client.close()


async def test_a_new_follower_loads_one_version_and_goes_on(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """Without progress the files of one version are loaded into an empty table, even if a first try was cut off before a compaction."""
    raw = feeder(lake_config)
    client = await olap.connect(olap_config)
    for name in (b"a", b"b"):
        raw.append([(name, KAFKA_US, KAFKA_US)])
    await load_all(Live(lake_config, olap_config, raw.topic), client)
    await client.command(f"TRUNCATE TABLE `{olap_config.database}`.`{PROGRESS}`")
    raw.table.handle.optimize.compact()
    follower = Live(lake_config, olap_config, raw.topic)
    await load_all(follower, client)
    raw.append([(b"c", KAFKA_US, KAFKA_US)])
    raw.table.handle.optimize.compact()
    await load_all(follower, client)
    assert await offsets(client, olap_config.database) == [0, 1, 2]
    await client.close()


async def test_times_of_all_years_are_exact(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """Event times of the years 1 and 9999 and odd microseconds arrive as they are: a bad clock stops nothing and changes nothing."""
    raw = feeder(lake_config)
    times = [FIRST_US, KAFKA_US + 123_457, LAST_US]
    raw.append([(bytes([97 + place]), time_us, KAFKA_US) for place, time_us in enumerate(times)])
    client = await olap.connect(olap_config)
    await load_all(Live(lake_config, olap_config, raw.topic), client)
    found = await client.query(
        "SELECT toUnixTimestamp64Micro(event_time), region, toString(ingest_date) "
        f"FROM `{olap_config.database}`.trip_events_v2 ORDER BY _offset"
    )
    assert found.result_rows == [(time_us, "local", "2023-11-14") for time_us in times]
    await client.close()


async def test_a_column_that_raw_gains_is_gained(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """Rows of files older than the column have null in it."""
    raw = feeder(lake_config)
    client = await olap.connect(olap_config)
    raw.append([(b"a", KAFKA_US, KAFKA_US)])
    await load_all(Live(lake_config, olap_config, raw.topic), client)
    raw.table.handle.alter.add_columns([Field("weather", PrimitiveType("string"))])
    raw.append([(b"b", KAFKA_US, KAFKA_US)])
    await load_all(Live(lake_config, olap_config, raw.topic), client)
    found = await client.query(f"SELECT weather FROM `{olap_config.database}`.trip_events_v2")
    assert found.result_rows == [(None,), (None,)]
    await client.close()


async def test_an_undeclared_removal_stops_the_loader(lake_config: LakeConfig, olap_config: OlapConfig) -> None:
    """It says which version removed data."""
    raw = feeder(lake_config)
    client = await olap.connect(olap_config)
    raw.append([(b"a", KAFKA_US, KAFKA_US), (b"b", KAFKA_US, KAFKA_US)])
    live = Live(lake_config, olap_config, raw.topic)
    await load_all(live, client)
    raw.table.handle.delete("_offset = 0")
    with pytest.raises(RemovalError, match=f"version {raw.table.version} removed"):
        await live.step(client)
    await client.close()


def test_columns_without_a_type_in_clickhouse_are_refused() -> None:
    """The error names the column."""
    with pytest.raises(ValueError, match="column odd"):
        olap.column_type(pa.field("odd", pa.duration("s")))
