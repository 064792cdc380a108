"""Training runs from a real control plane through a real training process to a served version."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import model_service_pb2
from chassis import testing
from chassis.config import CellConfig, LakeConfig
from chassis.errors import ArterialError
from chassis.jobs import MAX_LINES, MAX_WAITING_LINES, CapacityConfig, Held, Lines
from chassis.learning import training
from chassis.learning.artefact import Artefacts
from chassis.learning.training import WorkConfig
from chassis.testing import eventually
from cli.connect import paged
from tests.controlplane.conftest import ControlPlane
from tests.controlplane.stubs import PAYMENTS, TRIPS, Stubs, create, get, model, report, stubs, verdict

ENDED = (pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED)


@asynccontextmanager
async def declared(plane: ControlPlane) -> AsyncIterator[Stubs]:
    """Stubs of a control plane with the test's model, its partitions ready."""
    async with stubs(plane) as found:
        await found.control.Apply(control.ApplyRequest(resources=[model(found)]))
        await report(found, verdict(TRIPS, "PASS", 1), verdict(PAYMENTS, "PASS", 1))
        yield found


@pytest.fixture
async def to(shared_plane: ControlPlane) -> AsyncIterator[Stubs]:
    """Stubs of the shared control plane."""
    async with declared(shared_plane) as found:
        yield found


@asynccontextmanager
async def worker(
    to: Stubs, plane: ControlPlane, folder: Path, trainer: str, capacity: CapacityConfig | None = None
) -> AsyncIterator[WorkConfig]:
    """A role `work` that trains with one of the trainers of tests."""
    config = WorkConfig(
        state_dir=folder / "state",
        control_plane=plane.address,
        cell=CellConfig(name=to.cell),
        lake=LakeConfig(root=str(folder / "lake")),
        models=LakeConfig(root=str(folder / "models")),
        capacity=capacity or CapacityConfig(),
    )
    context = testing.context()
    trainers = {"pricing-train": f"tests.learning.trainers:{trainer}"}
    role = asyncio.create_task(training.work(config, context, trainers))
    try:
        yield config
    finally:
        context.stopping.set()
        await role


async def _state(to: Stubs, run_id: str, *states: pb.RunState.ValueType) -> pb.Run:
    """The run once it is in one of these states."""

    async def there() -> bool:
        return (await get(to, run_id)).state in states

    await eventually(there, f"run in {states}")
    return await get(to, run_id)


async def _log(to: Stubs, run_id: str) -> list[str]:
    lines = await paged(lambda page: to.jobs.ListRunLog(pb.ListRunLogRequest(run_id=run_id, page=page)), "lines")
    return [line.text for line in lines]


async def test_a_run_becomes_a_live_version_that_loads(to: Stubs, shared_plane: ControlPlane, tmp_path: Path) -> None:
    """Artefact saved, version registered and live, run finished with its outputs; what the process said is in the log."""
    run_id = (await create(to, "pricing-train", to.model)).run.run_id
    async with worker(to, shared_plane, tmp_path, "good") as config:
        run = await _state(to, run_id, *ENDED)
    assert (run.state, run.outputs["stage"]) == (pb.RUN_STATE_SUCCEEDED, "LIVE")
    [version] = (await to.models.ListVersions(model_service_pb2.ListVersionsRequest(model=to.model))).versions
    assert (version.version, dict(version.metrics), version.run_id) == (run.outputs["version"], {"mae": 50.0}, run_id)
    assert Artefacts(config.models).load(version.path, version.sha256).files == {"number": b"1"}
    assert {"fitting", "printed by a library"} <= set(await _log(to, run_id))


async def test_all_that_an_attempt_says_is_in_the_log_but_a_line_without_end(to: Stubs, shared_plane: ControlPlane, tmp_path: Path) -> None:
    """Also what it says last, and at once."""
    run_id = (await create(to, "pricing-train", to.model)).run.run_id
    async with worker(to, shared_plane, tmp_path, "talkative"):
        assert (await _state(to, run_id, *ENDED)).state == pb.RUN_STATE_SUCCEEDED
    log = await _log(to, run_id)
    assert [line for line in log if line.startswith("line ")] == [f"line {number}" for number in range(2500)]
    assert "(a line that was too long was left out)" in log


async def test_a_version_that_its_gate_refuses_is_a_run_that_succeeded(to: Stubs, shared_plane: ControlPlane, tmp_path: Path) -> None:
    """Training worked; the version is rejected, and the log says why."""
    run_id = (await create(to, "pricing-train", to.model)).run.run_id
    async with worker(to, shared_plane, tmp_path, "bad_gate"):
        run = await _state(to, run_id, *ENDED)
    assert (run.state, run.outputs["stage"]) == (pb.RUN_STATE_SUCCEEDED, "REJECTED")
    assert "mae is 500" in (await _log(to, run_id))[-1]


@pytest.mark.parametrize(("trainer", "reason"), [("failing", "12 trips are too few"), ("dying", "status 9"), ("absent", "AttributeError")])
async def test_a_trainer_that_fails_fails_its_attempt_with_the_reason(
    to: Stubs, shared_plane: ControlPlane, tmp_path: Path, trainer: str, reason: str
) -> None:
    """Whether it raises, dies or is not there."""
    run_id = (await create(to, "pricing-train", to.model, max_attempts=1)).run.run_id
    async with worker(to, shared_plane, tmp_path, trainer):
        run = await _state(to, run_id, *ENDED)
    assert run.state == pb.RUN_STATE_FAILED
    assert any(reason in line for line in run.reasons), run.reasons


@pytest.mark.parametrize("how", ["cancelled", "partition blocked", "worker stops"])
async def test_a_run_that_is_not_to_go_on_stops_its_process(to: Stubs, shared_plane: ControlPlane, tmp_path: Path, how: str) -> None:
    """A heartbeat hears of it while the trainer blocks; the process is gone, and the run is not finished by this worker."""
    run_id = (await create(to, "pricing-train", to.model)).run.run_id
    async with worker(to, shared_plane, tmp_path, "endless"):

        async def told() -> bool:
            return any(line.startswith("process ") for line in await _log(to, run_id))

        await eventually(told, "log with the process id")
        process = int(next(line for line in await _log(to, run_id) if line.startswith("process ")).split()[1])
        if how == "cancelled":
            await to.jobs.CancelRun(pb.CancelRunRequest(run_id=run_id, reason="test"))
        elif how == "partition blocked":
            await report(to, verdict(PAYMENTS, "FAIL", 2, reasons=["amounts doubled"]))
        if how != "worker stops":
            await eventually(lambda: asyncio.sleep(0, _gone(process)), "process gone")
    assert _gone(process)
    expected = {"cancelled": pb.RUN_STATE_CANCELLED, "partition blocked": pb.RUN_STATE_SUSPENDED, "worker stops": pb.RUN_STATE_RUNNING}
    assert (await get(to, run_id)).state == expected[how]


def _gone(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return False
    return True


async def test_a_worker_does_as_many_runs_at_once_as_it_has_room_for(to: Stubs, shared_plane: ControlPlane, tmp_path: Path) -> None:
    """Two of three that take three eighths of its memory each; and one of tier 1, in the quarter that is kept for such."""
    days = [f"2026-11-2{number}" for number in (1, 2, 3)]
    await report(to, *(verdict(dataset, "PASS", 1, day) for dataset in (TRIPS, PAYMENTS) for day in days))
    request = pb.CreateRunRequest(kind="pricing-train", subject=to.model, cell=to.cell, partition_date=days[0])
    request.terms.memory_mib = 3000
    made = await to.jobs.CreateRuns(pb.CreateRunsRequest(run=request, last_date=days[-1]))

    async def running(*expected: str) -> bool:
        listed = await to.jobs.ListRuns(pb.ListRunsRequest(subject=to.model, state=pb.RUN_STATE_RUNNING))
        return sorted(run.run_id for run in listed.runs) == sorted(expected)

    async with worker(to, shared_plane, tmp_path, "endless", CapacityConfig(memory_mib=8000, max_runs=5)):
        await eventually(lambda: running(*made.run_ids[:2]), "two runs")
        first = (await create(to, "pricing-train", to.model, terms=specs_pb2.RunTerms(tier=1, memory_mib=2000))).run.run_id
        await eventually(lambda: running(first, *made.run_ids[:2]), "the run of tier 1 beside them")
        await to.jobs.CancelRun(pb.CancelRunRequest(run_id=made.run_ids[0], reason="test"))
        await eventually(lambda: running(first, *made.run_ids[1:]), "the third in the place of the first")


async def test_a_worker_waits_for_a_control_plane_that_is_away(plane: ControlPlane, tmp_path: Path) -> None:
    """It goes on when the control plane is back."""
    async with declared(plane) as to, worker(to, plane, tmp_path, "good"):
        await plane.stop()
        await asyncio.sleep(1.5)
        await plane.start()
        await eventually(lambda: _created(to), "control plane back")
        run_id = (await create(to, "pricing-train", to.model)).run.run_id
        assert (await _state(to, run_id, *ENDED)).state == pb.RUN_STATE_SUCCEEDED


async def _created(to: Stubs) -> bool:
    with suppress(ArterialError):
        await create(to, "pricing-train", to.model)
        return True
    return False


class Slow:
    """A control plane that takes long to answer a heartbeat."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.log: list[str] = []

    async def KeepRun(self, request: pb.KeepRunRequest, timeout: float) -> pb.KeepRunResponse:
        """Has no answer yet."""
        self.asked.set()
        await asyncio.sleep(60)
        return pb.KeepRunResponse()

    async def FinishRun(self, request: pb.FinishRunRequest, timeout: float) -> pb.FinishRunResponse:
        """Notes the lines."""
        self.log += request.log
        return pb.FinishRunResponse()


async def test_lines_of_a_heartbeat_that_is_cut_off_come_with_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt ends while they are on their way."""
    monkeypatch.setattr("chassis.jobs.HEARTBEAT_SECONDS", 0.0)
    slow = Slow()
    held = Held(slow, testing.context(), pb.Run(run_id="run-1"), "lease")
    held.lines.add("half way")
    keeping = asyncio.create_task(held.keep())
    await slow.asked.wait()
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    held.lines.add("done")
    await held.finish(True)
    assert slow.log == ["half way", "done"]


def test_lines_of_log_are_bounded() -> None:
    """What is too much is left out, and said so; a failed call's lines come again first."""
    lines = Lines()
    for number in range(MAX_WAITING_LINES + 5):
        lines.add(str(number))
    taken = lines.take()
    assert (len(taken), taken[0], taken[-1]) == (MAX_LINES, "0", "(5 lines were left out)")
    lines.put_back(taken)
    assert lines.take()[:2] == ["0", "1"]
