"""Corrections: what is superseded is gone from curated and live tables as if it had never come; raw keeps it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chassis import olap
from chassis.config import LakeConfig, OlapConfig
from chassis.lake import Table
from services.ingestion.curated import Curated
from services.ingestion.live import Live
from services.ingestion.trips import TRIPS
from tests.ingestion.correcting import DAY_US, Filled, Told
from tests.ingestion.raw_tables import TOPIC, rows_of

EVENTS = f"curated/{TOPIC.name}"


def follow_all(lake: LakeConfig) -> None:
    """A new follower, until nothing is left."""
    curated = Curated(lake, TOPIC)
    while curated.step():
        pass


def told(lake: LakeConfig, table: str = EVENTS) -> list[tuple[Any, ...]]:
    """(event_date, trip, sequence, producer) of a curated table, sorted."""
    return sorted((row["event_date"], row["trip_id"], row["sequence"], row["producer"]) for row in rows_of(lake, table))


async def test_a_correction_replaces_the_file_it_names(lake_config: LakeConfig, tmp_path: Path) -> None:
    """The same event ids tell what the correction says, in one commit that leaves other dates alone; a second load changes nothing."""
    filled = Filled(lake_config, tmp_path)
    events = [Told(trip, day=trip % 2, requested=trip % 2) for trip in range(4)]
    await filled.file("other", [Told(9, day=5, requested=5)])
    bad = await filled.file("bad", events)
    follow_all(lake_config)
    tables = {name: Table.open(lake_config, name) for name in (EVENTS, TRIPS)}
    before = {name: (table.version, {added.path for added in table.files()}) for name, table in tables.items() if table}
    await filled.file("good", events, [bad])
    follow_all(lake_config)
    dates = ["2023-11-14", "2023-11-15"]
    expected = sorted([("2023-11-19", "trip-9", 1, "other"), *((dates[trip % 2], f"trip-{trip}", 1, "good") for trip in range(4))])
    assert told(lake_config) == told(lake_config, TRIPS) == expected
    for name, table in tables.items():
        assert table is not None
        table.refresh()
        assert table.version == before[name][0] + 1
        kept = before[name][1] & {added.path for added in table.files()}
        assert kept == {path for path in before[name][1] if "2023-11-19" in path}
    assert len(rows_of(lake_config, f"raw/{TOPIC.name}")) == 9
    await filled.file("bad", events)
    follow_all(lake_config)
    assert told(lake_config) == expected


async def test_a_correction_of_half_a_day_leaves_the_rest_out(lake_config: LakeConfig, tmp_path: Path) -> None:
    """What it does not tell again is gone; an empty one only takes away."""
    filled = Filled(lake_config, tmp_path)
    bad = await filled.file("bad", [Told(trip) for trip in range(6)])
    follow_all(lake_config)
    half = await filled.file("half", [Told(trip) for trip in range(3)], [bad])
    follow_all(lake_config)
    assert told(lake_config) == told(lake_config, TRIPS) == [("2023-11-14", f"trip-{trip}", 1, "half") for trip in range(3)]
    await filled.file("none", [], [half])
    follow_all(lake_config)
    assert told(lake_config) == told(lake_config, TRIPS) == []


async def test_a_row_that_was_dropped_as_a_repeat_comes_back(lake_config: LakeConfig, tmp_path: Path) -> None:
    """Even to where a live event with a late clock is filed; and a trip gets its earlier event back."""
    filled = Filled(lake_config, tmp_path)
    await filled.live("early", [Told(1, sequence=1)])
    bad = await filled.file("bad", [Told(1, sequence=2), Told(2), Told(3)])
    await filled.live("soon", [Told(2)])
    await filled.clock.sleep(40 * DAY_US / 1e6)
    await filled.live("late", [Told(3)])
    follow_all(lake_config)
    assert [row[3] for row in told(lake_config)] == ["early", "bad", "bad", "bad"]
    await filled.file("none", [], [bad])
    follow_all(lake_config)
    expected = [("2023-11-14", "trip-1", 1, "early"), ("2023-11-14", "trip-2", 1, "soon")]
    assert told(lake_config) == [*expected, ("unknown", "trip-3", 1, "late")]
    assert told(lake_config, TRIPS) == [*expected, ("2023-11-14", "trip-3", 1, "late")]


# One step of a plan: who is told what, by file, by the live topic, or as a correction of the files with these numbers.
events = st.lists(st.builds(Told, st.integers(0, 3), st.integers(1, 2), st.integers(0, 1), st.sampled_from([0, 1, None])), max_size=4)
steps = st.tuples(st.sampled_from(["file", "live", "correction", "correction"]), events, st.booleans(), st.sampled_from([1, 1, 1, 40]))


async def _play(filled: Filled, plan: list[tuple[str, list[Told], bool, int]], left_out: set[int], *, follow: bool) -> set[int]:
    """Plays a plan without the steps left out; returns the numbers of the steps that became superseded."""
    sources: dict[int, str] = {}
    superseded: set[int] = set()
    for number, (kind, told_events, following, days) in enumerate(plan):
        if kind == "live" and told_events:
            await filled.live(f"step-{number}", told_events)
        elif kind != "live" and number not in left_out:
            named = [other for other in sources if kind == "correction" and other not in superseded][-2:] if follow else []
            if told_events or named:
                sources[number] = await filled.file(f"step-{number}", told_events, [sources[other] for other in named])
                superseded |= set(named)
        if follow and following:
            Curated(filled.lake, TOPIC).step()
        await filled.clock.sleep(days * 86_400)
    follow_all(filled.lake)
    return superseded


@settings(
    max_examples=8, phases=[Phase.explicit, Phase.generate], deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=st.lists(steps, min_size=3, max_size=6))
def test_any_loads_and_corrections_end_as_if_only_what_is_in_force_had_come(
    plan: list[tuple[str, list[Told], bool, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Curated events and trips are the same, whatever the followers had taken when a correction came, and however often they began anew."""
    folder = tmp_path_factory.mktemp("corrections")
    corrected, plain = (Filled(LakeConfig(root=str(folder / name)), folder) for name in ("corrected", "plain"))
    superseded = asyncio.run(_play(corrected, plan, set(), follow=True))
    asyncio.run(_play(plain, plan, superseded, follow=False))
    assert told(corrected.lake) == told(plain.lake)
    assert told(corrected.lake, TRIPS) == told(plain.lake, TRIPS)


class Dying:
    """A client that dies before its n-th command from now."""

    def __init__(self, client: AsyncClient, commands: int) -> None:
        self._client = client
        self._left = commands

    async def command(self, sql: str) -> Any:
        """Runs a command, or dies."""
        if self._left == 0:
            raise ConnectionError("killed")
        self._left -= 1
        return await self._client.command(sql)


async def load_all(live: Live, client: AsyncClient) -> None:
    """Steps until nothing is left."""
    while await live.step(client):
        pass


async def in_live(client: AsyncClient, config: OlapConfig) -> list[tuple[str, str]]:
    """(trip, producer) of the live table, sorted."""
    found = await client.query(f"SELECT trip_id, producer FROM `{config.database}`.`{TOPIC.name}` ORDER BY ALL")
    return [tuple(row) for row in found.result_rows]


@pytest.mark.parametrize("commands", range(2, 15, 2))
async def test_a_live_table_is_corrected_once_wherever_its_loader_dies(
    lake_config: LakeConfig, olap_config: OlapConfig, tmp_path: Path, commands: int
) -> None:
    """Killed after any command, the next loader ends with the correction's rows and all others, each once."""
    filled = Filled(lake_config, tmp_path)
    client = await olap.connect(olap_config)
    await filled.live("live", [Told(1)])
    bad = await filled.file("bad", [Told(2), Told(3)])
    await load_all(Live(lake_config, olap_config, TOPIC), client)
    assert await in_live(client, olap_config) == [("trip-1", "live"), ("trip-2", "bad"), ("trip-3", "bad")]
    await filled.file("other", [Told(4)])
    await filled.file("good", [Told(2)], [bad])
    await filled.live("live", [Told(5)])
    dying: Any = Dying(client, commands)
    try:
        await load_all(Live(lake_config, olap_config, TOPIC), dying)
    except ConnectionError:
        await load_all(Live(lake_config, olap_config, TOPIC), client)
    assert await in_live(client, olap_config) == [("trip-1", "live"), ("trip-2", "good"), ("trip-4", "other"), ("trip-5", "live")]
    await client.close()


async def test_a_first_load_leaves_superseded_rows_out(lake_config: LakeConfig, olap_config: OlapConfig, tmp_path: Path) -> None:
    """Even if compaction has put them into one file with others."""
    filled = Filled(lake_config, tmp_path)
    client = await olap.connect(olap_config)
    bad = await filled.file("bad", [Told(1), Told(2)])
    await filled.live("live", [Told(3)])
    await filled.file("good", [Told(1)], [bad])
    filled.table.handle.optimize.compact()
    assert len(filled.table.files()) == 1
    await load_all(Live(lake_config, olap_config, TOPIC), client)
    assert await in_live(client, olap_config) == [("trip-1", "good"), ("trip-3", "live")]
    await client.close()
