"""Model versions over the wire: what serves stands in the status of the Model and reaches watchers."""

from pathlib import Path

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import model_service_pb2 as pb
from arterial.api.types.v1 import page_pb2
from chassis import desired, testing
from chassis.config import ServiceConfig
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from tests.controlplane.conftest import SEED, ControlPlane
from tests.controlplane.stubs import DAY, PAYMENTS, TRIPS, Stubs, create, model, report, stubs, take, verdict

LIVE, SHADOW, RETIRED, REJECTED = (
    pb.VERSION_STAGE_LIVE,
    pb.VERSION_STAGE_SHADOW,
    pb.VERSION_STAGE_RETIRED,
    pb.VERSION_STAGE_REJECTED,
)


async def register(to: Stubs, version: str, mae: float = 50.0, sha: str = "a", run_id: str = "") -> pb.ModelVersion:
    """Registers a version."""
    given = pb.ModelVersion(
        model=to.model,
        version=version,
        path=f"models/{version}",
        sha256=sha * 64,
        metrics={"mae": mae},
        run_id=run_id,
        stage=LIVE,
        reasons=["mine"],
    )
    reply: pb.RegisterVersionResponse = await to.models.RegisterVersion(pb.RegisterVersionRequest(version=given))
    return reply.version


async def declared(to: Stubs) -> resource_pb2.Resource:
    """The model as the control plane has it."""
    reply: control.GetResourceResponse = await to.control.GetResource(control.GetResourceRequest(kind="Model", name=to.model))
    return reply.resource


async def stages(to: Stubs) -> list[tuple[str, int]]:
    """Versions, newest first, and what they do."""
    reply: pb.ListVersionsResponse = await to.models.ListVersions(pb.ListVersionsRequest(model=to.model))
    return [(version.version, version.stage) for version in reply.versions]


async def test_versions_go_through_gates_and_shadow_and_can_be_rolled_back(shared_plane: ControlPlane) -> None:
    """First live at once; the next in shadow, then live; a bad one rejected; rollback. The specification's generation never moves."""
    async with stubs(shared_plane) as to:
        await to.control.Apply(control.ApplyRequest(resources=[model(to, shadow_answers=10)]))
        first = await register(to, "1")
        assert (first.stage, list(first.reasons)) == (LIVE, ["live at once: there was no version before it"])
        assert (await register(to, "1")) == first, "registering again changes nothing"
        assert (await register(to, "2")).stage == SHADOW
        status = (await declared(to)).status.model
        assert (status.live.path, status.live.sha256, status.shadow.version) == ("models/1", "a" * 64, "2")
        for answers, stage in ((6, SHADOW), (4, LIVE)):
            report = pb.ReportShadowRequest(model=to.model, version="2", answers=answers, mean_difference=2.5)
            assert (await to.models.ReportShadow(report)).version.stage == stage
        assert (await register(to, "3", mae=500)).stage == REJECTED
        assert await stages(to) == [("3", REJECTED), ("2", LIVE), ("1", RETIRED)]
        assert (await to.models.RollbackModel(pb.RollbackModelRequest(model=to.model, reason="slow"))).version.version == "1"
        assert await stages(to) == [("3", REJECTED), ("2", REJECTED), ("1", LIVE)]
        now = await declared(to)
        assert (now.status.model.live.version, now.status.model.HasField("shadow"), now.metadata.generation) == ("1", False, 1)


async def test_what_a_stopped_run_trained_is_not_taken(shared_plane: ControlPlane) -> None:
    """Its worker may hear too late that a partition was blocked: what is live stays. A call that is repeated is answered as before."""
    async with stubs(shared_plane) as to:
        await to.control.Apply(control.ApplyRequest(resources=[model(to)]))
        await report(to, verdict(TRIPS, "PASS", 1), verdict(PAYMENTS, "PASS", 1))
        run = (await create(to, "pricing-train", to.model)).run
        await take(to, "pricing-train")
        first = await register(to, "1", run_id=run.run_id)
        await report(to, verdict(PAYMENTS, "FAIL", 2, reasons=["amounts doubled"]))
        with pytest.raises(ArterialError, match=r"SUSPENDED .*amounts doubled") as caught:
            await register(to, "2", run_id=run.run_id)
        assert caught.value.reason is Reason.CONFLICT
        assert (await register(to, "1", run_id=run.run_id)) == first and await stages(to) == [("1", LIVE)]
        with pytest.raises(ArterialError) as caught:
            await register(to, "2", run_id="run-0")
        assert caught.value.reason is Reason.NOT_FOUND


async def test_what_was_trained_from_a_partition_that_is_blocked_since_stays_in_shadow(shared_plane: ControlPlane) -> None:
    """With enough answers, too; it goes live once the partition is released."""
    async with stubs(shared_plane) as to:
        await to.control.Apply(control.ApplyRequest(resources=[model(to, shadow_answers=10)]))
        await report(to, verdict(TRIPS, "PASS", 1), verdict(PAYMENTS, "PASS", 1))
        for version in ("1", "2"):
            run = (await create(to, "pricing-train", to.model, again=True)).run
            lease = (await take(to, "pricing-train")).lease
            await register(to, version, run_id=run.run_id)
            await to.jobs.FinishRun(jobs.FinishRunRequest(run_id=run.run_id, lease=lease, succeeded=True))
        await report(to, verdict(PAYMENTS, "FAIL", 2, reasons=["amounts doubled"]))
        seen = pb.ReportShadowRequest(model=to.model, version="2", answers=10)
        shadow = (await to.models.ReportShadow(seen)).version
        assert (shadow.stage, list(shadow.reasons)) == (SHADOW, [f"stays in shadow: {PAYMENTS} {DAY} is BLOCKED: amounts doubled"])
        assert await stages(to) == [("2", SHADOW), ("1", LIVE)]
        await report(to, verdict(PAYMENTS, "PASS", 3))
        assert (await to.models.ReportShadow(seen)).version.stage == LIVE


async def test_serving_processes_get_the_live_version_from_their_desired_state(plane: ControlPlane, tmp_path: Path) -> None:
    """By watching; neither apply nor the status that services report takes it away; it is there after a restart."""
    config = ServiceConfig(state_dir=tmp_path / "data-plane", resources_dir=SEED, control_plane=plane.address)
    async with stubs(plane) as to, desired.follow_desired(config, testing.context()) as feed:
        await to.control.Apply(control.ApplyRequest(resources=[model(to)]))
        await register(to, "1")

        async def served() -> bool:
            found = feed.current.models.get(to.model)
            return found is not None and found.status.model.live.version == "1"

        await eventually(served, "the live version at the process")
        status = resource_pb2.Status(observed_generation=1, model=resource_pb2.ModelStatus(live=resource_pb2.ServedVersion(version="9")))
        status.conditions.add(type="Ready", status="True")
        await to.control.ReportStatus(control.ReportStatusRequest(kind="Model", name=to.model, status=status))
        changed = model(to)
        changed.model.description = "changed"
        await to.control.Apply(control.ApplyRequest(resources=[changed]))
        now = await declared(to)
        assert (now.status.model.live.version, now.status.conditions[0].type, now.metadata.generation) == ("1", "Ready", 2)
    await plane.stop()
    await plane.start()
    async with stubs(plane, to.name) as to:
        assert (await declared(to)).status.model.live.version == "1"


async def test_a_pin_wins_and_a_pin_to_nothing_is_refused(shared_plane: ControlPlane) -> None:
    """Pinned by the specification, released by it."""
    async with stubs(shared_plane) as to:
        await to.control.Apply(control.ApplyRequest(resources=[model(to)]))
        for version in ("1", "2"):
            await register(to, version)
        with pytest.raises(ArterialError) as caught:
            await to.control.Apply(control.ApplyRequest(resources=[model(to, pinned_version="7")]))
        assert [violation.field for violation in caught.value.violations] == ["resources[0].spec.pinnedVersion"]
        await to.control.Apply(control.ApplyRequest(resources=[model(to, pinned_version="1")]))
        assert await stages(to) == [("2", RETIRED), ("1", LIVE)]
        with pytest.raises(ArterialError) as caught:
            await to.models.RollbackModel(pb.RollbackModelRequest(model=to.model, reason="slow"))
        assert caught.value.reason is Reason.REFUSED
        await to.control.Apply(control.ApplyRequest(resources=[model(to)]))
        assert await stages(to) == [("2", LIVE), ("1", RETIRED)]


async def test_what_cannot_be_is_refused(shared_plane: ControlPlane) -> None:
    """Undeclared models, another artefact under the same version, reports on what is not in shadow, tokens of another list."""
    async with stubs(shared_plane) as to:
        with pytest.raises(ArterialError) as caught:
            await register(to, "1")
        assert caught.value.reason is Reason.NOT_FOUND
        await to.control.Apply(control.ApplyRequest(resources=[model(to)]))
        await register(to, "1")
        with pytest.raises(ArterialError, match="another artefact"):
            await register(to, "1", sha="b")
        for version, reason in (("1", Reason.REFUSED), ("7", Reason.NOT_FOUND)):
            with pytest.raises(ArterialError) as caught:
                await to.models.ReportShadow(pb.ReportShadowRequest(model=to.model, version=version, answers=1))
            assert caught.value.reason is reason
        await register(to, "2")
        page = await to.models.ListVersions(pb.ListVersionsRequest(model=to.model, page=page_pb2.PageRequest(page_size=1)))
        await to.control.Apply(control.ApplyRequest(resources=[_renamed(model(to), f"{to.model}-other")]))
        again = page_pb2.PageRequest(page_token=page.page.next_page_token)
        assert [v.version for v in (await to.models.ListVersions(pb.ListVersionsRequest(model=to.model, page=again))).versions] == ["1"]
        with pytest.raises(ArterialError) as caught:
            await to.models.ListVersions(pb.ListVersionsRequest(model=f"{to.model}-other", page=again))
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


def _renamed(resource: resource_pb2.Resource, name: str) -> resource_pb2.Resource:
    resource.metadata.name = name
    return resource
