"""The RPCs of JobService: check, call the domain, convert."""

import uuid
from typing import Any

import grpc

from arterial.api.controlplane.v1alpha1 import job_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import job_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.jobs import RETIRE_TABLES
from chassis.paging import keyed_page
from services.controlplane.jobs import gate
from services.controlplane.jobs.conversion import capacity, day, inputs, line_message, run_message, state_name, stored, terms
from services.controlplane.jobs.run_store import RunFilter, RunRequest, RunStore
from services.controlplane.jobs.runs import TRAINING_SUFFIX, Lease, Outcome, RunState
from services.controlplane.partitions.partition_store import PartitionStore
from services.controlplane.resources import retention
from services.controlplane.resources.handler import actor_of
from services.controlplane.resources.store import ResourceStore

# Ten years: a longer backfill is asked for in parts.
MAX_DATES = 3700
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class JobHandler(job_service_pb2_grpc.JobServiceServicer):
    """Serves JobService."""

    def __init__(self, runs: RunStore, resources: ResourceStore, partitions: PartitionStore) -> None:
        self._runs = runs
        self._resources = resources
        self._partitions = partitions

    async def CreateRun(self, request: pb.CreateRunRequest, context: ServicerContext) -> pb.CreateRunResponse:
        """The run of a request; a training run is one of a declared model, by its service."""
        run, created = await self._runs.create(await self._wanted(request))
        return pb.CreateRunResponse(run=run_message(run), created=created)

    async def CreateRuns(self, request: pb.CreateRunsRequest, context: ServicerContext) -> pb.CreateRunsResponse:
        """A run of each date."""
        wanted, last = await self._wanted(request.run, "run."), day(request.last_date, "last_date")
        if (last - wanted.partition_date).days >= MAX_DATES:
            why = [Violation("last_date", f"more than {MAX_DATES} dates")]
            raise ArterialError(Reason.INVALID_REQUEST, "the range is too long", violations=why)
        created, existing = await self._runs.create_range(wanted, last)
        return pb.CreateRunsResponse(run_ids=[run.run_id for run in created], existing=existing)

    async def GetRun(self, request: pb.GetRunRequest, context: ServicerContext) -> pb.GetRunResponse:
        """One run."""
        return pb.GetRunResponse(run=run_message(await self._runs.get(request.run_id)))

    async def ListRuns(self, request: pb.ListRunsRequest, context: ServicerContext) -> pb.ListRunsResponse:
        """A page of runs."""
        state = state_name(pb.RunState.Name(request.state), "RUN_STATE_")
        wanted = RunFilter(stored(request.kind), stored(request.subject), state, stored(request.schedule))
        name = f"runs/{wanted.kind}/{wanted.subject}/{wanted.state}/{wanted.schedule}"
        page = keyed_page(request.page.page_size, request.page.page_token, name, (int,))
        found = await self._runs.page(wanted, page.after[0] if page.after else None, page.limit)
        shown, token = page.cut(found, lambda run: (run.number,))
        return pb.ListRunsResponse(runs=map(run_message, shown), page=page_pb2.PageResponse(next_page_token=token))

    async def ListRunLog(self, request: pb.ListRunLogRequest, context: ServicerContext) -> pb.ListRunLogResponse:
        """A page of lines."""
        page = keyed_page(request.page.page_size, request.page.page_token, f"log/{request.run_id}", (int,))
        found = await self._runs.log(request.run_id, page.after[0] if page.after else None, page.limit)
        shown, token = page.cut(found, lambda line: (line.line,))
        return pb.ListRunLogResponse(lines=map(line_message, shown), page=page_pb2.PageResponse(next_page_token=token))

    async def CancelRun(self, request: pb.CancelRunRequest, context: ServicerContext) -> pb.CancelRunResponse:
        """Ends a run."""
        return pb.CancelRunResponse(run=run_message(await self._runs.cancel(request.run_id, stored(request.reason))))

    async def RetryRun(self, request: pb.RetryRunRequest, context: ServicerContext) -> pb.RetryRunResponse:
        """Does a run again."""
        run = await self._runs.retry(request.run_id, stored(actor_of(context)), stored(request.reason))
        return pb.RetryRunResponse(run=run_message(run))

    async def TakeRun(self, request: pb.TakeRunRequest, context: ServicerContext) -> pb.TakeRunResponse:
        """The lease is a secret of worker and control plane: no listing shows it."""
        kinds, total = tuple(map(stored, request.kinds)), capacity(request.total)
        lease = Lease(uuid.uuid4().hex, stored(request.worker), request.lease_seconds, kinds, total)
        run = await self._runs.take(lease, stored(request.cell), capacity(request.free))
        return pb.TakeRunResponse() if run is None else pb.TakeRunResponse(run=run_message(run), lease=lease.token)

    async def KeepRun(self, request: pb.KeepRunRequest, context: ServicerContext) -> pb.KeepRunResponse:
        """Tells the worker if the run was cancelled."""
        run = await self._runs.keep(request.run_id, request.lease, [stored(line) for line in request.log])
        return pb.KeepRunResponse(cancelled=not run.open)

    async def FinishRun(self, request: pb.FinishRunRequest, context: ServicerContext) -> pb.FinishRunResponse:
        """Ends an attempt."""
        outputs = {stored(name): stored(value) for name, value in request.outputs.items()}
        outcome = Outcome(request.succeeded, stored(request.reason), outputs)
        run = await self._runs.finish(request.run_id, request.lease, outcome, [stored(line) for line in request.log])
        if run.kind == RETIRE_TABLES and run.state is RunState.SUCCEEDED:
            await self._partitions.forget_dropped()
        return pb.FinishRunResponse(run=run_message(run))

    async def _wanted(self, request: pb.CreateRunRequest, prefix: str = "") -> RunRequest:
        wanted = RunRequest(
            stored(request.kind),
            stored(request.subject),
            stored(request.cell),
            day(request.partition_date, f"{prefix}partition_date"),
            terms(request.terms, request.max_attempts),
            request.again,
            inputs(request.inputs),
            tuple(map(stored, request.produces)),
        )
        if wanted.kind in retention.DROPS:
            raise ArterialError(Reason.INVALID_REQUEST, retention.RESERVED, violations=[Violation(f"{prefix}kind", retention.RESERVED)])
        if wanted.kind.endswith(TRAINING_SUFFIX):
            await self._check_model(wanted, f"{prefix}kind")
        return wanted

    async def _check_model(self, wanted: RunRequest, field: str) -> None:
        model = await self._resources.get("Model", wanted.subject)
        wrong = gate.mismatch(wanted.kind, model.model)
        if wrong is not None:
            raise ArterialError(Reason.INVALID_REQUEST, f"{wanted.kind} of {wanted.subject}: {wrong}", violations=[Violation(field, wrong)])
