"""What was made from a partition that is withheld is withheld, too, near or far, with the reason; a release frees it."""

from typing import Any

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from chassis.testing import eventually
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import DAY, PAYMENTS, TRIPS, Stubs, create, get, report, stubs, taken, verdict

BEFORE = "2026-11-23"


async def made(to: Stubs, dataset: str, *inputs: str, days: int = 1) -> None:
    """A run has made the day's partition of a dataset from those of others, and quality passed."""
    read = [specs_pb2.ModelInput(dataset=name, days=days) for name in inputs]
    run = (await create(to, f"make-{dataset}", dataset, inputs=read, produces=[dataset])).run
    given = await taken(to, f"make-{dataset}")
    assert given.run.run_id == run.run_id, run.reasons
    await to.jobs.FinishRun(jobs.FinishRunRequest(run_id=run.run_id, lease=given.lease, succeeded=True))
    await report(to, verdict(dataset, "PASS", 1))


async def shown(to: Stubs, dataset: str) -> tuple[str, list[str]]:
    """State of the day's partition, and why."""
    reply = await to.partitions.GetPartition(pb.GetPartitionRequest(cell=to.cell, dataset=dataset, partition_date=DAY))
    return pb.PartitionState.Name(reply.partition.state).removeprefix("PARTITION_STATE_"), list(reply.partition.reasons)


async def test_a_blocked_partition_withholds_all_that_was_made_from_it(shared_plane: ControlPlane) -> None:
    """A diamond of four and a run that reads its end: each names the first cause; a release frees all of them, the run included."""
    async with stubs(shared_plane) as to:
        await report(to, verdict("a", "PASS", 1), verdict("a", "PASS", 1, BEFORE))
        await made(to, "b", "a", days=2)
        await made(to, "c", "a", "b")
        await made(to, "d", "c")
        reader = (await create(to, "read", "d", inputs=[specs_pb2.ModelInput(dataset="d", days=1)])).run
        assert reader.state == jobs.RUN_STATE_PENDING
        await report(to, verdict("a", "FAIL", 2, BEFORE, ["half the rows"]))
        why = f"made from a {BEFORE}, which is BLOCKED: half the rows"
        assert [await shown(to, name) for name in "abcd"] == [("READY", [])] + [("BLOCKED", [why])] * 3
        suspended = await get(to, reader.run_id)
        assert (suspended.state, list(suspended.reasons)) == (jobs.RUN_STATE_SUSPENDED, [f"d {DAY} is BLOCKED: {why}"])
        await report(to, verdict("b", "FAIL", 2, reasons=["twice the rows"]))
        assert (await shown(to, "c"))[1] == [f"made from b {DAY}, which is BLOCKED: twice the rows", why]
        await report(to, verdict("a", "PASS", 3, BEFORE))
        assert [(await shown(to, name))[0] for name in "abcd"] == ["READY", "BLOCKED", "BLOCKED", "BLOCKED"]
        await report(to, verdict("b", "PASS", 3))
        assert [await shown(to, name) for name in "abcd"] == [("READY", [])] * 4
        assert (await get(to, reader.run_id)).state == jobs.RUN_STATE_PENDING


async def test_an_override_frees_what_was_made_from_it(shared_plane: ControlPlane) -> None:
    """An operator who lets one through lets its descendants through; one who blocks it blocks them."""
    async with stubs(shared_plane) as to:
        await report(to, verdict("a", "PASS", 1))
        await made(to, "b", "a")
        await made(to, "c", "b")
        given: dict[str, Any] = {"cell": to.cell, "dataset": "b", "partition_date": DAY, "reason": "seen"}
        await to.partitions.OverridePartition(pb.OverridePartitionRequest(state=pb.PARTITION_STATE_BLOCKED, **given))
        state, reasons = await shown(to, "c")
        assert state == "BLOCKED" and "seen" in reasons[0]
        await to.partitions.OverridePartition(pb.OverridePartitionRequest(state=pb.PARTITION_STATE_READY, **given))
        await report(to, verdict("a", "UNKNOWN", 2, reasons=["no statistics"]))
        assert ((await shown(to, "b"))[0], await shown(to, "c")) == ("READY", ("READY", []))
        await to.partitions.WithdrawOverride(pb.WithdrawOverrideRequest(**given))
        why = f"made from a {DAY}, which is UNKNOWN: no statistics"
        assert [await shown(to, name) for name in "bc"] == [("UNKNOWN", [why])] * 2


async def test_partitions_that_were_made_from_each_other_do_not_hold_each_other_up(shared_plane: ControlPlane) -> None:
    """Whoever declares such runs gets no endless loop, and no partition that stays blocked for its own sake by way of another."""
    async with stubs(shared_plane) as to:
        await report(to, verdict("a", "PASS", 1), verdict("b", "PASS", 1))
        await made(to, "a", "b")
        await made(to, "b", "a")
        await report(to, verdict("a", "FAIL", 2, reasons=["half the rows"]))
        assert [await shown(to, name) for name in "ab"] == [
            ("BLOCKED", ["half the rows"]),
            ("BLOCKED", [f"made from a {DAY}, which is BLOCKED: half the rows"]),
        ]
        await report(to, verdict("b", "UNKNOWN", 2, reasons=["no statistics"]))
        assert [await shown(to, name) for name in "ab"] == [
            ("BLOCKED", ["half the rows", f"made from b {DAY}, which is UNKNOWN: no statistics"]),
            ("BLOCKED", [f"made from a {DAY}, which is BLOCKED: half the rows", "no statistics"]),
        ]
        await report(to, verdict("a", "PASS", 3))
        assert [await shown(to, name) for name in "ab"] == [
            ("UNKNOWN", [f"made from b {DAY}, which is UNKNOWN: no statistics"]),
            ("UNKNOWN", ["no statistics"]),
        ]
        await report(to, verdict("b", "PASS", 3))
        assert [await shown(to, name) for name in "ab"] == [("READY", [])] * 2


async def test_a_run_that_reads_what_it_makes_says_so_and_no_more(shared_plane: ControlPlane) -> None:
    """It waits for itself; its reasons do not grow with each verdict."""
    async with stubs(shared_plane) as to:
        read = [specs_pb2.ModelInput(dataset=name, days=1) for name in "ab"]
        run = (await create(to, "merge", "ab", inputs=read, produces=["a", "b"])).run

        async def waits() -> bool:
            return (await shown(to, "a"))[1] == [f"{run.run_id}, which makes it, is SUSPENDED"]

        await eventually(waits, "the partition waits for its run")
        for version in range(3):
            await report(to, *(verdict(name, "PASS", version, aspect="FRESHNESS", value=float(version)) for name in "ab"))
        waiting = [f"{name} {DAY} is PENDING: {run.run_id}, which makes it, is SUSPENDED" for name in "ab"]
        assert sorted((await get(to, run.run_id)).reasons) == waiting


async def test_asking_for_it_to_be_made_anew_frees_nothing(shared_plane: ControlPlane) -> None:
    """Until that run has succeeded, the rows are those that were made from what is withheld."""
    async with stubs(shared_plane) as to:
        await report(to, verdict("a", "PASS", 1), verdict("z", "PASS", 1))
        await made(to, "b", "a")
        await report(to, verdict("a", "FAIL", 2, reasons=["half the rows"]))
        withheld = ("BLOCKED", [f"made from a {DAY}, which is BLOCKED: half the rows"])
        given: dict[str, Any] = {"inputs": [specs_pb2.ModelInput(dataset="z", days=1)], "produces": ["b"], "again": True}
        run = (await create(to, "make-b", "b", **given)).run

        async def heard_of() -> bool:
            wanted = pb.GetPartitionRequest(cell=to.cell, dataset="b", partition_date=DAY)
            return bool((await to.partitions.GetPartition(wanted)).partition.run_id == run.run_id)

        await eventually(heard_of, "the partition hears of its new run")
        assert await shown(to, "b") == withheld
        lease = (await taken(to, "make-b")).lease
        await to.jobs.FinishRun(jobs.FinishRunRequest(run_id=run.run_id, lease=lease, succeeded=True))

        async def free() -> bool:
            return await shown(to, "b") == ("READY", [])

        await eventually(free, "what was made from another is free")


def curated_table(name: str, source: str) -> resource_pb2.Resource:
    """A curated table of one source."""
    spec = specs_pb2.CuratedTableSpec(sql=f"SELECT trip_id, event_time FROM `{source}`", keys=["trip_id"], time_column="event_time")
    metadata = resource_pb2.Metadata(name=name, owner="data-platform")
    return resource_pb2.Resource(api_version="arterial.dev/v1", kind="CuratedTable", metadata=metadata, curated_table=spec)


@pytest.mark.parametrize("quality", ["", "PASS"])
async def test_a_curated_table_is_withheld_with_its_sources(shared_plane: ControlPlane, quality: str) -> None:
    """Date by date, whether or not somebody has judged it already."""
    async with stubs(shared_plane) as to:
        source, name = "lake/curated/trips", f"rides-{to.name}"
        await to.control.Apply(control.ApplyRequest(resources=[curated_table(name, source)]))
        if quality:
            await report(to, verdict(f"lake/curated/{name}", quality, 1))
        await report(to, verdict(source, "FAIL", 1, reasons=["half the rows"]))
        why = [f"made from {source} {DAY}, which is BLOCKED: half the rows"]
        assert await shown(to, f"lake/curated/{name}") == ("BLOCKED", why)
        await report(to, verdict(source, "PASS", 2))
        assert (await shown(to, f"lake/curated/{name}"))[0] == ("READY" if quality else "PENDING")
        await to.control.DeleteResource(
            control.DeleteResourceRequest(kind="CuratedTable", name=name, approvals=[f"CuratedTable/{name}:deleted"])
        )


async def test_a_release_reaches_what_is_declared_to_read_another_source_since(shared_plane: ControlPlane) -> None:
    """Its rows were made from the former one: it is freed with that, and not left blocked for ever."""
    async with stubs(shared_plane) as to:
        source, other, name = TRIPS, PAYMENTS, f"rides-{to.name}"
        await to.control.Apply(control.ApplyRequest(resources=[curated_table(name, source)]))
        await report(to, verdict(source, "FAIL", 1, reasons=["half the rows"]))
        assert (await shown(to, f"lake/curated/{name}"))[0] == "BLOCKED"
        await to.control.Apply(control.ApplyRequest(resources=[curated_table(name, other)]))
        assert (await shown(to, f"lake/curated/{name}"))[0] == "BLOCKED"
        await report(to, verdict(source, "PASS", 2))
        assert (await shown(to, f"lake/curated/{name}"))[0] == "PENDING"
        await to.control.DeleteResource(
            control.DeleteResourceRequest(kind="CuratedTable", name=name, approvals=[f"CuratedTable/{name}:deleted"])
        )
