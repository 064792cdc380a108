"""What is declared no longer: its data go after their retention, unless it is declared again or somebody cancels that."""

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as partitions
from chassis import sql, testing
from chassis.config import CellConfig, ServiceConfig
from chassis.desired import Desired, DesiredFeed
from chassis.errors import ArterialError, Reason
from chassis.jobs import RETIRE_RECORDS, RETIRE_STATISTICS, RETIRE_TABLES
from chassis.resources import Key
from chassis.retiring import retire
from chassis.testing import eventually
from services.controlplane.jobs.run_store import RunStore
from services.controlplane.jobs.runs import Outcome
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import Stubs, create, get, report, schedule, stubs, taken, verdict

DAYS = 86_400
MESSAGE = "arterial.api.events.v1.TripEvent"


def named(kind: str, name: str, **spec: Any) -> resource_pb2.Resource:
    """A resource of the data platform."""
    metadata = resource_pb2.Metadata(name=name, owner="data-platform")
    return resource_pb2.Resource(api_version="arterial.dev/v1", kind=kind, metadata=metadata, **spec)


def topic(name: str, **more: Any) -> resource_pb2.Resource:
    """A topic whose records stay for a day."""
    return named("Topic", name, topic=specs_pb2.TopicSpec(message=MESSAGE, key_field="city_id", retention_seconds=DAYS, **more))


def dataset(name: str, days: int) -> resource_pb2.Resource:
    """A dataset whose rows stay so many days."""
    return named("Dataset", name, dataset=specs_pb2.DatasetSpec(tier=3, retention_seconds=days * DAYS))


async def apply(to: Stubs, *resources: resource_pb2.Resource) -> None:
    """Declares resources."""
    await to.control.Apply(control.ApplyRequest(resources=resources))


async def delete(to: Stubs, kind: str, name: str) -> Sequence[control.Retirement]:
    """Removes a resource, approved; what will be dropped."""
    request = control.DeleteResourceRequest(kind=kind, name=name, approvals=[f"{kind}/{name}:deleted"])
    return list((await to.control.DeleteResource(request)).retirements)


def _named(dataset_name: str) -> control.ResourceName:
    return control.ResourceName(kind="Dataset", name=dataset_name)


async def make_due(plane: ControlPlane, retirements: Sequence[control.Retirement]) -> None:
    """Lets their retention pass."""
    engine = sql.engine(plane.config.sql)
    async with engine.begin() as connection:
        numbers = [int(each.run_id.removeprefix("run-")) for each in retirements]
        await connection.execute(sa.text("UPDATE runs SET due_at = now() WHERE number = ANY(:numbers)"), {"numbers": numbers})
    await engine.dispose()


async def test_data_go_after_the_longest_retention_that_was_promised(shared_plane: ControlPlane) -> None:
    """A removal says what, and when; who described the data may be gone longer; an adopted topic's records stay."""
    name = f"gone_{uuid.uuid4().hex[:8]}"
    async with stubs(shared_plane) as to:
        await apply(to, topic(name), dataset(f"lake/raw/{name}", 3), dataset(f"lake/curated/{name}", 30), dataset(f"kafka/{name}", 900))
        with pytest.raises(ArterialError, match=f"Dataset/lake/raw/{name}") as caught:
            await delete(to, "Topic", name)
        assert caught.value.reason is Reason.REFUSED
        gone = [
            control.ResourceName(kind="Topic", name=name),
            *(_named(f"{zone}/{name}") for zone in ("lake/raw", "lake/curated", "kafka")),
        ]
        planned = await to.control.Plan(control.PlanRequest(removals=gone))
        assert planned.changes[0].fields[0].reason.startswith("its data are dropped 30 days later")
        for described in (f"lake/raw/{name}", f"lake/curated/{name}", f"kafka/{name}"):
            assert not await delete(to, "Dataset", described)
        found = await delete(to, "Topic", name)
        assert [each.drops for each in found if each.cell == "local"] == ["records", "tables", "statistics"]
        assert {(each.kind, each.name) for each in found} == {("Topic", name)}
        for each in found:
            waits = each.due_at.ToDatetime(UTC) - datetime.now(UTC)
            assert timedelta(days=29.9) < waits <= timedelta(days=30)
            run = await get(to, each.run_id)
            assert (run.subject, run.state) == (f"Topic/{name}", jobs.RUN_STATE_PENDING)
        adopted = topic(f"adopted_{name}", adoption=specs_pb2.Adoption(id="a", time="b"), routing=specs_pb2.ROUTING_ANY)
        await apply(to, adopted)
        found = await delete(to, "Topic", adopted.metadata.name)
        assert [each.drops for each in found if each.cell == "local"] == ["tables", "statistics"]
        assert found[0].due_at.ToDatetime(UTC) - datetime.now(UTC) > timedelta(days=364), "what nobody described is of tier 3"


async def test_what_is_declared_again_keeps_its_data(shared_plane: ControlPlane) -> None:
    """The runs are cancelled with the same change; while one is at work, the change is refused."""
    name = f"again_{uuid.uuid4().hex[:8]}"
    async with stubs(shared_plane, "local") as to:
        await apply(to, topic(name))
        found = await delete(to, "Topic", name)
        await apply(to, topic(name))
        for each in found:
            run = await get(to, each.run_id)
            assert (run.state, list(run.reasons)) == (jobs.RUN_STATE_CANCELLED, [f"cancelled: Topic/{name} is declared again"])
        again = await delete(to, "Topic", name)
        assert not {each.run_id for each in again} & {each.run_id for each in found}
        await make_due(shared_plane, again)
        request = jobs.TakeRunRequest(worker="w", cell="local", kinds=[RETIRE_TABLES], lease_seconds=60)
        taken = await to.jobs.TakeRun(request)
        assert taken.run.subject == f"Topic/{name}"
        with pytest.raises(ArterialError, match=taken.run.run_id) as caught:
            await apply(to, topic(name))
        assert caught.value.reason is Reason.CONFLICT
        failed = jobs.FinishRunRequest(run_id=taken.run.run_id, lease=taken.lease, reason="away")
        await to.jobs.FinishRun(failed)
        await apply(to, topic(name))


async def test_what_is_declared_again_over_its_data_goes_through_the_same_doors(shared_plane: ControlPlane) -> None:
    """As long as they are there, another key is as hard to undo as it was before the removal; afterwards it begins anew."""
    name = f"doors_{uuid.uuid4().hex[:8]}"
    async with stubs(shared_plane, "local") as to:
        await apply(to, topic(name, partitions=8))
        await delete(to, "Topic", name)
        other = topic(name)
        other.topic.key_field = "region"
        with pytest.raises(ArterialError) as caught:
            await apply(to, other)
        assert caught.value.metadata["approvals"] == f"Topic/{name}:spec.keyField,Topic/{name}:spec.partitions"
        planned = await to.control.Plan(control.PlanRequest(resources=[topic(name, partitions=8)]))
        assert not [field for field in planned.changes[0].fields if field.one_way_door]
        engine = sql.engine(shared_plane.config.sql)
        async with engine.begin() as connection:
            subject = {"subject": f"Topic/{name}"}
            await connection.execute(sa.text("UPDATE runs SET state = 'SUCCEEDED' WHERE subject = :subject"), subject)
        await engine.dispose()
        await apply(to, other)


async def test_what_was_dropped_in_part_is_dropped_whole_before_it_begins_anew(shared_plane: ControlPlane) -> None:
    """Tables beside new records would hold progress in records that are gone; what another cell has is another matter."""
    name = f"part_{uuid.uuid4().hex[:8]}"
    async with stubs(shared_plane) as to:
        await apply(to, topic(name), named("Cell", to.cell, cell=specs_pb2.CellSpec(region="there")))
        found = [each for each in await delete(to, "Topic", name) if each.cell == to.cell]
        await make_due(shared_plane, found)
        held = await taken(to, RETIRE_RECORDS)
        await to.jobs.FinishRun(jobs.FinishRunRequest(run_id=held.run.run_id, lease=held.lease, succeeded=True))
        left = next(each for each in found if each.drops == "tables")
        with pytest.raises(ArterialError, match=f"being dropped in cell {to.cell} by {left.run_id}") as caught:
            await apply(to, topic(name))
        assert caught.value.reason is Reason.CONFLICT
        for kind in (RETIRE_TABLES, RETIRE_STATISTICS):
            held = await taken(to, kind)
            await to.jobs.FinishRun(jobs.FinishRunRequest(run_id=held.run.run_id, lease=held.lease, succeeded=True))
        await apply(to, topic(name))


async def test_a_table_that_is_to_be_dropped_is_no_other_resources(shared_plane: ControlPlane) -> None:
    """Else the run would drop what is declared; nor do a topic and a curated table have one name at a time."""
    name = f"same_{uuid.uuid4().hex[:8]}"
    sql_text = "SELECT trip_id, event_time FROM `lake/curated/trips`"
    table = named("CuratedTable", name, curated_table=specs_pb2.CuratedTableSpec(sql=sql_text, keys=["trip_id"], time_column="event_time"))
    async with stubs(shared_plane) as to:
        for first, second in ((table, topic(name)), (topic(name), table)):
            with pytest.raises(ArterialError, match=f"curated/{name}") as caught:
                await apply(to, first, second)
            assert caught.value.reason is Reason.INVALID_REQUEST
            await apply(to, first)
            found = await delete(to, first.kind, name)
            with pytest.raises(ArterialError, match=f"lake/curated/{name} of the former {first.kind}/{name}") as caught:
                await apply(to, second)
            assert caught.value.reason is Reason.CONFLICT
            for each in found:
                await to.jobs.CancelRun(jobs.CancelRunRequest(run_id=each.run_id, reason="test"))


async def test_what_was_kept_can_be_dropped_after_all(shared_plane: ControlPlane) -> None:
    """When it was due, and not before; not what was declared again, also if it is removed once more: that has another date."""
    name = f"kept_{uuid.uuid4().hex[:8]}"

    async def retry(run_id: str) -> jobs.Run:
        run: jobs.Run = (await to.jobs.RetryRun(jobs.RetryRunRequest(run_id=run_id, reason="not needed"))).run
        return run

    async with stubs(shared_plane) as to:
        await apply(to, topic(name))
        (records, *_) = await delete(to, "Topic", name)
        await to.jobs.CancelRun(jobs.CancelRunRequest(run_id=records.run_id, reason="keep them"))
        again = await retry(records.run_id)
        assert (again.state, again.due_at) == (jobs.RUN_STATE_PENDING, records.due_at)
        await apply(to, topic(name))
        with pytest.raises(ArterialError, match=f"Topic/{name} is declared") as caught:
            await retry(records.run_id)
        assert caught.value.reason is Reason.REFUSED
        (later, *_) = await delete(to, "Topic", name)
        with pytest.raises(ArterialError, match=f"{later.run_id} was asked for since"):
            await retry(records.run_id)


async def test_partitions_are_forgotten_also_if_the_control_plane_ends_between(shared_plane: ControlPlane) -> None:
    """The run has succeeded, and nobody repeats the call."""
    name, day = f"torn_{uuid.uuid4().hex[:8]}", "2026-11-20"
    async with stubs(shared_plane) as to:
        await apply(to, topic(name), named("Cell", to.cell, cell=specs_pb2.CellSpec(region="there")))
        await report(to, verdict(f"lake/raw/{name}", "PASS", 500, day))
        await make_due(shared_plane, [each for each in await delete(to, "Topic", name) if each.cell == to.cell])
        held = await taken(to, RETIRE_TABLES)
        engine = sql.engine(shared_plane.config.sql)
        await RunStore(engine).finish(held.run.run_id, held.lease, Outcome(True), ())
        await engine.dispose()

        async def forgotten() -> bool:
            wanted = partitions.GetPartitionRequest(cell=to.cell, dataset=f"lake/raw/{name}", partition_date=day)
            return bool((await to.partitions.GetPartition(wanted)).partition.state == partitions.PARTITION_STATE_PENDING)

        await eventually(forgotten, "the partition is pending again")
        assert await report(to, verdict(f"lake/raw/{name}", "PASS", 0, day)) == 1


async def test_partitions_of_dropped_tables_are_pending_again(shared_plane: ControlPlane) -> None:
    """Verdicts are forgotten, overrides end, watchers hear of it: the next table of that name begins at version 0."""
    name, day = f"marked_{uuid.uuid4().hex[:8]}", "2026-11-20"
    async with stubs(shared_plane) as to:
        cell = named("Cell", to.cell, cell=specs_pb2.CellSpec(region="there"))
        await apply(to, topic(name), cell)
        curated, raw = f"lake/curated/{name}", f"lake/raw/{name}"
        await report(to, verdict(curated, "PASS", 500, day), verdict(raw, "FAIL", 7, day, ["half the rows"]))
        override = partitions.OverridePartitionRequest(
            cell=to.cell, dataset=raw, partition_date=day, state=partitions.PARTITION_STATE_READY, reason="known"
        )
        before = (await to.partitions.OverridePartition(override)).partition
        found = [each for each in await delete(to, "Topic", name) if each.cell == to.cell]
        await make_due(shared_plane, found)
        held = await taken(to, RETIRE_TABLES)
        finish = jobs.FinishRunRequest(run_id=held.run.run_id, lease=held.lease, succeeded=True)
        await asyncio.gather(*(to.jobs.FinishRun(finish) for _ in range(2)))
        for dataset_name in (curated, raw):
            wanted = partitions.GetPartitionRequest(cell=to.cell, dataset=dataset_name, partition_date=day)
            told = await to.partitions.GetPartition(wanted)
            assert (told.partition.state, told.partition.table_version) == (partitions.PARTITION_STATE_PENDING, -1)
            assert not told.verdicts and not told.partition.HasField("override") and told.partition.revision > before.revision
        assert await report(to, verdict(curated, "PASS", 0, day)) == 1


async def test_a_worker_drops_what_it_does_not_know_as_declared(shared_plane: ControlPlane, tmp_path: Path) -> None:
    """Whoever has not heard of the removal, or not ended its work, may write still: the attempt fails and says why; what drops may, too."""
    name = f"worked_{uuid.uuid4().hex[:8]}"
    dropped: list[Key] = []
    worked_on = {("Topic", name)}

    async def drop(key: Key) -> list[str]:
        dropped.append(key)
        if len(dropped) == 1:
            raise OSError("the store is away")
        return [f"lake/raw/{key[1]}"]

    async with stubs(shared_plane) as to:
        declared = topic(name)
        await apply(to, declared, named("Cell", to.cell, cell=specs_pb2.CellSpec(region="there")))
        (run,) = [each for each in await delete(to, "Topic", name) if (each.cell, each.drops) == (to.cell, "tables")]
        await make_due(shared_plane, [run])
        config = ServiceConfig(state_dir=tmp_path, control_plane=shared_plane.address, cell=CellConfig(name=to.cell))
        feed, context = DesiredFeed(Desired((declared,), 1), tmp_path, None), testing.context()
        working = asyncio.create_task(retire(config, context, feed, {RETIRE_TABLES: drop}, worked_on.__contains__, poll_seconds=0.1))

        async def failed(why: str) -> bool:
            return any(why in reason for reason in (await get(to, run.run_id)).reasons)

        await eventually(lambda: failed("is declared here still"), "an attempt that was refused")
        feed.replace(Desired((), 2))
        refused = (await get(to, run.run_id)).attempt

        async def tried_again() -> bool:
            return (await get(to, run.run_id)).attempt >= refused + 2

        await eventually(tried_again, "attempts while a loop is at work on it")
        assert not dropped
        worked_on.clear()
        await eventually(lambda: failed("OSError: the store is away"), "an attempt that failed")

        async def done() -> bool:
            return (await get(to, run.run_id)).state == jobs.RUN_STATE_SUCCEEDED

        await eventually(done, "tables dropped")
        context.stopping.set()
        await working
        assert dropped == [("Topic", name)] * 2 and (await get(to, run.run_id)).outputs["dropped"] == f"lake/raw/{name}"


async def test_nobody_else_can_ask_for_data_to_be_dropped(shared_plane: ControlPlane) -> None:
    """Neither a run nor a schedule of these kinds; and what was to be dropped is kept by cancelling."""
    async with stubs(shared_plane) as to:
        for kind in (RETIRE_RECORDS, RETIRE_TABLES, RETIRE_STATISTICS):
            with pytest.raises(ArterialError, match="only the removal") as caught:
                await create(to, kind, "Topic/trip_events_v2")
            assert [each.field for each in caught.value.violations] == ["kind"]
            with pytest.raises(ArterialError) as caught:
                await apply(to, schedule(to, run_kind=kind))
            assert [each.field for each in caught.value.violations] == ["resources[0].spec.runKind"]
