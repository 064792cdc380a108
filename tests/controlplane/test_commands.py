"""`arterial runs`, `partitions` and `models`, against a running control plane."""

import re

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import model_service_pb2 as models
from chassis.errors import ArterialError, Reason
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import DAY, TRIPS, model, report, stubs, take, verdict
from tests.terminal import Terminal


async def test_a_run_is_started_watched_and_cancelled_on_the_command_line(terminal: Terminal, shared_plane: ControlPlane) -> None:
    """Text and JSON; a second start is the same run; bare `runs` lists."""
    async with stubs(shared_plane) as to:
        kind = f"compact-{to.name}"
        words = ("runs", "start", kind, "raw/trips", "--date", DAY, "--cell", to.cell)
        run_id = (await terminal.document(*words))["runId"]
        assert (await terminal.document(*words))["runId"] == run_id
        taken = await take(to, kind)
        await to.jobs.KeepRun(jobs.KeepRunRequest(run_id=run_id, lease=taken.lease, log=["half way"]))
        assert (await terminal.text("runs", "log", run_id)).endswith("1  half way\n")
        assert [run["runId"] for run in await terminal.document("runs", "list", "--kind", kind, "--state", "RUNNING")] == [run_id]
        assert run_id in await terminal.text("runs")
        await terminal.text("runs", "cancel", run_id, "--reason", "no need")
        assert "CANCELLED" in (shown := await terminal.text("runs", "show", run_id)) and "cancelled: no need" in shown
        assert "PENDING" in (shown := await terminal.text("runs", "retry", run_id, "--reason", "needed"))
        assert re.search(r"retried by .+: needed", shown) and re.search(
            r"retried by .+: needed", await terminal.text("runs", "log", run_id)
        )
        with pytest.raises(ArterialError) as caught:
            await terminal.text("runs", "show", "run-0")
    assert caught.value.reason is Reason.NOT_FOUND


async def test_partitions_are_listed_with_their_reasons(terminal: Terminal, shared_plane: ControlPlane) -> None:
    """By dataset and state, over more than one page."""
    async with stubs(shared_plane) as to:
        await report(to, verdict(TRIPS, "FAIL", 1, reasons=["half the rows"]), verdict(TRIPS, "PASS", 1, "2026-11-23"))
        told = await terminal.text("partitions", TRIPS, "--cell", to.cell, "--state", "BLOCKED")
        assert "half the rows" in told and "2026-11-23" not in told
        listed = await terminal.document("partitions", "--cell", to.cell, "--limit", "1")
    assert [partition["partitionDate"] for partition in listed] == [DAY]


async def test_a_partition_is_overridden_on_the_command_line(terminal: Terminal, shared_plane: ControlPlane) -> None:
    """With a reason, which is shown; withdrawn, its verdicts hold again; without a reason it is refused."""
    async with stubs(shared_plane) as to:
        await report(to, verdict(TRIPS, "FAIL", 4, reasons=["half the rows"]))
        where = ("partitions", "--cell", to.cell)
        told = await terminal.text(*where, "override", TRIPS, DAY, "--state", "ready", "--reason", "half is enough")
        assert f"{TRIPS} {DAY} is READY" in told and "half is enough" in told
        assert "without it BLOCKED: half the rows" in await terminal.text(*where)
        assert "quality: FAIL at version 4: half the rows" in await terminal.text(*where, "show", TRIPS, DAY)
        for wrong in (["--state", "ready"], ["--reason", "x"], ["--reason", "x", "--state", "ready", "--withdraw"]):
            with pytest.raises(ArterialError) as caught:
                await terminal.text(*where, "override", TRIPS, DAY, *wrong)
            assert caught.value.reason is Reason.INVALID_REQUEST
        assert "is BLOCKED" in await terminal.text(*where, "override", TRIPS, DAY, "--withdraw", "--reason", "corrected")
        assert "corrected" in await terminal.text(*where, "overrides", TRIPS)


async def test_a_backfill_is_started_on_the_command_line(terminal: Terminal, shared_plane: ControlPlane) -> None:
    """A run of each date, on the terms given; both ends of the range are needed."""
    async with stubs(shared_plane) as to:
        kind = f"compact-{to.name}"
        words = ("runs", "start", kind, "raw/trips", "--cell", to.cell, "--from", "2026-11-20")
        assert "5 new runs, 0 were there" in await terminal.text(*words, "--to", DAY, "--tier", "3", "--memory-mib", "512")
        listed = await terminal.document("runs", "list", "--kind", kind)
        assert [run["partitionDate"][-2:] for run in listed] == ["24", "23", "22", "21", "20"]
        assert {(run["terms"]["tier"], run["terms"]["memoryMib"]) for run in listed} == {(3, 512)}
        with pytest.raises(ArterialError) as caught:
            await terminal.text(*words)
    assert caught.value.reason is Reason.INVALID_REQUEST


async def test_models_are_listed_and_rolled_back(terminal: Terminal, shared_plane: ControlPlane) -> None:
    """Which version is live, why the others are not, and back."""
    async with stubs(shared_plane) as to:
        await to.control.Apply(control.ApplyRequest(resources=[model(to)]))
        for version, mae in (("1", 50), ("2", 40), ("3", 400)):
            given = models.ModelVersion(model=to.model, version=version, path=version, sha256="a" * 64, metrics={"mae": mae})
            await to.models.RegisterVersion(models.RegisterVersionRequest(version=given))
        live = {document["metadata"]["name"]: document.get("status", {}) for document in await terminal.document("models")}
        assert live[to.model]["model"]["live"]["version"] == "2"
        assert "mae is 400, more than 100" in await terminal.text("models", to.model)
        assert "version 1" in await terminal.text("models", to.model, "rollback", "--reason", "slow")
        stages = [version["stage"] for version in await terminal.document("models", to.model)]
    assert stages == ["VERSION_STAGE_REJECTED", "VERSION_STAGE_REJECTED", "VERSION_STAGE_LIVE"]
