"""What the data plane does with desired state: reports on it, outlives the control plane, keeps what is good from what is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, saved_state_pb2, specs_pb2
from chaos.tcp_proxy import Fault, Proxy
from chassis import desired, reporting, testing
from chassis.config import CellConfig, ServiceConfig
from chassis.desired import Desired, DesiredFeed, acting, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.lastgood import FILE, FORMER, LastGood
from chassis.reporting import Reporter, Reports, Standing
from chassis.testing import eventually
from chassis.understanding import Received, Refused
from cli.wait import unready, until_ready
from deploy.local.child import free_port
from tests.controlplane.conftest import SEED, ControlPlane
from tests.controlplane.stubs import Stubs, stubs

READY = Standing(True, "InForce")


def cell(name: str, region: str = "here", generation: int = 1) -> resource_pb2.Resource:
    """A resource that refers to nothing; without a region it breaks the contract."""
    metadata = resource_pb2.Metadata(name=name, owner="data-platform", generation=generation, resource_version=generation)
    return resource_pb2.Resource(api_version="arterial.dev/v1", kind="Cell", metadata=metadata, cell=specs_pb2.CellSpec(region=region))


def process(folder: Path, plane: ControlPlane | None, name: str = "eu") -> ServiceConfig:
    """Configuration of a process of a cell that follows the control plane."""
    address = plane.address if plane else None
    return ServiceConfig(state_dir=folder, resources_dir=SEED, control_plane=address, cell=CellConfig(name=name))


async def got(to: Stubs, kind: str, name: str) -> resource_pb2.Resource:
    """A resource as the control plane has it."""
    reply: pb.GetResourceResponse = await to.control.GetResource(pb.GetResourceRequest(kind=kind, name=name))
    return reply.resource


def holds(probe: Callable[[], Awaitable[bool] | bool]) -> Callable[[], Awaitable[bool]]:
    """A probe that may be synchronous."""

    async def asked() -> bool:
        found = probe()
        return found if isinstance(found, bool) else await found

    return asked


async def declare(to: Stubs, *resources: resource_pb2.Resource) -> None:
    """Applies resources as people do, without what is the control plane's own."""
    for resource in resources:
        resource.metadata.ClearField("generation")
        resource.metadata.ClearField("resource_version")
    await to.control.Apply(pb.ApplyRequest(resources=resources))


@asynccontextmanager
async def following(config: ServiceConfig) -> AsyncIterator[DesiredFeed]:
    """A process that knows of what the control plane has."""
    async with follow_desired(config, testing.context()) as feed:
        await eventually(holds(lambda: feed.current.version > 0 or config.control_plane is None), "the first contact")
        yield feed


async def test_conditions_say_who_says_so_and_since_when(shared_plane: ControlPlane, tmp_path: Path) -> None:
    """Two cells report on one resource; each replaces its own; the time of transition stays while the status does."""
    async with stubs(shared_plane) as to:
        await declare(to, cell("conditions"))
        version = (await got(to, "Cell", "conditions")).metadata.resource_version
        times = []
        for where, status in (("eu", "False"), ("us", "True"), ("eu", "False")):
            given = resource_pb2.Status(observed_generation=1, conditions=[resource_pb2.Condition(type="Ready", status=status)])
            statuses = [pb.ResourceStatus(kind="Cell", name=name, status=given) for name in ("conditions", "absent")]
            reply = await to.control.ReportStatuses(pb.ReportStatusesRequest(cell=where, component="test", statuses=statuses))
            assert list(reply.unknown) == ["Cell/absent"]
            times += [
                condition.last_transition_time
                for condition in (await got(to, "Cell", "conditions")).status.conditions
                if condition.cell == "eu"
            ]
        conditions = {condition.cell: condition for condition in (await got(to, "Cell", "conditions")).status.conditions}
        assert {name: condition.status for name, condition in conditions.items()} == {"eu": "False", "us": "True"}
        assert len(times) == 3 and times[0] == times[2]
        assert (await got(to, "Cell", "conditions")).metadata.resource_version == version
        await to.control.DeleteResource(pb.DeleteResourceRequest(kind="Cell", name="conditions", approvals=["Cell/conditions:deleted"]))
        await declare(to, cell("conditions"))
        assert not (await got(to, "Cell", "conditions")).status.conditions


async def test_a_process_reports_what_became_of_a_change(shared_plane: ControlPlane, tmp_path: Path) -> None:
    """The generation that it acted on, in its own name; what it takes back is gone."""
    async with stubs(shared_plane) as to, following(process(tmp_path, shared_plane)) as feed:
        await declare(to, cell("reported"))
        await eventually(holds(lambda: ("Cell", "reported") in feed.current.generations), "the change")

        async def told(*statuses: str) -> bool:
            conditions = (await got(to, "Cell", "reported")).status.conditions
            return [(c.cell, c.component, c.status, c.observed_generation) for c in conditions] == [("eu", "test", s, 1) for s in statuses]

        feed.say(feed.current, "Cell", "reported", Standing(False, "NoTable", "the lake is away"))
        await eventually(lambda: told("False"), "the report")
        feed.say(feed.current, "Cell", "reported", None)
        await eventually(told, "the report taken back")
        assert not (await got(to, "Cell", "reported")).status.observed_generation


@pytest.mark.parametrize("hears", (True, False))
async def test_what_is_declared_again_is_reported_on_anew(shared_plane: ControlPlane, tmp_path: Path, hears: bool) -> None:
    """Also by a process that said the same of its former self, whether it heard of the removal or of both at once."""
    name, port = f"again-{int(hears)}", free_port()
    config = process(tmp_path, shared_plane).model_copy(update={"control_plane": f"127.0.0.1:{port}"})
    async with stubs(shared_plane) as to, Proxy(port, shared_plane.config.rpc.port) as proxy, following(config) as feed:

        async def told(generation: int) -> bool:
            return [c.observed_generation for c in (await got(to, "Cell", name)).status.conditions] == [generation]

        async def act(generation: int) -> None:
            await eventually(holds(lambda: feed.current.generations.get(("Cell", name)) == generation), "the change")
            feed.say(feed.current, "Cell", name, READY)
            await eventually(lambda: told(generation), "the report")

        await declare(to, cell(name))
        await act(1)
        former = feed.current
        proxy.inflict(Fault.NONE if hears else Fault.DROP)
        await to.control.DeleteResource(pb.DeleteResourceRequest(kind="Cell", name=name, approvals=[f"Cell/{name}:deleted"]))
        if hears:
            await eventually(holds(lambda: ("Cell", name) not in feed.current.generations), "the removal")
        await declare(to, cell(name))
        proxy.inflict(Fault.NONE)
        feed.say(former, "Cell", name, READY)
        await act(2)


async def test_reports_wait_for_the_control_plane_and_only_the_last_is_sent(plane: ControlPlane, tmp_path: Path) -> None:
    """What was said while it was away arrives after its return."""
    async with stubs(plane), following(process(tmp_path, plane)) as feed:
        await plane.stop()
        for number in range(50):
            feed.say(feed.current, "Topic", "trip_events_v2", Standing(False, "Try", str(number)))
        await plane.start()
        async with stubs(plane) as to:

            async def told() -> bool:
                return [c.message for c in (await got(to, "Topic", "trip_events_v2")).status.conditions] == ["49"]

            await eventually(told, "the last report")


async def test_what_stays_as_it_is_is_told_again_beside_what_changes_all_the_time(
    shared_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control plane would forget it: here it has another report in its place."""
    monkeypatch.setattr(reporting, "REPEAT_SECONDS", 1.0)
    monkeypatch.setattr(reporting, "GATHER_SECONDS", 0.0)
    numbers, since = count(), list[datetime]()
    async with stubs(shared_plane) as to, following(process(tmp_path, shared_plane)) as feed:
        await declare(to, cell("quiet"), cell("restless"))
        await eventually(holds(lambda: ("Cell", "restless") in feed.current.generations), "the change")

        async def told(former: Sequence[datetime]) -> bool:
            feed.say(feed.current, "Cell", "restless", Standing(True, "InForce", str(next(numbers))))
            conditions = (await got(to, "Cell", "quiet")).status.conditions
            since[:] = [each.last_transition_time.ToDatetime() for each in conditions if each.reason == "InForce"]
            return since > list(former)

        feed.say(feed.current, "Cell", "quiet", READY)
        await eventually(lambda: told([]), "the report")
        former = tuple(since)
        other = pb.ResourceStatus(kind="Cell", name="quiet", status=resource_pb2.Status(observed_generation=1))
        who = {"cell": "eu", "component": "test", "instance": reporting.instance_of(tmp_path)}
        await to.control.ReportStatuses(pb.ReportStatusesRequest(**who, statuses=[other]))
        await eventually(lambda: told(former), "the report told again, since later")


async def test_that_a_resource_is_not_understood_is_not_covered_by_what_its_last_good_version_does(
    shared_plane: ControlPlane, tmp_path: Path
) -> None:
    """Those who wait for it are told why."""
    async with stubs(shared_plane) as to:
        await declare(to, cell("understood"), cell("other"))
        version = (await got(to, "Cell", "other")).metadata.resource_version
        good, refused = [cell("understood"), cell("other")], [cell("understood", "", generation=2)]
        LastGood(tmp_path).save(saved_state_pb2.SavedState(resource_version=version, resources=good, refused=refused))
        async with following(process(tmp_path, shared_plane)) as feed:
            for name in ("understood", "other"):
                feed.say(feed.current, "Cell", name, READY)

            async def told() -> bool:
                return bool((await got(to, "Cell", "other")).status.conditions)

            await eventually(told, "the reports")
            (why,) = unready(await got(to, "Cell", "understood"))
    assert why.startswith("eu/test: NotUnderstood cell.region")


class Heard(Reports):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(Reporter("", "", ""))
        self.reasons: list[str] = []

    def say(self, kind: str, name: str, generation: int, standing: Standing | None) -> None:
        """Notes it."""
        self.reasons += [standing.reason] if standing is not None else []


@pytest.mark.parametrize("understood", (True, False))
def test_a_schema_that_is_not_understood_is_not_told_to_be_known(tmp_path: Path, understood: bool) -> None:
    """Though the process decodes with its last good version."""
    status = resource_pb2.Status(schema=resource_pb2.SchemaStatus(schema_id=7, version=1))
    good = resource_pb2.Resource(kind="Schema", metadata=resource_pb2.Metadata(name="s", generation=1), status=status)
    good.schema.CopyFrom(
        specs_pb2.SchemaSpec(type=specs_pb2.SCHEMA_TYPE_JSON, definition='{"type": "object", "properties": {"a": {"type": "string"}}}')
    )
    refused = {} if understood else {("Schema", "s"): Refused(good, Standing(False, "NotUnderstood"))}
    feed = DesiredFeed(Desired((good,), 1), tmp_path, None, refused=refused)
    heard = feed.reports = Heard()
    feed.replace(Desired((good,), 2))
    assert heard.reasons == (["Known"] if understood else [])


async def test_a_process_resumes_where_it_was_after_its_own_restart(
    plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither its restart nor the control plane's makes it ask for everything again, and status writes do not move it."""
    async with stubs(plane):
        async with following(process(tmp_path, plane)):
            pass
        await plane.stop()
        async with follow_desired(process(tmp_path, plane), testing.context()) as feed:
            await plane.start()
            async with stubs(plane) as to:
                await declare(to, cell("c1"))
                await eventually(holds(lambda: ("Cell", "c1") in feed.current.generations), "the change")
    watches = [line for line in capsys.readouterr().err.splitlines() if " watch " in line and "component=test" in line]
    assert ["resync=True" in line for line in watches] == [True, False]


def batch(*changed: resource_pb2.Resource, synced: bool = True, version: int = 9) -> pb.WatchResponse:
    """A batch."""
    return pb.WatchResponse(type=pb.WatchResponse.TYPE_BATCH, changed=changed, synced=synced, resource_version=version)


def test_what_is_not_understood_replaces_nothing_and_stops_nothing() -> None:
    """A broken resource keeps its last good version, a kind of the future is passed over, and good ones of the same batch are taken."""
    received = Received([cell("a"), cell("b")])
    future = resource_pb2.Resource(api_version="arterial.dev/v1", kind="Starship", metadata=resource_pb2.Metadata(name="x"))
    assert received.take(batch(cell("a", "", generation=2), cell("b", "there", generation=2), future)) == 9
    assert [(name, resource.cell.region) for (_, name), resource in received.in_force.items()] == [("a", "here"), ("b", "there")]
    assert {key: refused.why.holds for key, refused in received.refused.items()} == {("Cell", "a"): False, ("Starship", "x"): None}
    received.take(batch(cell("a", "mended", generation=3)))
    assert received.in_force["Cell", "a"].cell.region == "mended" and ("Cell", "a") not in received.refused


def test_a_resync_is_complete_before_anything_is_forgotten() -> None:
    """What is not among everything is gone, but only when everything was received."""
    received = Received([cell("a"), cell("b")])
    assert received.take(pb.WatchResponse(type=pb.WatchResponse.TYPE_RESYNC)) is None
    assert received.take(batch(cell("b"), synced=False, version=0)) is None and set(received.in_force) == {("Cell", "a"), ("Cell", "b")}
    assert received.take(pb.WatchResponse(type=pb.WatchResponse.TYPE_SYNCED, resource_version=7)) == 7
    assert set(received.in_force) == {("Cell", "b")} and received.changed


async def test_a_change_at_the_very_moment_of_acting_is_acted_on(tmp_path: Path) -> None:
    """Though it comes after the state was looked at and before the next one is waited for."""
    feed, acted = DesiredFeed(Desired((), 1), tmp_path, None), list[int]()
    async with acting(feed, lambda desired: acted.append(desired.version)):
        asyncio.get_running_loop().call_soon(feed.replace, Desired((), 2))
        await eventually(holds(lambda: acted == [1, 2]), "the change")


def test_a_version_that_moved_for_another_reason_is_no_change() -> None:
    """Nothing is replaced, and nobody woken."""
    received, again = Received([cell("a")]), cell("a")
    again.metadata.resource_version = 77
    received.take(batch(again))
    assert not received.changed


def test_a_corrupt_file_gives_way_to_the_one_before_it_and_that_to_the_seed(tmp_path: Path) -> None:
    """One flipped bit anywhere is noticed."""
    config = process(tmp_path, None)
    disk = LastGood(tmp_path)
    for version in (5, 6):
        disk.save(saved_state_pb2.SavedState(resource_version=version, resources=[cell("a", f"r{version}")]))
    for file, expected in ((FILE, 5), (FORMER, 0)):
        content = bytearray((tmp_path / file).read_bytes())
        content[-3] ^= 1
        (tmp_path / file).write_bytes(content)
        assert desired.load(config).version == expected
    assert "trip_events_v2" in desired.load(config).topics


def test_what_was_refused_is_judged_again_by_the_next_build(tmp_path: Path) -> None:
    """It is kept as it was received, since the control plane will not send it again."""
    LastGood(tmp_path).save(saved_state_pb2.SavedState(resource_version=5, refused=[cell("a", "understood-now")]))
    assert [resource.cell.region for resource in desired.load(process(tmp_path, None)).resources] == ["understood-now"]


class CellsConfig(ServiceConfig):
    """Of a service that goes by cells alone."""

    watches: ClassVar[frozenset[str]] = frozenset({"Cell"})


class OwnersConfig(ServiceConfig):
    """Of its next build, which goes by owners, too."""

    watches: ClassVar[frozenset[str]] = frozenset({"Cell", "Owner"})


async def test_a_process_sees_the_kinds_that_it_watches_and_no_others(shared_plane: ControlPlane, tmp_path: Path) -> None:
    """From disk, seed and control plane; one that begins to watch another kind gets what it has not seen; to ask for more is a defect."""
    given: dict[str, Any] = {"state_dir": tmp_path, "resources_dir": SEED, "control_plane": shared_plane.address}
    assert {resource.kind for resource in desired.load(CellsConfig(**given)).resources} == {"Cell"}
    async with stubs(shared_plane) as to:
        async with following(CellsConfig(**given)) as feed:
            await declare(to, cell(f"kinds-{to.name}"))
            await eventually(holds(lambda: f"kinds-{to.name}" in {key[1] for key in feed.current.generations}), "a new cell")
            assert {resource.kind for resource in feed.current.resources} == {"Cell"}
            with pytest.raises(KeyError, match="Topic is not among"):
                _ = feed.current.topics
        async with following(OwnersConfig(**given)) as feed:
            await eventually(holds(lambda: ("Owner", "data-platform") in feed.current.generations), "owners, declared long before")
            assert {resource.kind for resource in feed.current.resources} == {"Cell", "Owner"}
    assert {resource.kind for resource in desired.load(CellsConfig(**given)).resources} == {"Cell"}


async def test_changes_are_refused_while_the_control_plane_is_away(plane: ControlPlane) -> None:
    """With a reason that says what is missing."""
    async with stubs(plane) as to:
        await plane.stop()
        with pytest.raises(ArterialError) as caught:
            await declare(to, cell("c1"))
        await plane.start()
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


async def test_waiting_ends_when_the_new_generation_is_ready_everywhere(shared_plane: ControlPlane, tmp_path: Path) -> None:
    """A resource that nobody reported on is not ready; a report of the former generation does not count; reasons are shown."""
    shown: list[str] = []
    key = ("Cell", "waited-for")
    async with stubs(shared_plane) as to, following(process(tmp_path, shared_plane)) as feed:

        def told(standing: Standing) -> bool:
            return any(standing.reason in line for line in shown)

        async def act(generation: int, *standings: Standing) -> None:
            await eventually(holds(lambda: feed.current.generations.get(key) == generation), "the generation")
            for standing in standings:
                feed.say(feed.current, *key, standing)
                await eventually(holds(partial(told, standing)), "the reason shown")
            feed.say(feed.current, *key, READY)

        await declare(to, cell("waited-for"))
        assert (await until_ready(to.control, *key, 0, shown.extend))[1] == ["no process has reported"]
        await asyncio.gather(act(1), until_ready(to.control, *key, 60, shown.extend))
        again = cell("waited-for")
        again.metadata.labels["changed"] = "yes"
        await declare(to, again)
        lagging = (await until_ready(to.control, *key, 0, shown.extend))[1]
        waited = until_ready(to.control, *key, 60, shown.extend)
        _, (resource, wrong) = await asyncio.gather(act(2, Standing(False, "StepFailed", "on its way")), waited)
    assert lagging == ["eu/test is at generation 1 of 2"] and "eu/test: StepFailed on its way" in shown
    assert (wrong, resource.status.observed_generation) == ([], 2)


async def test_who_is_in_a_hurry_does_not_wait_for_the_next_try(
    shared_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic may be declared and read in the cell while the process that takes records pauses between its tries to connect."""
    port = free_port()
    config = process(tmp_path, shared_plane).model_copy(update={"control_plane": f"127.0.0.1:{port}"})
    monkeypatch.setattr("random.uniform", lambda *_: 10_000.0)
    async with follow_desired(config, testing.context()) as feed:
        await asyncio.sleep(1)
        async with Proxy(port, shared_plane.config.rpc.port):

            async def heard() -> bool:
                feed.hurry()
                return feed.current.version > 0

            await eventually(heard, "the first contact")


async def test_a_dropped_connection_is_resumed(shared_plane: ControlPlane, tmp_path: Path) -> None:
    """What was changed while nothing passed arrives when something does again."""
    port = free_port()
    config = process(tmp_path, shared_plane).model_copy(update={"control_plane": f"127.0.0.1:{port}"})
    async with stubs(shared_plane) as to, Proxy(port, shared_plane.config.rpc.port) as proxy, following(config) as feed:
        proxy.inflict(Fault.DROP)
        await declare(to, cell("dropped"))
        assert ("Cell", "dropped") not in feed.current.generations
        proxy.inflict(Fault.NONE)
        await eventually(holds(lambda: ("Cell", "dropped") in feed.current.generations), "the change")
