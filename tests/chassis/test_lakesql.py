"""SQL over the lake: the engine reads exactly the data files that it is told, as the log describes them."""

import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from chassis import olap
from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Step, Table
from chassis.lakesql import logical_names, resolved, source

SCHEMA = pa.schema(
    [
        ("value", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.string())),
        ("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
        ("event_date", pa.string()),
        ("region", pa.string()),
    ]
)
# What Delta percent-encodes in paths, and what SQL must escape.
STRANGE = "it's, {b}*?%41=/é\\ x"
TAGS = ["a", "it's"]


def rows(first: int, count: int, date: str | None, region: str | None) -> pa.Table:
    """Rows of one partition, numbered."""
    at = datetime.datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=datetime.UTC)
    headers = [{"name": "n", "value": b"\xff"}]
    found = [(number, at, TAGS, headers, date, region) for number in range(first, first + count)]
    return pa.table([list(column) for column in zip(*found, strict=True)], schema=SCHEMA)


def appended(config: LakeConfig, *parts: pa.Table, name: str = "curated/t") -> Table:
    """A table with a commit for each part."""
    table = Table.open_or_create(config, name, SCHEMA, ["event_date", "region"])
    for number, part in enumerate(parts):
        table.append(part, {"a": Step(number or None, number + 1)})
    return table


async def asked(client: AsyncClient, sql: str) -> list[tuple[object, ...]]:
    """Rows of a query."""
    return [tuple(row) for row in (await client.query(sql)).result_rows]


@pytest.fixture
async def client(olap_config: OlapConfig) -> AsyncIterator[AsyncClient]:
    """A client of the engine."""
    connected = await olap.connect(olap_config)
    yield connected
    await connected.close()


async def test_columns_and_partition_values_are_those_of_the_log(lake_config: LakeConfig, client: AsyncClient) -> None:
    """Quotes, patterns, percent signs, slashes and nulls in partition values, lists and structures in files: all come through."""
    places = [("2026-01-01", STRANGE), ("2026-01-01", "local"), ("unknown", "local"), (None, None), ("2026-01-02", "")]
    table = appended(lake_config, *(rows(number, 1, *place) for number, place in enumerate(places)))
    found = await asked(client, f"SELECT * FROM {source(lake_config, table.name, table.files(), table.schema)} ORDER BY value")
    # Delta itself writes an empty text as a null.
    expected = [(date, region or None) for date, region in places]
    assert [row[4:] for row in found] == expected
    assert found[0][2] == TAGS
    named = f"SELECT headers.name, hex(headers.value[1]) FROM {source(lake_config, table.name, table.files()[:1], table.schema)}"
    assert await asked(client, named) == [(["n"], "FF")]
    one = [added for added in table.files() if added.partition_values["region"] == STRANGE]
    assert await asked(client, f"SELECT value, region FROM {source(lake_config, table.name, one, table.schema)}") == [(0, STRANGE)]


async def test_many_files_of_many_partitions_are_one_query(lake_config: LakeConfig, client: AsyncClient) -> None:
    """28 partitions of several files each, and a selection of them by date at a version."""
    days = [f"2026-02-{day:02d}" for day in range(1, 29)]
    batches = [pa.concat_tables([rows(batch * 1000 + day, 2, date, "local") for day, date in enumerate(days)]) for batch in range(3)]
    table = appended(lake_config, *batches)
    by_date = "SELECT event_date, count(), sum(value) FROM {} GROUP BY 1 ORDER BY 1"
    found = await asked(client, by_date.format(source(lake_config, table.name, table.files(), table.schema)))
    assert found == [(date, 6, 6000 + 6 * day + 3) for day, date in enumerate(days)]
    old = Table.open(lake_config, table.name, version=2)
    assert old is not None
    some = source(lake_config, table.name, old.files_between("2026-02-03", "2026-02-04"), old.schema, ["event_date", "value"])
    assert await asked(client, by_date.format(some)) == [(days[2], 4, 2010), (days[3], 4, 2014)]


async def test_a_missing_file_fails_the_query(lake_config: LakeConfig, client: AsyncClient) -> None:
    """Rows are never left out in silence, also not when a column that the file has is not asked for."""
    table = appended(lake_config, rows(0, 1, "2026-01-01", "local"), rows(1, 1, "2026-01-02", "local"))
    files = table.files()
    (Path(table.uri) / files[0].path).unlink()
    for columns in (None, ["event_date"]):
        with pytest.raises(DatabaseError, match="are gone"):
            await asked(client, f"SELECT count(), max(event_date) FROM {source(lake_config, table.name, files, table.schema, columns)}")
    with pytest.raises(DatabaseError):
        await asked(client, f"SELECT count() FROM {source(lake_config, table.name, files[:1], table.schema)}")


async def test_no_files_are_no_rows(lake_config: LakeConfig, client: AsyncClient) -> None:
    """An empty selection has the same columns."""
    table = appended(lake_config)
    empty = source(lake_config, table.name, [], table.schema)
    assert await asked(client, f"SELECT count(), max(value), count(at), max(event_date) FROM {empty}") == [(0, None, 0, None)]
    described = await asked(client, f"DESCRIBE (SELECT * FROM {empty})")
    assert [row[0] for row in described] == table.schema.names


async def test_a_file_older_than_a_column_gives_nulls(lake_config: LakeConfig, client: AsyncClient) -> None:
    """The schema of the table, not that of the first file, is what a query sees."""
    table = appended(lake_config, rows(0, 1, "2026-01-01", "local"))
    table.append(rows(1, 1, "2026-01-02", "local").append_column("extra", pa.array(["x"])), {"a": Step(1, 2)})
    read = source(lake_config, table.name, table.files(), table.schema, ["value", "extra"])
    assert await asked(client, f"SELECT * FROM {read} ORDER BY value") == [(0, None), (1, "x")]


async def test_logical_names_become_sources(lake_config: LakeConfig, client: AsyncClient) -> None:
    """A query over two datasets runs over their files; a name without files is an error."""
    left = appended(lake_config, rows(0, 3, "2026-01-01", "local"), name="curated/l")
    right = appended(lake_config, rows(1, 1, "2026-01-01", "local"), rows(2, 1, "2026-01-02", "local"), name="curated/r")
    sql = "SELECT l.value, r.event_date FROM `lake/curated/l` AS l INNER JOIN `lake/curated/r` AS r USING (value) ORDER BY l.`value`"
    assert logical_names(sql) == ["lake/curated/l", "lake/curated/r"]
    sources = {f"lake/{table.name}": source(lake_config, table.name, table.files(), table.schema) for table in (left, right)}
    assert await asked(client, resolved(sql, sources)) == [(1, "2026-01-01"), (2, "2026-01-02")]
    with pytest.raises(ValueError, match="lake/curated/r"):
        resolved(sql, {"lake/curated/l": sources["lake/curated/l"]})


def test_paths_that_are_patterns_and_other_stores_are_refused(tmp_path: Path) -> None:
    """What the engine would read as something else is an error."""
    table = appended(LakeConfig(root=str(tmp_path / "{a,b}")), rows(0, 1, "2026-01-01", "local"))
    with pytest.raises(ValueError, match="patterns"):
        source(LakeConfig(root=str(tmp_path / "{a,b}")), table.name, table.files(), table.schema)
    with pytest.raises(ValueError, match="gs://"):
        source(LakeConfig(root="gs://bucket/lake"), table.name, table.files(), table.schema)
