"""Changes that go from cell to cell: who sees what, what lets them go on, and what stops them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2 as wire
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2_grpc
from chassis import testing
from chassis.config import CellConfig, ServiceConfig
from chassis.desired import DesiredFeed, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.reporting import Standing
from chassis.rpc.client import channel
from chassis.testing import eventually
from services.controlplane.rollouts import rollouts
from services.controlplane.rollouts.rollouts import Rollout, RolloutState, Terms
from services.controlplane.watch.statuses import Reporter
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import Stubs, stubs

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

        await eventually(seen, f"{cell} sees {interval_ms}", 20)

    def say(self, cell: str, standing: Standing) -> None:
        """The cell's process reports on what it sees."""
        self._feeds[cell].say(self._feeds[cell].current, "Pipeline", "raw", standing)

    async def apply(self, interval_ms: int, canary: str = "") -> None:
        """Changes the raw pipeline."""
        pipeline = await self.pipeline()
        pipeline.pipeline.interval_ms = interval_ms
        pipeline.metadata.resource_version = 0
        await self.to.control.Apply(pb.ApplyRequest(resources=[pipeline], canary=canary))

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

        await eventually(told, f"RolledOut {status}", 20)
        return found[0].message

    async def listed(self) -> list[wire.Rollout]:
        """Rollouts."""
        async with channel(self._plane.address) as connection:
            stub = rollout_service_pb2_grpc.RolloutServiceStub(connection)
            return list((await stub.ListRollouts(wire.ListRolloutsRequest())).rollouts)


@pytest.fixture
async def cells(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Cells]:
    """Cells eu and us beside the seed's own, each with a process; a well cell is believed at once."""
    await plane.stop()
    plane.config = plane.config.model_copy(update={"rollout_soak_seconds": 0.0, "rollout_timeout_seconds": 60.0})
    await plane.start()
    async with AsyncExitStack() as stack:
        to = await stack.enter_async_context(stubs(plane))
        metadata = [resource_pb2.Metadata(name=name, owner="data-platform", labels={"of": "test"}) for name in ("eu", "us")]
        spec = specs_pb2.CellSpec(region="r")
        declared = [resource_pb2.Resource(api_version="arterial.dev/v1", kind="Cell", metadata=data, cell=spec) for data in metadata]
        await to.control.Apply(pb.ApplyRequest(resources=declared))
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


async def test_a_canary_must_be_a_cell_and_removes_nothing(cells: Cells) -> None:
    """Both are refused before anything is done."""
    with pytest.raises(ArterialError) as caught:
        await cells.apply(2222, canary="mars")
    assert caught.value.reason is Reason.INVALID_REQUEST and caught.value.violations[0].field == "canary"
    pipeline, pruned = await cells.pipeline(), pb.Prune(labels={"of": "test"})
    request = pb.ApplyRequest(resources=[pipeline], canary="us", prune=pruned)
    with pytest.raises(ArterialError) as caught:
        await cells.to.control.Apply(request)
    assert "removal" in caught.value.violations[0].description
    assert (await cells.pipeline()).pipeline.interval_ms == 1111
