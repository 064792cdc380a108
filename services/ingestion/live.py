"""Live OLAP tables follow the raw tables' logs: the engine loads each data file itself, once (one-way door 7 of the design)."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
from clickhouse_connect.driver.asyncclient import AsyncClient

from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Added, Commit, Table
from chassis.lakesql import source
from chassis.lineage import JobDefinition, Lineage, from_sql
from chassis.olap import Olap, column_type, quoted
from chassis.topics import Topic
from services.ingestion.commits import good_files, take
from services.ingestion.raw import table_name
from services.ingestion.supersession import is_superseded, sources_of, superseded_by, superseded_files

# Commits loaded per step: progress is noted in between.
MAX_STEP_COMMITS, MAX_STEP_ROWS = 50, 2_000_000
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


def columns_of(raw: pa.Schema) -> list[pa.Field]:
    """Columns of a live table: those of the raw table, without what only dead rows have."""
    return [field for field in raw if field.name not in _LEFT_OUT]


def create_statements(database: str, topic: str, raw: pa.Schema) -> list[str]:
    """Database, progress table and live table of a topic, each only if missing, and the columns that raw has gained."""
    columns = [f"`{field.name}` {_column_type(field)}" for field in columns_of(raw)]
    return [
        f"CREATE DATABASE IF NOT EXISTS `{database}`",
        f"CREATE TABLE IF NOT EXISTS `{database}`.`{PROGRESS}` (`table` String, version Int64) "
        "ENGINE = ReplacingMergeTree(version) ORDER BY `table`",
        f"CREATE TABLE IF NOT EXISTS `{database}`.`{topic}` ({', '.join(columns)}) ENGINE = MergeTree ORDER BY (event_time, event_id) "
        f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}",
        *(f"ALTER TABLE `{database}`.`{topic}` ADD COLUMN IF NOT EXISTS {column}" for column in columns if "Nullable" in column),
    ]


def _column_type(field: pa.Field) -> str:
    return column_type(field, nullable=field.name not in _REQUIRED)


async def live_version(client: AsyncClient, database: str, topic: str) -> int:
    """Last raw version that is in the live table; -1 for none."""
    if not int(str(await client.command(f"EXISTS TABLE `{database}`.`{PROGRESS}`"))):
        return -1
    sql = f"SELECT if(count() = 0, -1, max(version)) FROM `{database}`.`{PROGRESS}` WHERE `table` = {quoted(table_name(topic))}"
    return int(str(await client.command(sql)))


async def live_versions(engine: Olap) -> Mapping[str, int]:
    """Last raw version in the live tables by raw table, of those that have any. Raises DEPENDENCY_UNAVAILABLE."""
    known = await engine.rows(f"SELECT 1 FROM system.tables WHERE database = {quoted(engine.database)} AND name = {quoted(PROGRESS)}")
    if not known.num_rows:
        return {}
    found = await engine.rows(f"SELECT `table`, max(version) AS version FROM `{engine.database}`.`{PROGRESS}` GROUP BY `table`")
    return {str(row["table"]): int(row["version"]) for row in found.to_pylist()}


class Live:
    """The live table of one topic; the only loader of it."""

    def __init__(self, lake: LakeConfig, olap: OlapConfig, topic: Topic, lineage: Lineage | None = None) -> None:
        self._lake = lake
        self._lineage = lineage
        self._database = olap.database
        self._topic = topic
        self._raw: Table | None = None
        self._columns: list[pa.Field] = []
        self._version: int | None = None

    async def step(self, client: AsyncClient) -> bool:
        """Loads what raw has in addition; True if there is more at once."""
        self._raw = self._raw or await asyncio.to_thread(Table.open, self._lake, table_name(self._topic.name))
        if self._raw is None:
            return False
        await asyncio.to_thread(self._raw.refresh)
        if self._version is None:
            self._version = await live_version(client, self._database, self._topic.name)
        if self._raw.version == self._version:
            return False
        await self._match_columns(client, self._raw)
        if self._version < 0:
            return await self._load_snapshot(client, self._raw)
        commits = take((await asyncio.to_thread(self._raw.commits_after, self._version))[:MAX_STEP_COMMITS], MAX_STEP_ROWS)
        superseded = superseded_by(commits[0])
        if superseded:
            await self._delete(client, superseded)
        await self._load(client, good_files(_in_force(self._raw, commits)), commits[-1].version)
        return commits[-1].version < self._raw.version

    async def _delete(self, client: AsyncClient, superseded: Sequence[str]) -> None:
        """Takes away what a correction supersedes; done again, should the progress not be noted, it changes nothing."""
        sources = ", ".join(quoted(source) for source in superseded)
        await client.command(
            f"ALTER TABLE `{self._database}`.`{self._topic.name}` DELETE WHERE _topic IN ({sources}) SETTINGS mutations_sync = 2"
        )

    async def _match_columns(self, client: AsyncClient, raw: Table) -> None:
        schema = pa.schema(raw.handle.schema())
        if columns_of(schema) == self._columns:
            return
        if self._version is not None and self._version < 0:
            # A first load that was cut off: what it left may be of files that a compaction has replaced since.
            await client.command(f"DROP TABLE IF EXISTS `{self._database}`.`{self._topic.name}` SYNC")
        for statement in create_statements(self._database, self._topic.name, schema):
            await client.command(statement)
        self._columns = columns_of(schema)
        if self._lineage is not None:
            self._lineage.emit_from(job_name(self._topic.name), partial(job, self._topic.name, self._columns))

    async def _load_snapshot(self, client: AsyncClient, raw: Table) -> bool:
        """A follower without progress loads the files of one version into its empty table and goes on after it."""
        version = raw.version
        files = await asyncio.to_thread(raw.files)
        superseded = await asyncio.to_thread(superseded_files, raw)
        good = [added for added in files if added.good]
        await self._load(client, good, version, without=superseded)
        return True

    async def _load(self, client: AsyncClient, files: Sequence[Added], version: int, without: Sequence[str] = ()) -> None:
        # Only compaction mixes sources within a file, and such files are loaded into a new table: a token means the same rows still.
        condition = f" WHERE _topic NOT IN ({', '.join(quoted(name) for name in without)})" if without else ""
        for added in files:
            await client.command(self._insert(added, condition))
        await client.command(f"INSERT INTO `{self._database}`.`{PROGRESS}` SELECT {quoted(table_name(self._topic.name))}, {version}")
        self._version = version

    def _insert(self, added: Added, condition: str) -> str:
        table = table_name(self._topic.name)
        names = [field.name for field in self._columns]
        rows = source(self._lake, table, [added], pa.schema(self._columns), names) + condition
        # The path of a file is unique within its table for ever, so it stands for the version too.
        return insert_statement(f"`{self._database}`.`{self._topic.name}`", names, rows, f"{table}:{added.path}")


def insert_statement(target: str, names: Sequence[str], rows: str, token: str) -> str:
    """Loads `rows`, a table expression with or without a condition, once for each token."""
    columns = ", ".join(f"`{name}`" for name in names)
    return (
        f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {rows} SETTINGS insert_deduplication_token = {quoted(token)}, {ONE_BLOCK}"
    )


def job_name(topic: str) -> str:
    """Name of the job that loads a live table."""
    return f"ingestion.live.{topic}"


def job(topic: str, columns: Sequence[pa.Field]) -> JobDefinition:
    """What a live table is made from, by the statement that loads it."""
    raw, live = f"lake/{table_name(topic)}", f"olap/live/{topic}"
    sql = insert_statement(f"`{live}`", [field.name for field in columns], f"`{raw}`", raw)
    found = from_sql(job_name(topic), sql, live, {raw: {field.name: str(field.type) for field in columns}})
    types = {field.name: _column_type(field) for field in columns}
    return replace(found, outputs=[replace(output, types=types) for output in found.outputs])


def _in_force(raw: Table, commits: Sequence[Commit]) -> list[Commit]:
    """The commits without those of superseded sources; a commit has rows of its own sources only."""
    return [commit for commit in commits if not (sources := sources_of(commit)) or not all(is_superseded(raw, name) for name in sources)]
