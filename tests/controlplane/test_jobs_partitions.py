"""Partitions over the wire: what follows from verdicts, runs and overrides, who is told, and which runs wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from arterial.api.types.v1 import page_pb2
from chassis import sql
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from services.controlplane.jobs import gating
from services.controlplane.partitions import evidence
from services.controlplane.partitions.partition_store import PartitionStore
from services.controlplane.partitions.partitions import Judged, PartitionKey, Verdict
from services.controlplane.tables import now_of
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import DAY, TRIPS, Stubs, create, get, report, stubs, take, taken, verdict
from tests.terminal import Terminal

REVENUE = "lake/curated/revenue"
READS = [specs_pb2.ModelInput(dataset=TRIPS, days=1)]
ACTOR = (("arterial-actor", "kim"),)


async def found(to: Stubs, dataset: str = TRIPS, day: str = DAY) -> pb.Partition:
    """A partition."""
    reply = await to.partitions.GetPartition(pb.GetPartitionRequest(cell=to.cell, dataset=dataset, partition_date=day))
    partition: pb.Partition = reply.partition
    return partition


async def becomes(to: Stubs, dataset: str, state: pb.PartitionState.ValueType) -> None:
    """Waits until the day's partition has the state."""

    async def probe() -> bool:
        return (await found(to, dataset)).state == state

    await eventually(probe, f"state {state}")


async def override(to: Stubs, state: pb.PartitionState.ValueType, reason: str, dataset: str = TRIPS) -> pb.Partition:
    """Overrides a partition of the day."""
    request = pb.OverridePartitionRequest(cell=to.cell, dataset=dataset, partition_date=DAY, state=state, reason=reason)
    partition: pb.Partition = (await to.partitions.OverridePartition(request, metadata=ACTOR)).partition
    return partition


async def withdraw(to: Stubs) -> pb.Partition:
    """Withdraws the override of the day's trips."""
    request = pb.WithdrawOverrideRequest(cell=to.cell, dataset=TRIPS, partition_date=DAY, reason="corrected")
    partition: pb.Partition = (await to.partitions.WithdrawOverride(request, metadata=ACTOR)).partition
    return partition


async def test_aspects_are_reported_apart_and_kept_apart(shared_plane: ControlPlane) -> None:
    """Each by its own table version; the state follows from all; GetPartition shows what it follows from."""
    async with stubs(shared_plane) as to:
        assert await report(to, verdict(TRIPS, "PASS", 7), verdict(TRIPS, "FAIL", 6, reasons=["2 h late"], aspect="FRESHNESS")) == 1
        partition = await found(to)
        assert (partition.state, list(partition.reasons)) == (pb.PARTITION_STATE_BLOCKED, ["freshness: 2 h late"])
        assert await report(to, verdict(TRIPS, "PASS", 5, aspect="FRESHNESS")) == 0, "older than what is known of its freshness"
        assert await report(to, verdict(TRIPS, "PASS", 6, aspect="FRESHNESS")) == 1
        assert (await found(to)).state == pb.PARTITION_STATE_READY
        reply = await to.partitions.GetPartition(pb.GetPartitionRequest(cell=to.cell, dataset=TRIPS, partition_date=DAY))
        told = [(given.aspect, given.verdict, given.table_version) for given in reply.verdicts]
        assert told == [(pb.ASPECT_FRESHNESS, pb.VERDICT_PASS, 6), (pb.ASPECT_QUALITY, pb.VERDICT_PASS, 7)]
        revision = reply.partition.revision
        assert await report(to, verdict(TRIPS, "PASS", 7)) == 0 and (await found(to)).revision == revision, "nothing new was said"


async def test_of_verdicts_on_one_table_version_the_last_holds(shared_plane: ControlPlane, terminal: Terminal) -> None:
    """Time alone makes a table stale; what is only measured again moves no revision, but is shown."""
    async with stubs(shared_plane) as to:
        for said, version, state in (("PASS", 4, "READY"), ("FAIL", 4, "BLOCKED"), ("PASS", 4, "READY"), ("FAIL", 5, "BLOCKED")):
            await report(to, verdict(TRIPS, "PASS", 9), verdict(TRIPS, said, version, aspect="FRESHNESS", reasons=["late"], value=400.4))
            assert (await found(to)).state == pb.PartitionState.Value(f"PARTITION_STATE_{state}")
        revision = (await found(to)).revision
        await report(to, verdict(TRIPS, "FAIL", 6, aspect="FRESHNESS", reasons=["late"], value=1460.4))
        assert (await found(to)).revision == revision
        await report(to, verdict(TRIPS, "PASS", 6, aspect="COMPLETENESS", value=99.95))
        shown = await terminal.text("partitions", "show", TRIPS, DAY, "--cell", to.cell)
        assert "  freshness: FAIL (1,460 s) at version 6: late\n" in shown
        assert "  completeness: PASS (99.95 %) at version 6\n" in shown and "  quality: PASS at version 9" in shown


async def test_a_dataset_that_is_not_monitored_needs_no_verdict_on_its_quality(shared_plane: ControlPlane) -> None:
    """It must be declared; its completeness alone makes it ready, and what was told before counts."""
    async with stubs(shared_plane) as to:
        name = f"lake/raw/{to.name}"
        await report(to, verdict(name, "PASS", 1, aspect="COMPLETENESS"))
        assert (await found(to, name)).state == pb.PARTITION_STATE_PENDING
        spec = specs_pb2.DatasetSpec(description="d", tier=3)
        resource = resource_pb2.Resource(
            api_version="arterial.dev/v1", kind="Dataset", metadata=resource_pb2.Metadata(name=name), dataset=spec
        )
        await to.control.Apply(control.ApplyRequest(resources=[resource]))
        await becomes(to, name, pb.PARTITION_STATE_READY)
        rule = specs_pb2.QualityRuleSpec(dataset=name, test=specs_pb2.QUALITY_TEST_ROW_COUNT, min=1)
        metadata = resource_pb2.Metadata(name=f"rows-{to.name}")
        judged = resource_pb2.Resource(api_version="arterial.dev/v1", kind="QualityRule", metadata=metadata, quality_rule=rule)
        await to.control.Apply(control.ApplyRequest(resources=[judged]))
        await becomes(to, name, pb.PARTITION_STATE_PENDING)
        await to.control.DeleteResource(control.DeleteResourceRequest(kind="QualityRule", name=metadata.name))
        await becomes(to, name, pb.PARTITION_STATE_READY)


async def test_declarations_are_followed_from_where_that_ended(plane: ControlPlane) -> None:
    """A control plane that begins again looks at what was declared since it ended, not at all partitions that there are."""
    asked: list[int] = []

    async def otherwise(since: int) -> list[str]:
        asked.append(since)
        return []

    async with stubs(plane) as to:
        await report(to, verdict(TRIPS, "PASS", 1))
        request = control.ListChangesRequest(page=page_pb2.PageRequest(page_size=1))
        newest = (await to.control.ListChanges(request)).changes[0].resource_version
    await plane.stop()
    engine = sql.engine(plane.config.sql)
    for version in (newest, newest + 5, newest + 5, newest + 6):
        await PartitionStore(engine).reconsider(version, otherwise)
    await engine.dispose()
    assert asked == [newest, newest + 5]


async def test_an_override_releases_what_waits_is_shown_and_can_be_withdrawn(shared_plane: ControlPlane) -> None:
    """A run that reads the partition runs by it, and is suspended when it is withdrawn; the record keeps who and why."""
    async with stubs(shared_plane) as to:
        await report(to, verdict(TRIPS, "FAIL", 1, reasons=["half the rows"]))
        run = (await create(to, "report", "daily", inputs=READS)).run
        assert run.state == jobs.RUN_STATE_SUSPENDED
        partition = await override(to, pb.PARTITION_STATE_READY, "half is enough")
        assert (partition.state, partition.judged_state) == (pb.PARTITION_STATE_READY, pb.PARTITION_STATE_BLOCKED)
        assert list(partition.reasons) == ["overridden by kim: half is enough", "without it BLOCKED: half the rows"]
        assert await report(to, verdict(TRIPS, "FAIL", 2, reasons=["a third of the rows"])) == 0, "an override holds until it is withdrawn"
        given = await take(to, "report")
        assert given.run.run_id == run.run_id
        partition = await withdraw(to)
        assert (partition.state, list(partition.reasons)) == (pb.PARTITION_STATE_BLOCKED, ["a third of the rows"])
        assert not partition.HasField("override")
        with pytest.raises(ArterialError) as caught:
            await to.jobs.KeepRun(jobs.KeepRunRequest(run_id=run.run_id, lease=given.lease))
        assert f"{TRIPS} {DAY} is BLOCKED: a third of the rows" in caught.value.message
        with pytest.raises(ArterialError) as caught:
            await withdraw(to)
        assert caught.value.reason is Reason.NOT_FOUND
        await override(to, pb.PARTITION_STATE_BLOCKED, "first")
        await override(to, pb.PARTITION_STATE_READY, "second")
        record = (await to.partitions.ListOverrides(pb.ListOverridesRequest(cell=to.cell))).overrides
        assert [(made.reason, made.actor, made.withdrawn_by, made.withdrawn_because) for made in record] == [
            ("second", "kim", "", ""),
            ("first", "kim", "kim", "another override: second"),
            ("half is enough", "kim", "kim", "corrected"),
        ]


async def test_a_run_that_is_asked_for_while_its_partition_is_marked_hears_of_it(shared_plane: ControlPlane) -> None:
    """Who marks has not seen the run, so the run waits for the mark."""
    async with stubs(shared_plane) as to:
        await report(to, verdict(TRIPS, "PASS", 1))
        engine = sql.engine(shared_plane.config.sql)
        key = PartitionKey(TRIPS, date.fromisoformat(DAY))
        async with engine.begin() as connection:
            revision = await gating.hold(connection, to.cell)
            await evidence.keep_verdicts(connection, to.cell, [Judged(key, Verdict.FAIL, 2)], await now_of(connection))
            await evidence.settle(connection, to.cell, [key], revision)
            creating = asyncio.create_task(create(to, "report", "daily", inputs=READS))
            await asyncio.wait({creating}, timeout=0.3)
        await engine.dispose()
        assert (await creating).run.state == jobs.RUN_STATE_SUSPENDED


async def test_a_partition_is_running_or_failed_as_the_run_that_makes_it(shared_plane: ControlPlane) -> None:
    """What reads it waits and names the run; after the run it waits for verdicts, and is released by them."""
    async with stubs(shared_plane) as to:
        making = (await create(to, "sum", "revenue", produces=[REVENUE], max_attempts=1)).run
        reading = (await create(to, "report", "daily", inputs=[specs_pb2.ModelInput(dataset=REVENUE, days=1)])).run
        lease = (await taken(to, "sum")).lease
        await becomes(to, REVENUE, pb.PARTITION_STATE_RUNNING)
        assert list((await get(to, reading.run_id)).reasons) == [f"{REVENUE} {DAY} is RUNNING: {making.run_id}, which makes it, is RUNNING"]
        await to.jobs.FinishRun(jobs.FinishRunRequest(run_id=making.run_id, lease=lease, reason="disk full"))
        await becomes(to, REVENUE, pb.PARTITION_STATE_FAILED)
        assert (await found(to, REVENUE)).run_id == making.run_id
        assert "disk full" in (await get(to, reading.run_id)).reasons[0]
        again = (await create(to, "sum", "revenue", produces=[REVENUE], again=True)).run
        given = await taken(to, "sum")
        assert given.run.run_id == again.run_id
        await to.jobs.FinishRun(jobs.FinishRunRequest(run_id=again.run_id, lease=given.lease, succeeded=True))
        await becomes(to, REVENUE, pb.PARTITION_STATE_PENDING)
        await report(to, verdict(REVENUE, "PASS", 1))
        assert (await get(to, reading.run_id)).state == jobs.RUN_STATE_PENDING


@asynccontextmanager
async def watching(to: Stubs, **request: object) -> AsyncIterator[AsyncIterator[pb.WatchPartitionsResponse]]:
    """A stream of the cell's partitions."""
    call = to.partitions.WatchPartitions(pb.WatchPartitionsRequest(cell=to.cell, **request))  # type: ignore[arg-type]
    yield call.__aiter__()
    call.cancel()


async def until_synced(events: AsyncIterator[pb.WatchPartitionsResponse]) -> tuple[list[tuple[str, pb.PartitionState.ValueType]], int]:
    """Partitions told before the client has everything, and the revision that it then has."""
    told: list[tuple[str, pb.PartitionState.ValueType]] = []
    while True:
        event = await asyncio.wait_for(anext(events), 60)
        if not event.HasField("partition"):
            return told, event.revision
        told.append((event.partition.partition_date, event.partition.state))


async def test_consumers_watch_partitions_and_go_on_where_they_were(shared_plane: ControlPlane) -> None:
    """What there is, then each change; with the last revision nothing is told twice; with one of the future everything is."""
    async with stubs(shared_plane) as to:
        ready, blocked = pb.PARTITION_STATE_READY, pb.PARTITION_STATE_BLOCKED
        await report(to, verdict(TRIPS, "PASS", 1, "2026-11-22"), verdict(REVENUE, "PASS", 1), verdict(TRIPS, "PASS", 1, "2026-11-23"))
        async with watching(to, dataset=TRIPS) as events:
            told, revision = await until_synced(events)
            assert sorted(told) == [("2026-11-22", ready), ("2026-11-23", ready)]
            await report(to, verdict(TRIPS, "FAIL", 2, "2026-11-22"))
            # Changes of other cells, and time, may make the stream say before it that there is nothing more.
            while not (told := (await until_synced(events))[0]):
                pass
            assert told == [("2026-11-22", blocked)]
        await report(to, verdict(REVENUE, "FAIL", 2), verdict(TRIPS, "FAIL", 2))
        async with watching(to, dataset=TRIPS, revision=revision) as events:
            assert sorted((await until_synced(events))[0]) == [("2026-11-22", blocked), (DAY, blocked)]
        async with watching(to, revision=revision + 1000) as events:
            assert len((await until_synced(events))[0]) == 4
