"""Live OLAP tables follow the raw tables' logs: the engine loads each data file itself, once (one-way door 7 of the design)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from clickhouse_connect.driver.asyncclient import AsyncClient

from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Added, Table
from chassis.olap import column_type, quoted
from chassis.topics import Topic
from chassis.wire import Schemas
from services.ingestion.curated import good_files
from services.ingestion.raw import table_name
from services.ingestion.rows import raw_schema

# Files loaded per step: progress is noted in between.
MAX_STEP_FILES = 50
# One file is one block: only then does the same token always mean the same rows.
ONE_BLOCK = (
    "max_insert_threads = 1, max_threads = 1, min_insert_block_size_rows = 2000000, min_insert_block_size_bytes = 0, "
    "max_block_size = 2000000, max_insert_block_size = 2000000, deduplicate_blocks_in_dependent_materialized_views = 1"
)
# Tokens that a table remembers; far more than the files between two notes of progress.
DEDUPLICATION_WINDOW = 10_000
_LEFT_OUT = {"_key", "_value", "_headers", "_error", "_crc", "dead"}
_REQUIRED = {"_topic", "_incarnation", "_partition", "_offset", "_kafka_time", "event_id", "event_time", "ingest_date", "region"}
PROGRESS = "_progress"


def columns_of(topic: Topic, schemas: Schemas) -> list[pa.Field]:
    """Columns of a live table: those of raw, without what only dead rows have."""
    return [field for field in raw_schema(schemas.builtin(topic.message)) if field.name not in _LEFT_OUT]


def create_statements(database: str, topic: Topic, schemas: Schemas) -> list[str]:
    """Database, progress table and live table of a topic, each only if missing."""
    columns = ", ".join(
        f"`{field.name}` {column_type(field, nullable=field.name not in _REQUIRED)}" for field in columns_of(topic, schemas)
    )
    return [
        f"CREATE DATABASE IF NOT EXISTS `{database}`",
        f"CREATE TABLE IF NOT EXISTS `{database}`.`{PROGRESS}` (`table` String, version Int64) "
        "ENGINE = ReplacingMergeTree(version) ORDER BY `table`",
        f"CREATE TABLE IF NOT EXISTS `{database}`.`{topic.name}` ({columns}) ENGINE = MergeTree ORDER BY (event_time, event_id) "
        f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}",
    ]


async def live_version(client: AsyncClient, database: str, topic: str) -> int:
    """Last raw version that is in the live table; -1 for none."""
    if not int(str(await client.command(f"EXISTS TABLE `{database}`.`{PROGRESS}`"))):
        return -1
    sql = f"SELECT if(count() = 0, -1, max(version)) FROM `{database}`.`{PROGRESS}` WHERE `table` = {quoted(table_name(topic))}"
    return int(str(await client.command(sql)))


class Live:
    """The live table of one topic; the only loader of it."""

    def __init__(self, lake: LakeConfig, olap: OlapConfig, topic: Topic, schemas: Schemas) -> None:
        self._lake = lake
        self._database = olap.database
        self._topic = topic
        self._schemas = schemas
        self._raw: Table | None = None
        self._version: int | None = None

    async def step(self, client: AsyncClient) -> bool:
        """Loads what raw has in addition; True if there is more at once."""
        self._raw = self._raw or await asyncio.to_thread(Table.open, self._lake, table_name(self._topic.name))
        if self._raw is None:
            return False
        if self._version is None:
            for statement in create_statements(self._database, self._topic, self._schemas):
                await client.command(statement)
            self._version = await live_version(client, self._database, self._topic.name)
        await asyncio.to_thread(self._raw.refresh)
        if self._version < 0:
            return await self._load_snapshot(client, self._raw)
        commits = (await asyncio.to_thread(self._raw.commits_after, self._version))[:MAX_STEP_FILES]
        if not commits:
            return False
        await self._load(client, good_files(commits), commits[-1].version)
        return commits[-1].version < self._raw.version

    async def _load_snapshot(self, client: AsyncClient, raw: Table) -> bool:
        """A follower without progress loads the files of one version into its empty table and goes on after it."""
        version = raw.version
        files = [added for added in raw.files() if str(added.partition_values.get("dead")).lower() == "false"]
        await self._load(client, files, version)
        return True

    async def _load(self, client: AsyncClient, files: Sequence[Added], version: int) -> None:
        for added in files:
            await client.command(self._insert(added))
        if files:
            await client.command(f"INSERT INTO `{self._database}`.`{PROGRESS}` SELECT {quoted(table_name(self._topic.name))}, {version}")
        self._version = version

    def _insert(self, added: Added) -> str:
        constants = {"ingest_date": "toDate32", "region": "toString"}
        names = [field.name for field in columns_of(self._topic, self._schemas)]
        selected = [
            f"{constants[name]}({quoted(str(added.partition_values[name]))})" if name in constants else f"`{name}`" for name in names
        ]
        token = quoted(f"{table_name(self._topic.name)}:{added.path}")
        return (
            f"INSERT INTO `{self._database}`.`{self._topic.name}` ({', '.join(f'`{name}`' for name in names)}) "
            f"SELECT {', '.join(selected)} FROM {source(self._lake, table_name(self._topic.name), added.path)} "
            f"SETTINGS insert_deduplication_token = {token}, {ONE_BLOCK}"
        )


def source(lake: LakeConfig, table: str, path: str) -> str:
    """The table function by which the engine reads a data file.

    Raises:
        ValueError: the lake is on a store that the loader does not know.
    """
    root = lake.table(table)
    if "://" not in root:
        return f"file({quoted(str(Path(root).resolve() / path))}, 'Parquet')"
    if root.startswith("s3://"):
        options = lake.storage_options
        endpoint = options.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com").rstrip("/")
        credentials = f"{quoted(options.get('AWS_ACCESS_KEY_ID', ''))}, {quoted(options.get('AWS_SECRET_ACCESS_KEY', ''))}"
        return f"s3({quoted(f'{endpoint}/{root[5:]}/{path}')}, {credentials}, 'Parquet')"
    raise ValueError(f"live tables cannot be loaded from {root.split('://')[0]}://")
