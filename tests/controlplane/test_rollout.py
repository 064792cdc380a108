"""Changes that go from cell to cell: who sees what, what lets them go on, and what stops them."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2 as wire
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2_grpc
from chassis import sql, testing
from chassis.config import CellConfig, ServiceConfig
from chassis.desired import DesiredFeed, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.reporting import Standing
from chassis.resources import FIELD_OF_KIND
from chassis.testing import channel, eventually
from services.controlplane.models.model_store import ModelStore
from services.controlplane.registry.catalogue import Catalogue
from services.controlplane.registry.configuration import Configuration
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.resources.applying import Applying
from services.controlplane.resources.declared_schemas import DeclaredSchemas
from services.controlplane.resources.dependents import Dependents
from services.controlplane.resources.store import ResourceStore, Why
from services.controlplane.rollouts import rollouts
from services.controlplane.rollouts.rollout_store import RolloutStore
from services.controlplane.rollouts.rollouts import Rollout, RolloutState, Terms
from services.controlplane.watch.statuses import Reporter
from tests.controlplane.conftest import ControlPlane, running_plane
from tests.controlplane.stubs import Stubs, stubs
from tests.terminal import Terminal

NOW = datetime(2026, 11, 25, tzinfo=UTC)
TERMS = Terms(soak_seconds=10, timeout_seconds=60)
GOOD, BAD = Standing(True, "Running"), Standing(False, "StepFailed", "no such column")


def rollout(shown: int = 1) -> Rollout:
    """Generation 4 on its way to eu, then us."""
    return Rollout("Pipeline", "raw", 4, ("eu", "us"), shown, RolloutState.RUNNING, "", NOW, NOW)


def report(status: str, generation: int = 4, where: str = "eu", component: str = "stream") -> tuple[Reporter, resource_pb2.Status]:
    """What a process says."""
    condition = resource_pb2.Condition(type="Ready", status=status, reason="Because", observed_generation=generation)
    return Reporter(where, component), resource_pb2.Status(observed_generation=generation, conditions=[condition])


def after(seconds: float, *reports: tuple[Reporter, resource_pb2.Status], shown: int = 1) -> tuple[RolloutState, int, str]:
    """State, cells shown and reason after so long."""
    judged = rollouts.judged(rollout(shown), reports, NOW + timedelta(seconds=seconds), TERMS)
    return judged.state, judged.shown, judged.reason


def test_the_next_cell_waits_until_all_of_this_one_are_well() -> None:
    """Not before the time of soaking, not while a process of the cell is at the former generation, whatever other cells say."""
    running, done = RolloutState.RUNNING, RolloutState.DONE
    assert after(9, report("True")) == (running, 1, "")
    assert after(10, report("True")) == (running, 2, "")
    assert after(10, report("True"), report("True", 3, component="follow")) == (running, 1, "")
    assert after(10, report("True", where="us")) == (running, 1, "")
    assert after(10, report("True", where="us"), shown=2) == (done, 2, "")


def test_a_bad_report_or_none_in_time_stops_it() -> None:
    """With the reason; a failure of the former generation is no reason."""
    halted = RolloutState.HALTED
    assert after(1, report("True"), report("False", component="follow")) == (halted, 1, "cell eu, follow: Because")
    assert after(60) == (halted, 1, "cell eu: no process reported within 60 s")
    assert after(60, report("True", 3)) == (halted, 1, "cell eu: stream did not say that generation 4 is ready within 60 s")
    assert after(1, report("False", 3))[0] is RolloutState.RUNNING


def test_of_every_kind_it_is_known_whether_processes_report_on_it() -> None:
    """A change of one on which nobody reports would never get on."""
    assert FIELD_OF_KIND.keys() == rollouts.REPORTED | rollouts.SILENT and not rollouts.REPORTED & rollouts.SILENT


class Cells:
    """A process in each of two cells, and one of none, that follow the control plane over the wire."""

    def __init__(self, to: Stubs, plane: ControlPlane, feeds: dict[str, DesiredFeed]) -> None:
        self.to = to
        self._plane = plane
        self._feeds = feeds

    def interval(self, cell: str) -> int:
        """Interval of the raw pipeline as the cell sees it."""
        pipeline = self._feeds[cell].current.pipelines.get("raw")
        return 0 if pipeline is None else pipeline.interval_ms

    async def sees(self, cell: str, interval_ms: int) -> None:
        """Waits until the cell sees it."""

        async def seen() -> bool:
            return self.interval(cell) == interval_ms

        await eventually(seen, f"{cell} sees {interval_ms}")

    def there(self, cell: str) -> bool:
        """Whether the cell sees the topic of the test of removals, and its pipeline."""
        current = self._feeds[cell].current
        both = {"gone_v1" in current.topics, "gone" in current.pipelines}
        return both == {True}

    async def has(self, cell: str, *, there: bool) -> None:
        """Waits until the cell sees them, or does not."""

        async def seen() -> bool:
            current = self._feeds[cell].current
            return {"gone_v1" in current.topics, "gone" in current.pipelines} == {there}

        await eventually(seen, f"{cell} sees them: {there}")

    def say(self, cell: str, standing: Standing) -> None:
        """The cell's process reports on what it sees."""
        self._feeds[cell].say(self._feeds[cell].current, "Pipeline", "raw", standing)

    async def apply(self, interval_ms: int, canary: str = "") -> None:
        """Changes the raw pipeline."""
        pipeline = await self.pipeline()
        pipeline.pipeline.interval_ms = interval_ms
        pipeline.metadata.resource_version = 0
        await self.to.control.Apply(pb.ApplyRequest(resources=[pipeline], canary=canary), timeout=30)

    async def pipeline(self) -> resource_pb2.Resource:
        """As the control plane has it."""
        reply: pb.GetResourceResponse = await self.to.control.GetResource(pb.GetResourceRequest(kind="Pipeline", name="raw"))
        return reply.resource

    async def rolled_out(self, status: str) -> str:
        """Waits until the resource's status says so; its message."""
        found: list[resource_pb2.Condition] = []

        async def told() -> bool:
            found[:] = [condition for condition in (await self.pipeline()).status.conditions if condition.type == "RolledOut"]
            return [condition.status for condition in found] == [status]

        await eventually(told, f"RolledOut {status}")
        return found[0].message

    async def abort(self, pipeline: str = "raw", **more: Any) -> wire.AbortRolloutsResponse:
        """Aborts the rollout of a pipeline, or all ("")."""
        async with channel(self._plane.address) as connection:
            stub: Any = rollout_service_pb2_grpc.RolloutServiceStub(connection)
            request = wire.AbortRolloutsRequest(**({"kind": "Pipeline", "name": pipeline} if pipeline else {}), **more)
            reply: wire.AbortRolloutsResponse = await stub.AbortRollouts(request, metadata=(("arterial-actor", "jo"),))
            return reply

    async def listed(self) -> list[wire.Rollout]:
        """Rollouts."""
        async with channel(self._plane.address) as connection:
            stub = rollout_service_pb2_grpc.RolloutServiceStub(connection)
            return list((await stub.ListRollouts(wire.ListRolloutsRequest())).rollouts)


@pytest.fixture
async def plane(database_url: str, tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """A control plane that believes a well cell at once."""
    terms = {"rollout_soak_seconds": 0.0, "rollout_timeout_seconds": 600.0}
    async with running_plane(database_url, tmp_path / "control", **terms) as running:
        yield running


@pytest.fixture
async def cells(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Cells]:
    """Cells eu and us beside the seed's own, each with a process."""
    async with AsyncExitStack() as stack:
        to = await stack.enter_async_context(stubs(plane))
        metadata = [resource_pb2.Metadata(name=name, owner="data-platform", labels={"of": "test"}) for name in ("eu", "us")]
        spec = specs_pb2.CellSpec(region="r")
        declared = [resource_pb2.Resource(api_version="arterial.dev/v1", kind="Cell", metadata=data, cell=spec) for data in metadata]
        await to.control.Apply(pb.ApplyRequest(resources=declared), timeout=30)
        feeds = {}
        for name in ("eu", "us", "local", ""):
            config = ServiceConfig(state_dir=tmp_path / f"cell-{name}", control_plane=plane.address, cell=CellConfig(name=name))
            feeds[name] = await stack.enter_async_context(follow_desired(config, testing.context()))
        cells = Cells(to, plane, feeds)
        await cells.apply(1111)
        for name in feeds:
            await cells.sees(name, 1111)
        yield cells


async def test_a_good_change_goes_from_cell_to_cell_by_itself(cells: Cells) -> None:
    """The canary alone sees it, then the next, and who is of no cell last."""
    await cells.apply(2222, canary="us")
    await cells.sees("us", 2222)
    assert [cells.interval(cell) for cell in ("eu", "local", "")] == [1111, 1111, 1111]
    for shown, left in (("us", ("eu", "local", "")), ("eu", ("local", "")), ("local", ("",))):
        await cells.sees(shown, 2222)
        assert [cells.interval(cell) for cell in left] == [1111] * len(left)
        cells.say(shown, GOOD)
    await cells.sees("", 2222)
    await cells.rolled_out("True")
    assert [(each.name, each.state, list(each.shown_cells)) for each in await cells.listed()] == [
        ("raw", wire.ROLLOUT_STATE_DONE, ["us", "eu", "local"])
    ]


async def test_a_cell_that_is_removed_meanwhile_is_not_waited_for(cells: Cells) -> None:
    """Nobody is there who could say that it is well."""
    await cells.apply(2222, canary="us")
    await cells.to.control.DeleteResource(pb.DeleteResourceRequest(kind="Cell", name="eu", approvals=["Cell/eu:deleted"]))
    await cells.sees("us", 2222)
    cells.say("us", GOOD)
    await cells.sees("local", 2222)


async def test_a_bad_change_stays_where_it_is(cells: Cells, plane: ControlPlane) -> None:
    """It stops, the status says why, the others keep the former version also over a restart, and the next change goes to all."""
    await cells.apply(2222, canary="us")
    await cells.sees("us", 2222)
    cells.say("us", BAD)
    assert await cells.rolled_out("False") == (
        "cell us, test: StepFailed no such column; the former version stays in force everywhere but in us"
    )
    await plane.stop()
    await plane.start()
    async with stubs(plane) as to:
        cells.to = to
        await cells.apply(3333, canary="us")
        await cells.sees("us", 3333)
        assert [cells.interval(cell) for cell in ("eu", "local", "")] == [1111, 1111, 1111]
        await cells.apply(4444)
        for cell in ("eu", "us", "local", ""):
            await cells.sees(cell, 4444)
        assert await cells.listed() == [] and not [c for c in (await cells.pipeline()).status.conditions if c.type == "RolledOut"]


async def test_what_nobody_reports_on_goes_on_by_itself(cells: Cells) -> None:
    """A dataset comes to all cells while nothing of them turns bad."""
    metadata = resource_pb2.Metadata(name="lake/raw/trip_events_v2", owner="data-platform")
    dataset = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Dataset", metadata=metadata)
    dataset.dataset.CopyFrom(specs_pb2.DatasetSpec(description="otherwise", tier=3))
    doors = ["Dataset/lake/raw/trip_events_v2:spec.tier", "Dataset/lake/raw/trip_events_v2:spec.retentionSeconds"]
    await cells.to.control.Apply(pb.ApplyRequest(resources=[dataset], canary="us", approvals=doors))

    async def done() -> bool:
        return [each.state for each in await cells.listed()] == [wire.ROLLOUT_STATE_DONE]

    await eventually(done, "the dataset in all cells")


async def test_a_canary_must_be_a_cell(cells: Cells) -> None:
    """It is refused before anything is done."""
    with pytest.raises(ArterialError) as caught:
        await cells.apply(2222, canary="mars")
    assert caught.value.reason is Reason.INVALID_REQUEST and caught.value.violations[0].field == "canary"
    assert (await cells.pipeline()).pipeline.interval_ms == 1111


def test_a_removal_goes_on_while_nothing_of_the_cell_turns_bad() -> None:
    """What was bad before it, or is of another cell, does not stop it; without any report the time of soaking is enough."""
    gone = dataclasses.replace(rollout(), removal=True)

    def after_removal(seconds: float, bad_at: float, where: str = "eu") -> tuple[RolloutState, int, str]:
        reporter, status = report("False", where=where)
        status.conditions[0].last_transition_time.FromDatetime(NOW + timedelta(seconds=bad_at))
        found = rollouts.judged_by_cell(gone, [(("Feature", "demand"), reporter, status)], NOW + timedelta(seconds=seconds), TERMS)
        return found.state, found.shown, found.reason

    assert after_removal(9, bad_at=-1) == (RolloutState.RUNNING, 1, "")
    assert after_removal(10, bad_at=-1) == (RolloutState.RUNNING, 2, "")
    assert after_removal(9, bad_at=1) == (RolloutState.HALTED, 1, "cell eu, stream, Feature/demand: Because")
    assert rollouts.judged_by_cell(gone, [], NOW + timedelta(seconds=10), TERMS).shown == 2


async def soaking(plane: ControlPlane, seconds: float) -> None:
    """Has a well cell believed after so long."""
    await plane.stop()
    plane.config = plane.config.model_copy(update={"rollout_soak_seconds": seconds})
    await plane.start()


async def declared(cells: Cells) -> None:
    """A topic of its own and the pipeline over it, which all cells see."""
    metadata = resource_pb2.Metadata(name="gone_v1", owner="data-platform", labels={"of": "gone"})
    topic = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Topic", metadata=metadata)
    topic.topic.CopyFrom(specs_pb2.TopicSpec(message="arterial.api.events.v1.TripEvent", key_field="city_id"))
    pipeline = await cells.pipeline()
    pipeline.ClearField("metadata")
    pipeline.metadata.CopyFrom(metadata)
    pipeline.metadata.name, pipeline.pipeline.topics[:] = "gone", ["gone_v1"]
    await cells.to.control.Apply(pb.ApplyRequest(resources=[topic, pipeline]))
    for cell in ("eu", "us", "local", ""):
        await cells.has(cell, there=True)


async def remove(cells: Cells) -> pb.ApplyResponse:
    """Removes both, in cell us at first."""
    request = pb.ApplyRequest(resources=[await cells.pipeline()], prune=pb.Prune(labels={"of": "gone"}), canary="us")
    with pytest.raises(ArterialError, match="one-way doors"):
        await cells.to.control.Apply(request)
    request.approvals.append("Topic/gone_v1:deleted")
    reply: pb.ApplyResponse = await cells.to.control.Apply(request)
    return reply


async def test_a_removal_goes_from_cell_to_cell(cells: Cells, plane: ControlPlane, tmp_path: Path) -> None:
    """The others still see what is gone, also who begins to watch; its data go no sooner than after the last of them."""
    await declared(cells)
    await soaking(plane, 3600.0)
    async with stubs(plane) as to:
        cells.to = to
        assert not (await remove(cells)).retirements
        await cells.has("us", there=False)
        config = ServiceConfig(state_dir=tmp_path / "new", control_plane=plane.address, cell=CellConfig(name="eu"))
        async with follow_desired(config, testing.context()) as new:

            async def begun() -> bool:
                return new.current.version > 0

            await eventually(begun, "a new watcher")
            assert "gone" in new.current.pipelines and "gone_v1" in new.current.topics
        assert [cells.there(cell) for cell in ("eu", "local", "")] == [True] * 3
        with pytest.raises(ArterialError, match="does not exist"):
            await to.control.GetResource(pb.GetResourceRequest(kind="Topic", name="gone_v1"))
        assert not await drops(to)
    await soaking(plane, 0.0)
    async with stubs(plane) as to:
        for cell in ("eu", "local", ""):
            await cells.has(cell, there=False)

        async def done() -> bool:
            return {(each.name, each.state, each.removal) for each in await cells.listed()} == {
                (name, wire.ROLLOUT_STATE_DONE, True) for name in ("gone", "gone_v1")
            }

        await eventually(done, "both removals done")
        assert {run.cell for run in await drops(to)} == {"eu", "us", "local"}


async def drops(to: Stubs) -> list[Any]:
    """Runs that drop the data of the topic."""
    found = (await to.jobs.ListRuns(jobs.ListRunsRequest())).runs
    return [run for run in found if run.subject == "Topic/gone_v1"]


async def test_a_removal_that_turns_a_cell_bad_stops_and_is_taken_back(cells: Cells, plane: ControlPlane) -> None:
    """The reason names what turned bad; an abort brings everything back, in the log too; nothing is dropped."""
    await declared(cells)
    await soaking(plane, 3600.0)
    async with stubs(plane) as to:
        cells.to = to
        await remove(cells)
        await cells.has("us", there=False)
        cells.say("us", BAD)

        async def halted() -> bool:
            return {each.state for each in await cells.listed()} == {wire.ROLLOUT_STATE_HALTED}

        await eventually(halted, "the removal stopped")
        assert {each.reason for each in await cells.listed()} == {"cell us, test, Pipeline/raw: StepFailed no such column"}
        assert cells.there("eu")
        reply = await cells.abort("")
        assert {(each.kind, each.action) for each in reply.changes} == {(kind, pb.Change.ACTION_CREATE) for kind in ("Topic", "Pipeline")}
        for cell in ("us", "eu", "local", ""):
            await cells.has(cell, there=True)
        assert {each.state for each in await cells.listed()} == {wire.ROLLOUT_STATE_ABORTED} and not await drops(to)
        actions = [
            each.change.action for each in (await to.control.ListChanges(pb.ListChangesRequest(kind="Topic", name="gone_v1"))).changes
        ]
        assert actions[0] == pb.Change.ACTION_CREATE and pb.Change.ACTION_DELETE in actions


@pytest.mark.parametrize("state", ["running", "halted"])
async def test_an_aborted_change_is_taken_back_where_it_was_shown(cells: Cells, state: str) -> None:
    """Under way or stopped: the cells that saw it see the former version; the log has a change more; twice is once."""
    await cells.apply(2222, canary="us")
    await cells.sees("us", 2222)
    if state == "halted":
        cells.say("us", BAD)
        await cells.rolled_out("False")
    generation = (await cells.pipeline()).metadata.generation
    reply = await cells.abort(message="too slow")
    assert [(each.name, [field.path for field in each.fields]) for each in reply.changes] == [("raw", ["spec.intervalMs"])]
    for cell in ("eu", "us", "local", ""):
        await cells.sees(cell, 1111)
    assert (await cells.pipeline()).metadata.generation == generation + 1
    told = "rollout aborted by jo: too slow"
    assert await cells.rolled_out("True") == f"{told}; the former version is in force everywhere again"
    (change, *_) = (await cells.to.control.ListChanges(pb.ListChangesRequest(kind="Pipeline", name="raw"))).changes
    assert (change.actor, change.message, change.change.action) == ("jo", told, pb.Change.ACTION_UPDATE)
    assert [(each.state, each.reason) for each in await cells.listed()] == [(wire.ROLLOUT_STATE_ABORTED, told)]
    assert not (await cells.abort()).changes and not (await cells.abort("")).changes
    await cells.apply(3333, canary="eu")
    await cells.sees("eu", 3333)
    assert cells.interval("us") == 1111


async def test_what_is_new_in_one_cell_is_removed_by_an_abort(cells: Cells) -> None:
    """All that is under way at once, as one refers to the other; only with the approval that a removal needs."""
    topic = resource_pb2.Resource(
        api_version="arterial.dev/v1", kind="Topic", metadata=resource_pb2.Metadata(name="new_v1", owner="data-platform")
    )
    topic.topic.CopyFrom(specs_pb2.TopicSpec(message="arterial.api.events.v1.TripEvent", key_field="city_id"))
    pipeline = await cells.pipeline()
    pipeline.metadata.name, pipeline.pipeline.topics[:] = "new", ["new_v1"]
    pipeline.metadata.resource_version = 0
    await cells.to.control.Apply(pb.ApplyRequest(resources=[topic, pipeline], canary="us"))
    with pytest.raises(
        ArterialError, match="one-way doors need approval: Topic/new_v1:deleted; who would feel it is not known: no lineage"
    ) as caught:
        await cells.abort("")
    assert caught.value.reason is Reason.REFUSED
    reply = await cells.abort("", approvals=["Topic/new_v1:deleted"])
    assert {(each.kind, each.action) for each in reply.changes} == {(kind, pb.Change.ACTION_DELETE) for kind in ("Topic", "Pipeline")}
    for kind, name in (("Topic", "new_v1"), ("Pipeline", "new")):
        with pytest.raises(ArterialError, match="does not exist"):
            await cells.to.control.GetResource(pb.GetResourceRequest(kind=kind, name=name))
    assert await cells.listed() == []


async def test_a_schema_that_is_taken_back_to_what_it_was_stays_known(cells: Cells) -> None:
    """Changed and changed back before its rollout was done: the abort changes nothing, and the files of the schema are still there."""
    metadata = resource_pb2.Metadata(name="back_v1", owner="data-platform")
    declared = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Schema", metadata=metadata)
    declared.schema.type = specs_pb2.SCHEMA_TYPE_PROTOBUF
    for field, canary in (("", ""), ("int64 a = 2;", "us"), ("", "us")):
        declared.schema.definition = f'syntax = "proto3"; message Back {{ bytes event_id = 1; {field} }}'
        await cells.to.control.Apply(pb.ApplyRequest(resources=[declared], canary=canary), timeout=30)
    await cells.abort("")
    reply = await cells.to.control.GetResource(pb.GetResourceRequest(kind="Schema", name="back_v1"))
    assert reply.resource.status.schema.version == 1 and reply.resource.status.schema.message == "Back"


async def test_the_command_line_aborts(cells: Cells, plane: ControlPlane, tmp_path: Path, capsys: "pytest.CaptureFixture[str]") -> None:
    """Shows what it changes; the status says what became of it; what is neither a kind nor a name is told."""
    terminal = Terminal({"controlplane": plane.address}, tmp_path, capsys)
    await cells.apply(2222, canary="us")
    shown = await terminal.text("rollout", "abort", "Pipeline/raw", "--message", "too slow")
    assert 'spec.intervalMs: "2222" -> "1111"' in shown and "1 of 1 resources change" in shown
    status = await terminal.text("rollout", "status")
    assert "aborted" in status and "too slow" in status
    assert "0 of 0 resources change" in await terminal.text("rollout", "abort")
    with pytest.raises(ArterialError, match="is not KIND/NAME"):
        await terminal.text("rollout", "abort", "raw")


async def test_what_cannot_be_aborted_says_why(cells: Cells) -> None:
    """No rollout, and one that is done; a name without its kind."""
    with pytest.raises(ArterialError, match="no change of Pipeline/raw goes") as caught:
        await cells.abort()
    assert caught.value.reason is Reason.NOT_FOUND
    await cells.apply(2222, canary="us")
    for cell in ("us", "eu", "local"):
        await cells.sees(cell, 2222)
        cells.say(cell, GOOD)
    await cells.rolled_out("True")
    with pytest.raises(ArterialError, match="was shown to all cells: roll the resource back") as caught:
        await cells.abort()
    assert caught.value.reason is Reason.REFUSED
    with pytest.raises(ArterialError) as caught:
        await cells.abort("", name="raw")
    assert caught.value.reason is Reason.INVALID_REQUEST


async def test_an_abort_and_an_advance_at_once_leave_one_outcome(cells: Cells) -> None:
    """Whatever comes first: all cells see the former version, or it was done before and the abort says so; never something between."""
    for number in range(4):
        interval = 3000 + number
        before = (await cells.pipeline()).pipeline.interval_ms
        await cells.apply(interval, canary="us")
        await cells.sees("us", interval)
        for cell in ("us", "eu", "local", ""):
            cells.say(cell, GOOD)
        try:
            await cells.abort(message=str(number))
            expected = before
        except ArterialError as error:
            assert error.reason is Reason.REFUSED and "shown to all cells" in error.message
            expected = interval
        for cell in ("us", "eu", "local", ""):
            await cells.sees(cell, expected)
        assert (await cells.pipeline()).pipeline.interval_ms == expected


async def test_somebody_who_changes_it_meanwhile_is_not_overwritten(cells: Cells, plane: ControlPlane) -> None:
    """What was looked up before a change of others takes nothing back: it is a conflict, and the next look finds no rollout."""
    await cells.apply(2222, canary="us")
    engine = sql.engine(plane.config.sql)
    try:
        store = RolloutStore(engine)
        found = await store.under_way(("Pipeline", "raw"))
        await cells.apply(5555)
        resources = ResourceStore(engine)
        applying = Applying(
            resources,
            ModelStore(engine),
            DeclaredSchemas(SchemaRegistry(engine), Catalogue(SchemaRegistry(engine)), Configuration(engine)),
            Dependents(None),
        )
        with pytest.raises(ArterialError) as caught:
            await applying.take_back(found, [], Why("jo", "late"))
        assert caught.value.reason is Reason.CONFLICT
        assert (await cells.pipeline()).pipeline.interval_ms == 5555
    finally:
        await engine.dispose()
