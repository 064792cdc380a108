"""The loop over declared curated tables: what fails is told and holds up nothing; raw sources; lineage of what is made."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chassis import testing
from chassis.config import KafkaConfig, LakeConfig, OlapConfig, RpcConfig
from chassis.desired import Desired, DesiredFeed
from chassis.lineage import ColumnInput
from chassis.olap import Olap
from chassis.reporting import Standing
from chassis.resources import from_document
from services.ingestion import due
from services.ingestion.config import IngestionConfig
from services.ingestion.derivation import Derivation, shape_of
from services.ingestion.derived import defined, told
from services.ingestion.deriving import MIN_REST_SECONDS, Deriving
from tests.ingestion.correcting import Filled as Raw
from tests.ingestion.correcting import Told as Event
from tests.ingestion.deriving import DATES, SCHEMA, Filled, Told, derived, follow_all, there

PLAIN = "SELECT id, at, value FROM `lake/curated/a`"


class Hearing(DesiredFeed):
    """A feed that keeps what was said."""

    def __init__(self, current: Desired, folder: Path) -> None:
        super().__init__(current, folder, None)
        self.said: dict[str, list[Standing]] = {}

    def say(self, desired: Desired, kind: str, name: str, standing: Standing | None) -> None:
        """Keeps it."""
        assert standing is not None
        self.said.setdefault(name, []).append(standing)


def declared(generation: int = 1, **sqls: str) -> Desired:
    """Desired state with these tables."""
    documents = [
        {"apiVersion": "arterial.dev/v1", "kind": "CuratedTable", "metadata": {"name": name, "generation": generation}}
        | {"spec": {"sql": sql, "keys": ["id"], "timeColumn": "at"}}
        for name, sql in sqls.items()
    ]
    return Desired(tuple(from_document(document) for document in documents))


@dataclass
class Loop:
    """The loop of a process with a clock that stands still."""

    deriving: Deriving
    feed: Hearing
    clock: testing.ManualClock

    async def poll(self, seconds: float = 0.0) -> dict[str, str]:
        """Polls after so many seconds; the newest standing of each table: its reason."""
        await self.clock.sleep(seconds)
        await self.deriving.poll()
        return {name: standings[-1].reason for name, standings in self.feed.said.items()}


@pytest.fixture
def loop(lake_config: LakeConfig, olap_config: OlapConfig, olap: Olap, tmp_path: Path) -> Loop:
    """A loop over no tables."""
    config = IngestionConfig(
        state_dir=tmp_path / "state", kafka=KafkaConfig(bootstrap=""), lake=lake_config, olap=olap_config, rpc=RpcConfig(port=0)
    )
    feed, clock = Hearing(Desired(()), tmp_path), testing.ManualClock(1e9)
    context = dataclasses.replace(testing.context(), clock=clock)
    return Loop(Deriving(config, context, feed, olap), feed, clock)


async def test_a_table_that_fails_holds_up_no_other(loop: Loop, lake_config: LakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """It says why, is tried again ever later, and is well as soon as its declaration is; one without a source waits for it."""
    Filled(lake_config, "curated/a").add(Told(1, 0))
    loop.feed.current = declared(bad="SELECT idd AS id, at FROM `lake/curated/a`", good=PLAIN, late="SELECT id, at FROM `lake/curated/b`")
    assert await loop.poll() == {"bad": "SelectFailed", "good": "Running", "late": "SourceMissing"}
    assert "identifier `idd`" in loop.feed.said["bad"][0].message and there(lake_config, "id", name="curated/good") == [(1,)]
    for _ in range(6):
        await loop.poll(1.0)
    tries = [line for line in capsys.readouterr().err.splitlines() if "declared table cannot be made" in line]
    assert len(tries) == 3 and len(loop.feed.said["bad"]) == len(loop.feed.said["late"]) == 7
    Filled(lake_config, "curated/b").add(Told(2, 0))
    loop.feed.current = declared(bad="SELECT id, at FROM `lake/curated/a`", good=PLAIN, late="SELECT id, at FROM `lake/curated/b`")
    assert await loop.poll(1.0) == {"bad": "Running", "good": "Running", "late": "Running"}
    assert there(lake_config, "id", name="curated/late") == [(2,)]


async def test_what_is_on_its_way_is_no_fault(loop: Loop, lake_config: LakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stop a change that goes from cell to cell: a table without its source yet, or whose history is being made."""
    monkeypatch.setattr(due, "MAX_STEP_DATES", 1)
    loop.feed.current = declared(good=PLAIN)
    await loop.poll()
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 0))
    source.add(Told(2, 25, date=DATES[1]))
    await loop.poll()
    await loop.poll(MIN_REST_SECONDS)
    told = [(standing.holds, standing.reason) for standing in loop.feed.said["good"]]
    assert told == [(None, "SourceMissing"), (None, "MakingHistory"), (True, "Running")]


async def test_a_date_that_changes_all_the_time_is_made_now_and_then(loop: Loop, lake_config: LakeConfig) -> None:
    """After a step a table rests, but what became of it is told of any newer version; what is no longer declared is stepped no more."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 0))
    loop.feed.current = declared(good=PLAIN)
    await loop.poll()
    source.add(Told(2, 0))
    loop.feed.said.clear()
    assert await loop.poll(MIN_REST_SECONDS / 2) == {"good": "Running"}
    assert there(lake_config, "id", name="curated/good") == [(1,)]
    await loop.poll(MIN_REST_SECONDS)
    assert there(lake_config, "id", name="curated/good") == [(1,), (2,)]
    loop.feed.current = declared()
    source.add(Told(3, 0))
    await loop.poll(MIN_REST_SECONDS * 2)
    assert there(lake_config, "id", name="curated/good") == [(1,), (2,)]


async def test_raw_sources_are_read_without_dead_rows_and_what_is_superseded(lake_config: LakeConfig, olap: Olap, tmp_path: Path) -> None:
    """A correction takes away what it supersedes, on whatever date that was loaded."""
    raw = Raw(lake_config, tmp_path)
    sql = "SELECT trip_id AS id, event_time AS at, producer FROM `lake/raw/trip_events_v2`"
    table = derived(lake_config, olap, sql)
    await raw.live("live", [Event(1)])
    bad = await raw.file("bad", [Event(2), Event(3)])
    await follow_all(table)
    assert there(lake_config, "id", "producer") == [("trip-1", "live"), ("trip-2", "bad"), ("trip-3", "bad")]
    await raw.clock.sleep(2 * 86_400)
    await raw.file("good", [Event(2)], [bad])
    await follow_all(table)
    assert there(lake_config, "id", "producer") == [("trip-1", "live"), ("trip-2", "good")]
    assert len({date for (date,) in there(lake_config, "_source_date")}) == 2


async def test_a_table_over_derived_tables_follows_them(lake_config: LakeConfig, olap: Olap) -> None:
    """What one makes is a source of the next, replaced partitions included."""
    source = Filled(lake_config, "curated/a")
    source.add(Told(1, 23, value=1))
    first = derived(lake_config, olap, PLAIN, name="first")
    second = derived(lake_config, olap, "SELECT max(at) AS at, count() AS id, sum(value) AS value FROM `lake/curated/first`")
    for told_next in (None, Told(1, 25, value=5, date=DATES[1]), Told(2, 30, value=2, date=DATES[1])):
        if told_next is not None:
            source.add(told_next)
        await follow_all(first)
        await follow_all(second)
    assert there(lake_config, "id", "value", "event_date") == [(2, 7, DATES[1])]


def test_lineage_is_read_from_the_select() -> None:
    """Columns that the table adds are among them; SQL that is not understood gives datasets alone."""
    derivation = Derivation("out", "SELECT id, max(at) AS at FROM `lake/curated/a` GROUP BY id", ("id",), "at")
    job = defined(derivation, {"lake/curated/a": SCHEMA})
    shape = shape_of(derivation, [("id", "Int64", SCHEMA.field("id").type), ("at", "DateTime64(6)", SCHEMA.field("at").type)])
    (output,) = told(job, derivation, shape).outputs
    assert output.dataset == "lake/curated/out" and output.columns["id"] == (ColumnInput("lake/curated/a", "id", "DIRECT/IDENTITY"),)
    assert [item.column for item in output.columns["event_date"]] == ["at"] and output.types["event_date"] == "string"
    odd: Any = Derivation("out", "SELECT ((( FROM `lake/curated/a`", ("id",), "at")
    assert defined(odd, {"lake/curated/a": SCHEMA}).inputs == ["lake/curated/a"]
