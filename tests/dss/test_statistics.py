"""Statistics of the engine equal a plain recount."""

import datetime
import decimal
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Step, Table
from chassis.olap import Olap
from chassis.testing import ManualClock
from services.dss import profiler as profiling
from services.dss.profiler import Profiler, Target
from services.dss.statistics import MAX_MARKETS, profile_of, profile_sql
from services.dss.store import SeriesStore
from tests.dss.tables import DATASET, SCHEMA, Statistics, append, open_table, recount, row

TARGET = Target(DATASET, "city_id")
NESTED = pa.list_(pa.struct([("cell", pa.int64()), ("tags", pa.list_(pa.string()))]))
_FLOATS = st.floats(-1e12, 1e12, allow_subnormal=False).map(lambda value: value + 0.0) | st.just(float("nan"))
_ROWS = st.fixed_dictionaries(
    {
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "real": st.none() | _FLOATS,
        "small": st.none() | st.sampled_from([0.5, -2.25, float("nan")]),
        "flag": st.none() | st.booleans(),
        "text": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        "at": st.none() | st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2299, 1, 1), timezones=st.just(datetime.UTC)),
        "day": st.none() | st.dates(datetime.date(1900, 1, 1), datetime.date(2299, 1, 1)),
        "raw": st.none() | st.binary(max_size=2),
        "tags": st.lists(st.sampled_from(["a", "b", ""]), max_size=2),
        "city_id": st.none() | st.integers(1, 2),
        "event_date": st.sampled_from(["2026-03-08", "2026-03-09", "unknown"]),
        "region": st.sampled_from(["local", "other"]),
    }
)


async def measured(store: SeriesStore, date: str) -> Statistics:
    """Newest profile of a partition."""
    found = await store.profile(DATASET, date)
    return {(market, column, metric): value for market, column, metrics in found for metric, value in metrics.items()}


def assert_equal(found: Statistics, expected: Statistics) -> None:
    """Same keys; counts exact, the rest as floats are."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        exact = key[2] in ("COUNT", "NULLS", "DISTINCT", "MISSING_PERCENT")
        assert found[key] == (value if exact else pytest.approx(value, rel=1e-9, abs=1e-6, nan_ok=True)), key


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=st.lists(_ROWS, min_size=1, max_size=30), cells=st.sampled_from([profiling.MAX_CELLS, 100, 1]))
async def test_statistics_are_those_of_a_recount(
    tmp_path: Path, olap_config: OlapConfig, rows: list[dict[str, object]], cells: int
) -> None:
    """Every column, market and partition, in one statement, in one per partition or in many of few columns."""
    lake = LakeConfig(root=str(tmp_path / uuid.uuid4().hex))
    olap = Olap(olap_config.model_copy(update={"database": f"test_{uuid.uuid4().hex}"}))
    table = open_table(lake)
    append(table, rows)
    dates = sorted({str(row["event_date"]) for row in rows})
    store = SeriesStore(olap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "MAX_CELLS", cells)
        version = await Profiler(lake, store, ManualClock(1e9)).profile(TARGET, table, dates)
    for date in dates:
        assert_equal(await measured(store, date), recount([row for row in rows if row["event_date"] == date]))
    assert {date: note.version for date, note in (await store.notes(DATASET)).items()} == dict.fromkeys(dates, version)
    await olap.run(f"DROP DATABASE `{olap.database}`")
    await olap.close()


async def test_the_largest_markets_are_kept(profiler: Profiler, lake_config: LakeConfig) -> None:
    """A market column with a value per row does not become as many series; the whole partition is complete."""
    table = open_table(lake_config)
    append(table, [row("2026-03-08", city % (MAX_MARKETS + 50)) for city in range(2 * MAX_MARKETS + 50)])
    await profiler.profile(TARGET, table, ["2026-03-08"])
    found = await measured(profiler.store, "2026-03-08")
    counts = {market: value for (market, column, _), value in found.items() if column == ""}
    assert counts.pop("") == 2 * MAX_MARKETS + 50
    assert (len(counts), set(counts.values())) == (MAX_MARKETS, {2.0})


async def test_columns_that_only_dead_rows_have_are_left_out(profiler: Profiler, lake_config: LakeConfig) -> None:
    """Of a raw table good rows are profiled, by date as the table has it."""
    schema = pa.schema(
        [
            ("_value", pa.binary()),
            ("x", pa.int64()),
            ("nested", NESTED),
            ("price", pa.decimal128(9, 2)),
            ("ingest_date", pa.date32()),
            ("region", pa.string()),
            ("dead", pa.bool_()),
        ]
    )
    table = Table.open_or_create(lake_config, "raw/t", schema, ["ingest_date", "region", "dead"])
    day = datetime.date(2026, 3, 8)
    good = {"dead": False, "nested": [{"cell": 1, "tags": ["a"]}], "price": decimal.Decimal("1.25")}
    rows: list[dict[str, object]] = [{"x": 1, **good}, {"x": 4, **good}, {"_value": b"?", "dead": True}]
    table.append(
        pa.Table.from_pylist([{"ingest_date": day, "region": "local", **row} for row in rows], schema=schema), {"a": Step(None, 1)}
    )
    await profiler.profile(Target("lake/raw/t", "city_id"), table, ["2026-03-08"])
    found = {column: metrics for _, column, metrics in await profiler.store.profile("lake/raw/t", "2026-03-08")}
    assert set(found) == {"", "x", "nested", "price", "region"}
    assert found["nested"] == {"COUNT": 2, "NULLS": 0, "MISSING_PERCENT": 0, "DISTINCT": 1}
    assert (found["price"]["MAX"], found["price"]["DISTINCT"]) == (1.25, 1)
    assert (found[""]["COUNT"], found["x"]["MEDIAN"], found["x"]["NULLS"]) == (2, 2.5, 0)


def test_lineage_is_read_from_the_statement() -> None:
    """Values come from every profiled column; markets decide the rows."""
    profile = profile_of(SCHEMA, "event_date", "city_id")
    store = SeriesStore(Olap(OlapConfig(database="dss")))
    types = {field.name: "String" for field in SCHEMA}
    found = profiling.definition(store, TARGET, profile, types)
    (output,) = found.outputs
    assert (found.name, list(found.inputs), output.dataset) == ("dss.profile.curated/t", [DATASET], "olap/dss/series")
    assert {item.column for item in output.columns["value"]} >= set(SCHEMA.names) - {"event_date"}
    assert "real" not in {
        item.column
        for item in profiling.definition(store, TARGET, profile_of(SCHEMA.remove(1), "event_date", ""), types).outputs[0].columns["value"]
    }
    assert "`lake/curated/t`" in profile_sql(DATASET, profile)
