"""Stubs of all services of a control plane, and the resources that tests of runs and models declare."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc, resource_pb2, specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as jobs
from arterial.api.controlplane.v1alpha1 import job_service_pb2_grpc, model_service_pb2_grpc, partition_service_pb2_grpc
from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as partitions
from chassis.testing import channel, eventually
from tests.controlplane.conftest import ControlPlane

DAY = "2026-11-24"
TRIPS, PAYMENTS = "lake/curated/trips", "lake/curated/payment_events_v1"


@dataclass(frozen=True)
class Stubs:
    """Typed for the synchronous runtime by the generator, hence Any; `name` makes the cell and the model of a test its own."""

    name: str

    control: Any
    jobs: Any
    partitions: Any
    models: Any

    @property
    def cell(self) -> str:
        """The test's own cell."""
        return f"cell-{self.name}"

    @property
    def model(self) -> str:
        """The test's own model."""
        return f"fares-{self.name}"


@asynccontextmanager
async def stubs(plane: ControlPlane, name: str = "") -> AsyncIterator[Stubs]:
    """Stubs, once the server answers."""
    async with channel(plane.address) as connection:
        await asyncio.wait_for(connection.channel_ready(), 60)
        yield Stubs(
            name or uuid.uuid4().hex[:8],
            control_plane_service_pb2_grpc.ControlPlaneServiceStub(connection),
            job_service_pb2_grpc.JobServiceStub(connection),
            partition_service_pb2_grpc.PartitionServiceStub(connection),
            model_service_pb2_grpc.ModelServiceStub(connection),
        )


def model(to: Stubs, **changes: Any) -> resource_pb2.Resource:
    """The test's model, of service "pricing", that reads 3 days of trips and one of payments."""
    inputs = [specs_pb2.ModelInput(dataset=TRIPS, days=3), specs_pb2.ModelInput(dataset=PAYMENTS, days=1)]
    spec = specs_pb2.ModelSpec(service="pricing", inputs=inputs, gates=[specs_pb2.ModelGate(metric="mae", at_most=100)], **changes)
    return resource_pb2.Resource(
        api_version="arterial.dev/v1", kind="Model", metadata=resource_pb2.Metadata(name=to.model, owner="marketplace"), model=spec
    )


def schedule(to: Stubs, name: str = "", **spec: Any) -> resource_pb2.Resource:
    """A schedule of the test's own runs; unless told otherwise nightly, with a run for each date since 20 November 2026."""
    given: dict[str, Any] = {
        "subject": "raw/trips",
        "cell": to.cell,
        "start_date": "2026-11-20",
        "catch_up": specs_pb2.CATCH_UP_ALL,
        "run_kind": f"compact-{to.name}",
    } | spec
    if "data" not in spec:
        given.setdefault("cron", specs_pb2.CronTrigger(expression="30 2 * * *", days_back=1))
    return resource_pb2.Resource(
        api_version="arterial.dev/v1",
        kind="Schedule",
        metadata=resource_pb2.Metadata(name=f"nightly-{to.name}{name}", owner="data-platform"),
        schedule=specs_pb2.ScheduleSpec(**given),
    )


def verdict(
    dataset: str,
    verdict: str,
    version: int,
    day: str = DAY,
    reasons: Sequence[str] = (),
    *,
    aspect: str = "UNSPECIFIED",
    value: float | None = None,
) -> partitions.PartitionVerdict:
    """A verdict on a partition."""
    return partitions.PartitionVerdict(
        dataset=dataset,
        partition_date=day,
        verdict=partitions.Verdict.Value(f"VERDICT_{verdict}"),
        table_version=version,
        reasons=reasons,
        aspect=partitions.Aspect.Value(f"ASPECT_{aspect}"),
        value=value,
    )


async def report(to: Stubs, *verdicts: partitions.PartitionVerdict) -> int:
    """Reports verdicts; returns how many states changed."""
    reply = await to.partitions.ReportVerdicts(partitions.ReportVerdictsRequest(cell=to.cell, verdicts=verdicts))
    return int(reply.changed)


async def create(to: Stubs, kind: str, subject: str, **more: Any) -> jobs.CreateRunResponse:
    """Asks for a run of the day."""
    request = jobs.CreateRunRequest(kind=kind, subject=subject, cell=to.cell, partition_date=DAY, **more)
    reply: jobs.CreateRunResponse = await to.jobs.CreateRun(request)
    return reply


async def take(to: Stubs, *kinds: str, worker: str = "w", lease_seconds: int = 60) -> jobs.TakeRunResponse:
    """Asks for work."""
    request = jobs.TakeRunRequest(worker=worker, cell=to.cell, kinds=kinds, lease_seconds=lease_seconds)
    reply: jobs.TakeRunResponse = await to.jobs.TakeRun(request)
    return reply


async def taken(to: Stubs, *kinds: str, worker: str = "w", lease_seconds: int = 60) -> jobs.TakeRunResponse:
    """Asks for work until there is some, as workers do: a run that is being looked at because of its partitions is passed over."""
    replies: list[jobs.TakeRunResponse] = []

    async def given() -> bool:
        replies.append(await take(to, *kinds, worker=worker, lease_seconds=lease_seconds))
        return replies[-1].HasField("run")

    await eventually(given, f"a run of {', '.join(kinds)}")
    return replies[-1]


async def get(to: Stubs, run_id: str) -> jobs.Run:
    """A run as it is listed."""
    reply: jobs.GetRunResponse = await to.jobs.GetRun(jobs.GetRunRequest(run_id=run_id))
    return reply.run
