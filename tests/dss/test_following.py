"""Following the log: what a commit touched is profiled once, whatever restarts; busy partitions wait, closed ones do not."""

import json
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from chassis.config import LakeConfig, OlapConfig, RpcConfig
from chassis.lake import Added, Commit
from chassis.lakedates import touched
from chassis.olap import Olap
from chassis.testing import ManualClock, eventually, running
from services.dss.config import DssConfig, ProfileConfig
from services.dss.follower import Follower
from services.dss.following import profile
from services.dss.pending import Note, Pending
from services.dss.profiler import Profiler, Target
from tests.dss.tables import DATASET, append, open_table, row

TARGET = Target(DATASET, "city_id")
CLOSED, TODAY = "2026-03-08", "2026-03-10"


@pytest.fixture
def config(lake_config: LakeConfig, olap_config: OlapConfig, tmp_path: Path) -> DssConfig:
    """Defaults: a busy partition at most every 30 s."""
    return DssConfig(state_dir=tmp_path, lake=lake_config, olap=olap_config, rpc=RpcConfig(port=0))


def follower(profiler: Profiler, config: DssConfig, clock: ManualClock) -> Follower:
    """A follower as a process just started has it."""
    return Follower(TARGET, profiler, config, clock)


async def counts(profiler: Profiler) -> dict[str, tuple[int, float]]:
    """Version and rows of each partition's newest profile."""
    found = {}
    for date, note in (await profiler.store.notes(DATASET)).items():
        (total,) = [metrics["COUNT"] for market, column, metrics in await profiler.store.profile(DATASET, date) if market == column == ""]
        found[date] = (note.version, total)
    return found


async def inserts(olap: Olap) -> int:
    """Profiles ever stored: each is a row count of its version, merged or not."""
    counted = f"SELECT uniqExact(partition_date, table_version, profiled_at) AS n FROM `{olap.database}`.series WHERE column = ''"
    return int((await olap.rows(counted))["n"][0].as_py())


async def test_what_a_commit_touches_is_profiled_and_nothing_else(
    profiler: Profiler, config: DssConfig, lake_config: LakeConfig, clock: ManualClock, olap: Olap
) -> None:
    """A partition of no date too; compaction is no change."""
    table = open_table(lake_config)
    append(table, [row(CLOSED, 1), row("unknown", 1), row(None, 1)])
    one = follower(profiler, config, clock)
    await one.step()
    assert await counts(profiler) == {CLOSED: (1, 1), "unknown": (1, 1), "": (1, 1)}
    append(table, [row(CLOSED, 2)])
    table.handle.optimize.compact()
    await one.step()
    assert await counts(profiler) == {CLOSED: (3, 2), "unknown": (1, 1), "": (1, 1)}
    table.handle.optimize.compact()
    await one.step()
    assert await inserts(olap) == 4


async def test_a_restart_neither_repeats_nor_skips(
    profiler: Profiler, config: DssConfig, lake_config: LakeConfig, clock: ManualClock, olap: Olap
) -> None:
    """Cut off after its first partition, after the profile but before its standing, and while commits go on."""
    table = open_table(lake_config)
    append(table, [row("2026-03-07", 1), row(CLOSED, 1)])
    # Died after one partition: the other one has no note.
    await profiler.profile(TARGET, table, ["2026-03-07"])
    append(table, [row("2026-03-09", 1)])
    await follower(profiler, config, clock).step()
    assert await counts(profiler) == {"2026-03-07": (1, 1), CLOSED: (2, 1), "2026-03-09": (2, 1)}
    # Died before the standing was told: it is older than the notes.
    append(table, [row(CLOSED, 1)])
    await profiler.profile(TARGET, table, [CLOSED])
    append(table, [row("2026-03-09", 2)])
    await follower(profiler, config, clock).step()
    assert await counts(profiler) == {"2026-03-07": (1, 1), CLOSED: (3, 2), "2026-03-09": (4, 2)}
    done = await inserts(olap)
    await follower(profiler, config, clock).step()
    assert await inserts(olap) == done == 5
    assert (await profiler.store.standings())[DATASET].version == 4


async def test_a_busy_partition_is_profiled_at_intervals(
    profiler: Profiler, config: DssConfig, lake_config: LakeConfig, clock: ManualClock
) -> None:
    """Today's at most every 30 s, also across a restart; a closed one of the same commits at once."""
    table = open_table(lake_config)
    append(table, [row(TODAY, 1)])
    one = follower(profiler, config, clock)
    await one.step()
    append(table, [row(TODAY, 1), row(CLOSED, 1)])
    await clock.sleep(29)
    await one.step()
    assert await counts(profiler) == {TODAY: (1, 1), CLOSED: (2, 1)}
    standing = (await profiler.store.standings())[DATASET]
    assert (standing.version, standing.pending) == (1, 1)
    await follower(profiler, config, clock).step()
    assert (await counts(profiler))[TODAY] == (1, 1)
    await clock.sleep(2)
    await follower(profiler, config, clock).step()
    assert (await counts(profiler))[TODAY] == (2, 2)
    standing = (await profiler.store.standings())[DATASET]
    assert (standing.version, standing.pending, standing.partitions) == (2, 0, 2)


async def test_a_corrected_partition_is_profiled_again(
    profiler: Profiler, config: DssConfig, lake_config: LakeConfig, clock: ManualClock
) -> None:
    """Markets that a correction took away are gone from the newest profile; a partition without rows has none."""
    table = open_table(lake_config)
    append(table, [row(CLOSED, 1), row(CLOSED, 2), row("2026-03-09", 1)])
    one = follower(profiler, config, clock)
    await one.step()
    table.refresh()
    table.handle.delete("event_date = '2026-03-08' AND city_id = 2")
    await one.step()
    assert {market for market, _, _ in await profiler.store.profile(DATASET, CLOSED)} == {"", "1"}
    table.refresh()
    table.handle.delete("event_date = '2026-03-09'")
    await one.step()
    assert await counts(profiler) == {CLOSED: (2, 1), "2026-03-09": (3, 0)}


async def test_a_failed_profile_is_made_later(profiler: Profiler, config: DssConfig, lake_config: LakeConfig, clock: ManualClock) -> None:
    """A data file that is away fails the profile and leaves no note; afterwards a new follower begins where the notes end."""
    table = open_table(lake_config)
    append(table, [row(CLOSED, 1), row("2026-03-09", 1)])
    file = Path(table.uri) / table.files()[0].path
    away = file.rename(file.with_suffix(".away"))
    with pytest.raises(DatabaseError):
        await follower(profiler, config, clock).step()
    assert await counts(profiler) == {}
    away.rename(file)
    await follower(profiler, config, clock).step()
    assert set(await counts(profiler)) == {CLOSED, "2026-03-09"}


async def test_one_table_that_fails_holds_up_no_other(
    profiler: Profiler, config: DssConfig, lake_config: LakeConfig, tmp_path: Path
) -> None:
    """The role profiles every registered table; one without its data is tried again, and is profiled once they are back."""
    broken, good = open_table(lake_config, "curated/a"), open_table(lake_config)
    for table in (broken, good):
        append(table, [row(CLOSED, 1)])
    file = Path(broken.uri) / broken.files()[0].path
    away = file.rename(file.with_suffix(".away"))
    resources = tmp_path / "resources"
    resources.mkdir()
    for number, name in enumerate(("lake/curated/a", "lake/curated/none", DATASET, "kafka/t")):
        document = {"apiVersion": "arterial.dev/v1", "kind": "Dataset", "metadata": {"name": name, "owner": "o"}, "spec": {"tier": 3}}
        (resources / f"{number}.yaml").write_text(json.dumps(document))
    fast = config.model_copy(update={"resources_dir": resources, "profile": ProfileConfig(poll_seconds=0.05)})

    async def profiled(dataset: str) -> bool:
        return CLOSED in await profiler.store.notes(dataset)

    async with running(profile, fast):
        await eventually(lambda: profiled(DATASET), "the good table is profiled")
        assert not await profiled("lake/curated/a")
        away.rename(file)
        await eventually(lambda: profiled("lake/curated/a"), "the broken table is profiled in the end")
    assert set(await profiler.store.standings()) == {"lake/curated/a", DATASET}


def test_what_waits_is_due_oldest_first() -> None:
    """The version told never passes what waits; done is only what the profile has."""
    pending = Pending(scanned=3, notes={TODAY: Note(2, 100.0)})
    commits = [
        Commit(4, tuple(Added(f"{date}.parquet", {"d": date}, 1, 1) for date in (TODAY, CLOSED)), (), {}, True),
        Commit(5, (), ("d=a%25b/x.parquet", "d=__HIVE_DEFAULT_PARTITION__/x.parquet"), {}, True),
    ]
    assert touched(commits[1], "d") == {"a%b", ""}
    pending.add_commits(commits, "d")
    assert (pending.version, pending.scanned) == (3, 5)
    assert pending.due(110.0, TODAY, 30.0) == ["", CLOSED, "a%b"]
    assert pending.due(130.0, TODAY, 30.0) == ["", CLOSED, TODAY, "a%b"]
    pending.done([CLOSED, "", "a%b"], 4, 130.0)
    assert (sorted(pending.waiting), pending.version) == (["", TODAY, "a%b"], 3)
    pending.done([TODAY, "", "a%b"], 5, 131.0)
    assert (pending.waiting, pending.version) == ({}, 5)
