"""Declared curated tables: the same table in whatever steps their sources came, and a clear reason where there can be none."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Step, Table, drop
from chassis.olap import Olap
from services.ingestion.derivation import DerivationError
from services.ingestion.due import DEFINITION, HISTORY, MAX_STEP_DATES
from tests.ingestion.deriving import DATES, FIRST, OUT, SCHEMA, Dying, Filled, Sleeping, Told, derived, follow_all, rows, there

NAMES = ("id", "value", "_source_date", "event_date")
PLAIN = "SELECT id, at, value FROM `lake/curated/a`"
BOTH = "SELECT id, at, value FROM `lake/curated/a` WHERE value < 8 UNION ALL SELECT id, at, value + 100 FROM `lake/curated/b`"


def whole(*sources: tuple[Iterable[Told], int]) -> list[tuple[Any, ...]]:
    """What all rows of the sources at once make of `BOTH`: of each id the latest, then that of the later source date, then the greater."""
    best: dict[int, Any] = {}
    for told, plus in sources:
        for each in told:
            if plus or each.value < 8:
                place = (each.hour is not None, each.hour or 0, each.date, each.value + plus)
                best[each.id] = max(best.get(each.id, (False,)), place)
    return sorted((number, value, date, _filed(hour if timed else None, date)) for number, (timed, hour, date, value) in best.items())


def _filed(hour: int | None, date: str) -> str:
    return "unknown" if hour is None or date == "unknown" else DATES[hour // 24]


times = st.sampled_from([None, 0, 1, 24, 30, 49])
told = st.builds(Told, id=st.integers(0, 2), hour=times, value=st.integers(6, 8), date=st.sampled_from(DATES))
added = st.lists(told, min_size=1, max_size=4)
# A date (None: rows are added), a source, rows, and what follows: death before a statement, a step of the same or a new process, nothing.
commit = st.tuples(
    st.one_of(st.none(), st.sampled_from(DATES)), st.sampled_from("ab"), added, st.sampled_from([*range(-1, 14), "step", "step", "restart"])
)


async def _play(lake: LakeConfig, config: OlapConfig, plan: list[tuple[str | None, str, list[Told], Any]]) -> None:
    olap, sources = Olap(config), {name: Filled(lake, f"curated/{name}") for name in "ab"}
    table = derived(lake, olap, BOTH)
    for date, which, given_rows, then in plan:
        if date is None:
            sources[which].add(*given_rows)
        else:
            sources[which].correct(date, *(row for row in given_rows if row.date == date))
        if isinstance(then, int) and then >= 0:
            dying: Any = Dying(olap, then)
            with contextlib.suppress(ConnectionError):
                await derived(lake, dying, BOTH).step()
        if then == "restart":
            table = derived(lake, olap, BOTH)
        if then in ("step", "restart"):
            await table.step()
    await follow_all(derived(lake, olap, BOTH))
    await olap.close()
    expected = whole((sources["a"].now, 0), (sources["b"].now, 100))
    assert there(lake, *NAMES) == expected


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(commit, max_size=8))
def test_any_steps_make_the_table_that_all_rows_at_once_make(
    tmp_path_factory: pytest.TempPathFactory, olap_config: OlapConfig, plan: list[tuple[str | None, str, list[Told], Any]]
) -> None:
    """Whatever the sources gain and lose, times on other dates than the rows', restarts, and deaths before any statement."""
    asyncio.run(_play(LakeConfig(root=str(tmp_path_factory.mktemp("lake"))), olap_config, plan))


async def test_what_was_beaten_comes_back_when_the_winner_goes(lake_config: LakeConfig, olap: Olap) -> None:
    """A ride that ends after midnight is one row, of the later date; taken back there, it is that of the former again."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 23, value=1))
    source.add(Told(1, 25, value=2, date=DATES[1]), Told(2, 26, value=3, date=DATES[1]))
    table = derived(lake_config, olap, PLAIN)
    await follow_all(table)
    assert there(lake_config, *NAMES) == [(1, 2, DATES[1], DATES[1]), (2, 3, DATES[1], DATES[1])]
    source.correct(DATES[1], Told(2, 26, value=4, date=DATES[1]))
    await follow_all(table)
    assert there(lake_config, *NAMES) == [(1, 1, DATES[0], DATES[0]), (2, 4, DATES[1], DATES[1])]


async def test_only_dates_that_changed_are_made_anew(lake_config: LakeConfig, olap: Olap) -> None:
    """A commit of one date leaves the files of the others; compaction and a source that stands still change nothing."""
    source = Filled(lake_config, "curated/a")
    for day in range(3):
        source.add(Told(day, 24 * day, date=DATES[day]))
    table = derived(lake_config, olap, PLAIN)
    await follow_all(table)
    opened = Table.open(lake_config, OUT)
    assert opened is not None
    before = {added.path for added in opened.files()}
    source.add(Told(9, 24, date=DATES[1]))
    work = await table.step()
    assert work is not None and work.dates == (DATES[1],) and await table.step() is None
    opened.refresh()
    assert [added.partition_values["event_date"] for added in opened.files() if added.path not in before] == [DATES[1]]
    source.table.handle.optimize.compact()
    work = await table.step()
    assert work is not None and work.dates == ()
    assert await table.step() is None


async def test_groups_are_those_of_a_date_and_no_rows_make_none(lake_config: LakeConfig, olap: Olap) -> None:
    """An aggregate without keys gives a row of no rows, yet a date that the source has no more has none."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 1, value=1), Told(2, 2, value=2), Told(1, 25, value=4, date=DATES[1]))
    table = derived(lake_config, olap, "SELECT max(toDate(at)) AS at, count() AS id, sum(value) AS value FROM `lake/curated/a`")
    await follow_all(table)
    assert there(lake_config, *NAMES) == [(1, 4, DATES[1], DATES[1]), (2, 3, DATES[0], DATES[0])]
    source.correct(DATES[0])
    await follow_all(table)
    assert there(lake_config, *NAMES) == [(1, 4, DATES[1], DATES[1])]


async def test_times_that_cannot_be_trusted_are_unknown(lake_config: LakeConfig, olap: Olap) -> None:
    """No time, one outside the years 1 to 9999, and whatever is made of rows that are unknown."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, None), Told(2, 0, value=1), Told(3, 0, date="unknown"), Told(4, -1))
    moved = "if(value = 1, fromUnixTimestamp64Micro(toInt64(300000000000000000), 'UTC'), at)"
    await follow_all(derived(lake_config, olap, f"SELECT id, value, {moved} AS at FROM `lake/curated/a`"))
    assert there(lake_config, "id", "event_date") == [(1, "unknown"), (2, "unknown"), (3, "unknown"), (4, "2025-12-31")]


async def test_a_changed_select_makes_all_dates_anew(lake_config: LakeConfig, olap: Olap) -> None:
    """New columns are there, of old dates too; which SELECT it was is in the table's own progress."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 0, value=1), Told(2, 24, value=2, date=DATES[1]))
    await follow_all(derived(lake_config, olap, PLAIN))
    table = Table.open(lake_config, OUT)
    assert table is not None
    former = table.progress(DEFINITION)
    await follow_all(
        derived(lake_config, olap, "SELECT id, at, value * 10 AS value, toString(id) AS name FROM `lake/curated/a` WHERE id < 9")
    )
    assert there(lake_config, "id", "value", "name") == [(1, 10, "1"), (2, 20, "2")]
    table.refresh()
    assert table.progress(DEFINITION) not in (None, former) and table.progress(HISTORY) == 0


async def test_history_is_made_in_steps_newest_date_first(lake_config: LakeConfig, olap: Olap) -> None:
    """More dates than one step takes; another process goes on where the first ended; what is gained meanwhile is made afterwards."""
    source = Filled(lake_config, "curated/a")
    days = range(MAX_STEP_DATES + 5)
    source.add(*(Told(day, 24 * day, date=str(FIRST.date().fromordinal(FIRST.date().toordinal() + day))) for day in days))
    work = await derived(lake_config, olap, PLAIN, chunk_rows=50).step()
    assert work is not None and work.left == 5 and min(there(lake_config, "id")) == (5,)
    source.add(Told(1000, 24 * days[-1], date=max(work.dates)))
    work = await derived(lake_config, olap, PLAIN).step()
    assert work is not None and work.left == 0 and there(lake_config, "id") == [(day,) for day in days]
    await follow_all(derived(lake_config, olap, PLAIN))
    assert there(lake_config, "id")[-1] == (1000,)


async def test_a_source_that_was_made_again_is_another_one(lake_config: LakeConfig, olap: Olap) -> None:
    """Its dates that are no more are taken away, whatever its version."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 0), Told(2, 24, date=DATES[1]))
    await follow_all(derived(lake_config, olap, PLAIN))
    for _ in range(3):
        source.add()
    running = derived(lake_config, olap, PLAIN)
    await follow_all(running)
    drop(lake_config, "curated/a")
    again = Filled(lake_config, "curated/a")
    again.add(Told(3, 1))
    await follow_all(running)
    assert there(lake_config, "id", "event_date") == [(3, DATES[0])]
    for hour in range(5):
        again.add(Told(4, hour))
    await follow_all(derived(lake_config, olap, PLAIN))
    assert there(lake_config, "id", "event_date") == [(3, DATES[0]), (4, DATES[0])]


async def test_types_are_those_that_the_lake_keeps(lake_config: LakeConfig, olap: Olap) -> None:
    """Unsigned numbers become signed ones, bytes that are copied stay bytes, the rest is text."""
    schema = SCHEMA.append(pa.field("key", pa.binary()))
    table = Table.open_or_create(lake_config, "curated/a", schema, ["event_date", "region"])
    table.append(rows([Told(1, 0)]).append_column("key", pa.array([b"\xff\xfe"])), {"test": Step(None, 1)})
    sql = (
        "SELECT id, at, key, hex(key) AS text, toUInt64(7) AS n, [1, 2] AS list, CAST((1, 'x'), 'Tuple(a Int32, b String)') AS pair, "
        "toDecimal64(1.5, 2) AS price, toLowCardinality('l') AS low, toDate(at) AS day, 'mine' AS region, 5 AS format FROM `lake/curated/a`"
    )
    await follow_all(derived(lake_config, olap, sql))
    made = Table.open(lake_config, OUT)
    assert made is not None
    (row,) = pa.table(made.handle.to_pyarrow_table()).to_pylist()
    assert [row[name] for name in ("key", "text", "n", "list", "low", "region", "format")] == [
        b"\xff\xfe",
        "FFFE",
        7,
        [1, 2],
        "l",
        "mine",
        5,
    ]
    assert row["pair"] == {"a": 1, "b": "x"} and str(row["price"]) == "1.50" and row["day"] == FIRST.date()
    assert made.schema.field("n").type == pa.int64() and made.partition_columns == ["event_date", "region"]


async def test_all_columns_of_a_table_may_be_taken(lake_config: LakeConfig, olap: Olap) -> None:
    """But for those that are its own, of which the derived table has others: one over a derived table is made like it."""
    Filled(lake_config, "curated/a").add(Told(1, 25, value=7), Told(2, None))
    await follow_all(derived(lake_config, olap, "SELECT * FROM `lake/curated/a`", name="first"))
    await follow_all(derived(lake_config, olap, "SELECT * FROM `lake/curated/first`"))
    assert there(lake_config, *NAMES, "region") == [(1, 7, DATES[1], DATES[1], "local"), (2, 0, "unknown", "unknown", "local")]


async def test_a_writer_that_was_overtaken_changes_nothing(lake_config: LakeConfig, olap: Olap) -> None:
    """One that slept, with its rows ready, while another took the same commits and more."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 0))
    await follow_all(derived(lake_config, olap, PLAIN))
    source.add(Told(2, 0, value=1))

    async def overtake() -> None:
        source.add(Told(2, 1, value=2))
        await follow_all(derived(lake_config, olap, PLAIN, stage="overtaking"))

    sleeping: Any = Sleeping(olap, "_rank", overtake)
    with pytest.raises(DeltaError, match=r"(?i)concurrent"):
        await derived(lake_config, sleeping, PLAIN).step()
    assert there(lake_config, "id", "value") == [(1, 0), (2, 2)]
    assert await derived(lake_config, olap, PLAIN).step() is None


@pytest.mark.parametrize(
    ("sql", "reason", "why"),
    [
        ("SELECT id, at, vlaue FROM `lake/curated/a`", "SelectFailed", "Unknown expression identifier `vlaue`"),
        ("SELECT id, at FROM `lake/curated/a` JOIN `lake/curated/none` USING (id)", "SourceMissing", "no table curated/none yet"),
        ("SELECT id, at FROM `olap/live/a`", "InvalidSelect", "no table of the lake"),
        ("SELECT id, at AS time FROM `lake/curated/a`", "InvalidSelect", "no columns of the SELECT: at; it gives id, time"),
        ("SELECT id, value AS at FROM `lake/curated/a`", "InvalidSelect", "the time column at is no date or time but int64"),
        ("SELECT [id] AS id, at FROM `lake/curated/a`", "InvalidSelect", "keys cannot be lists"),
        ("SELECT id, at, map('a', 1) AS m FROM `lake/curated/a`", "InvalidSelect", "column m: the lake keeps no Map(String, UInt8)"),
        ("SELECT id, at, id AS id FROM `lake/curated/a`", "InvalidSelect", "gives a column twice: id, at, id"),
        ("SELECT nullIf(id, 2) AS id, at FROM `lake/curated/a`", "InvalidRows", "1 rows have no id, which is a key"),
        ("SELECT id, at, unhex('ff') AS b FROM `lake/curated/a`", "InvalidRows", "bytes in b that are no text"),
        ("SELECT id, at, toUInt64(-1) AS n FROM `lake/curated/a`", "SelectFailed", "cannot be safely converted"),
        ("SELECT id, at, throwIf(id = 2, 'odd id') AS n FROM `lake/curated/a`", "SelectFailed", "odd id"),
    ],
)
async def test_what_cannot_be_made_says_why_and_changes_nothing(
    lake_config: LakeConfig, olap: Olap, sql: str, reason: str, why: str
) -> None:
    """The table that was made before stays as it is, and goes on when the declaration is right again."""
    bare = "SELECT id, at FROM `lake/curated/a`"
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 0), Told(2, 0))
    await follow_all(derived(lake_config, olap, bare))
    with pytest.raises(DerivationError) as caught:
        await derived(lake_config, olap, sql).step()
    assert caught.value.reason == reason and why in str(caught.value)
    assert there(lake_config, "id") == [(1,), (2,)]
    source.add(Told(3, 0))
    await follow_all(derived(lake_config, olap, bare))
    assert there(lake_config, "id") == [(1,), (2,), (3,)]


async def test_a_first_commit_that_never_came_binds_nobody(lake_config: LakeConfig, olap: Olap) -> None:
    """A table that was created, but not filled, may have other columns when its declaration is changed."""
    Filled(lake_config, "curated/a").add(Told(1, 0))
    dying: Any = Dying(olap, 9)
    with pytest.raises(ConnectionError):
        await derived(lake_config, dying, "SELECT id, at, value, 1 AS extra FROM `lake/curated/a`").step()
    assert there(lake_config, "extra") == []
    await follow_all(derived(lake_config, olap, PLAIN))
    assert there(lake_config, "id") == [(1,)]


async def test_keys_are_what_equals_itself(lake_config: LakeConfig, olap: Olap) -> None:
    """Bytes that are copied are a key; a fraction is one, unless it is none; a table that was dropped is made again."""
    schema = SCHEMA.set(0, pa.field("id", pa.binary()))
    table = Table.open_or_create(lake_config, "curated/a", schema, ["event_date", "region"])
    table.append(rows([Told(1, 0)]).set_column(0, "id", pa.array([b"\xff"])), {"test": Step(None, 1)})
    table.append(rows([Told(1, 1, 5)]).set_column(0, "id", pa.array([b"\xff"])), {"test": Step(1, 2)})
    follower = derived(lake_config, olap, PLAIN)
    await follow_all(follower)
    assert there(lake_config, "id", "value") == [(b"\xff", 5)]
    drop(lake_config, OUT)
    await follow_all(follower)
    assert there(lake_config, "id", "value") == [(b"\xff", 5)]
    await follow_all(derived(lake_config, olap, "SELECT value / 2 AS id, at FROM `lake/curated/a`", name="halves"))
    assert there(lake_config, "id", name="curated/halves") == [(0.0,), (2.5,)]
    with pytest.raises(DerivationError, match="1 rows have no id"):
        await derived(lake_config, olap, "SELECT if(value = 5, nan, 1.5) AS id, at FROM `lake/curated/a`", name="none").step()


async def test_columns_that_are_there_stay_as_they_are(lake_config: LakeConfig, olap: Olap) -> None:
    """A SELECT that gives them no longer, or as another type, is refused with all of them."""
    Filled(lake_config, "curated/a").add(Told(1, 0))
    await follow_all(derived(lake_config, olap, "SELECT id, at, value, 1 AS extra FROM `lake/curated/a`"))
    with pytest.raises(DerivationError, match=r"no longer gives extra; columns of other types: value \(is Nullable\(Int64\)") as caught:
        await derived(lake_config, olap, "SELECT id, at, toString(value) AS value FROM `lake/curated/a`").step()
    assert caught.value.reason == "ColumnsChanged" and there(lake_config, "value", "extra") == [(0, 1)]


async def test_a_table_of_something_else_is_left_alone(lake_config: LakeConfig, olap: Olap) -> None:
    """One that lies there already and was not made by a declaration."""
    Filled(lake_config, "curated/a").add(Told(1, 0))
    Filled(lake_config, OUT).add(Told(7, 0))
    with pytest.raises(DerivationError, match="made by something else"):
        await derived(lake_config, olap, PLAIN).step()
    assert there(lake_config, "id") == [(7,)]
