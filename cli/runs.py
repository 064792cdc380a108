"""`arterial runs`: runs of jobs: list, show, log, cancel, retry, start."""

import argparse
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import job_service_pb2_grpc
from chassis.errors import ArterialError, Reason
from cli.connect import paged, show, table, to_service
from cli.resources import actor

STATES = ("PENDING", "SUSPENDED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")
BACKFILL_SECONDS = 60.0


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    runs = commands.add_parser("runs", help="runs of jobs: list, show, log, cancel, retry, start")
    runs.set_defaults(run=run_list, kind="", subject="", state="", schedule="", limit=50)
    actions = runs.add_subparsers(dest="action")
    listing = actions.add_parser("list", help="runs, newest first")
    listing.add_argument("--kind", default="")
    listing.add_argument("--subject", default="")
    listing.add_argument("--state", default="", choices=STATES)
    listing.add_argument("--schedule", default="", help="of this schedule only")
    listing.add_argument("--limit", type=int, default=50, help="runs at most")
    listing.set_defaults(run=run_list)
    for name, function, words in (("show", run_show, "one run, with its reasons"), ("log", run_log, "what its attempts wrote")):
        action = actions.add_parser(name, help=words)
        action.add_argument("run_id", metavar="ID")
        action.set_defaults(run=function)
    for name, function, words in (
        ("cancel", run_cancel, "end a run that has not ended"),
        ("retry", run_retry, "do a run again that failed for good or was cancelled"),
    ):
        action = actions.add_parser(name, help=words)
        action.add_argument("run_id", metavar="ID")
        action.add_argument("--reason", required=True, help="why, for the record")
        action.set_defaults(run=function)
    _register_start(actions.add_parser("start", help="ask for a run, or for one of each date of a range"))


def _register_start(start: argparse.ArgumentParser) -> None:
    start.add_argument("kind", help='for example "eta-train"')
    start.add_argument("subject", help="of a training run, the name of the Model")
    dates = start.add_mutually_exclusive_group(required=True)
    dates.add_argument("--date", help="newest partition that it reads, for example 2026-11-24")
    dates.add_argument("--from", dest="first", help="first date of a backfill, together with --to")
    start.add_argument("--to", dest="last", help="last date of a backfill")
    start.add_argument("--cell", default="local")
    start.add_argument("--again", action="store_true", help="another run although there is one that has ended")
    start.add_argument("--tier", type=int, default=0, choices=(1, 2, 3), help="1 is the most important, 3 may be preempted (default 2)")
    start.add_argument("--max-attempts", type=int, default=0, help="attempts that may fail (default 3)")
    start.add_argument("--timeout", type=int, default=0, metavar="SECONDS", help="an attempt that takes longer has failed")
    start.add_argument("--max-concurrent", type=int, default=0, metavar="N", help="of its kind and subject, run so many at once at most")
    start.add_argument("--memory-mib", type=int, default=0, help="memory that it needs")
    start.add_argument("--cpu-milli", type=int, default=0, help="thousandths of a core that it needs")
    start.add_argument("--reads", action="append", default=[], metavar="DATASET", help="wait until its partition of the date is ready")
    start.add_argument("--makes", action="append", default=[], metavar="DATASET", help="its partition of the date is what the run makes")
    start.set_defaults(run=run_start)


async def run_list(arguments: argparse.Namespace) -> int:
    """A table of runs."""
    state = pb.RunState.Value(f"RUN_STATE_{arguments.state or 'UNSPECIFIED'}")
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        wanted = {"kind": arguments.kind, "subject": arguments.subject, "state": state, "schedule": arguments.schedule}
        found = await paged(lambda page: stub.ListRuns(pb.ListRunsRequest(**wanted, page=page)), "runs", arguments.limit)
    rows = [["RUN", "KIND", "SUBJECT", "DATE", "STATE", "ATTEMPT", "WORKER", "REASON"]]
    rows += [
        [
            run.run_id,
            run.kind,
            run.subject,
            run.partition_date,
            _state(run),
            f"{run.attempt}/{run.max_attempts}",
            run.worker,
            next(iter(run.reasons), ""),
        ]
        for run in found
    ]
    show(arguments, [json_format.MessageToDict(run) for run in found], table(rows))
    return 0


async def run_show(arguments: argparse.Namespace) -> int:
    """One run."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        _show(arguments, (await stub.GetRun(pb.GetRunRequest(run_id=arguments.run_id))).run)
    return 0


async def run_log(arguments: argparse.Namespace) -> int:
    """All lines, oldest first."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        lines = await paged(lambda page: stub.ListRunLog(pb.ListRunLogRequest(run_id=arguments.run_id, page=page)), "lines")
    told = [f"{line.written_at.ToDatetime():%Y-%m-%d %H:%M:%S}  {line.attempt}  {line.text}" for line in lines]
    show(arguments, [json_format.MessageToDict(line) for line in lines], told)
    return 0


async def run_cancel(arguments: argparse.Namespace) -> int:
    """Ends a run."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        _show(arguments, (await stub.CancelRun(pb.CancelRunRequest(run_id=arguments.run_id, reason=arguments.reason))).run)
    return 0


async def run_retry(arguments: argparse.Namespace) -> int:
    """Does a run again."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        request = pb.RetryRunRequest(run_id=arguments.run_id, reason=arguments.reason)
        _show(arguments, (await stub.RetryRun(request, metadata=actor())).run)
    return 0


async def run_start(arguments: argparse.Namespace) -> int:
    """Asks for a run and shows it, also where it was there already; or for those of a range, and says how many are new."""
    if (arguments.first is None) != (arguments.last is None):
        raise ArterialError(Reason.INVALID_REQUEST, "a backfill needs both --from and --to")
    terms = specs_pb2.RunTerms(
        max_attempts=arguments.max_attempts,
        timeout_seconds=arguments.timeout,
        max_concurrent=arguments.max_concurrent,
        memory_mib=arguments.memory_mib,
        cpu_milli=arguments.cpu_milli,
        tier=arguments.tier,
    )
    request = pb.CreateRunRequest(
        kind=arguments.kind,
        subject=arguments.subject,
        cell=arguments.cell,
        partition_date=arguments.date or arguments.first,
        again=arguments.again,
        terms=terms,
        inputs=[specs_pb2.ModelInput(dataset=dataset, days=1) for dataset in arguments.reads],
        produces=arguments.makes,
    )
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        if arguments.last is None:
            _show(arguments, (await stub.CreateRun(request)).run)
        else:
            made = await stub.CreateRuns(pb.CreateRunsRequest(run=request, last_date=arguments.last), timeout=BACKFILL_SECONDS)
            show(arguments, json_format.MessageToDict(made), [f"{len(made.run_ids)} new runs, {made.existing} were there"])
    return 0


def _state(run: pb.Run) -> str:
    return pb.RunState.Name(run.state).removeprefix("RUN_STATE_")


def _show(arguments: argparse.Namespace, run: pb.Run) -> None:
    lines = [f"{run.run_id}  {run.kind} {run.subject}  {run.partition_date}  {_state(run)}  attempt {run.attempt} of {run.max_attempts}"]
    lines += [f"  {reason}" for reason in run.reasons]
    lines += [f"  {name}: {value}" for name, value in sorted(run.outputs.items())]
    lines += [f"  made by schedule {run.schedule} for {run.scheduled_for.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"] if run.schedule else []
    lines += ["  was suspended"] if run.was_suspended else []
    show(arguments, json_format.MessageToDict(run), lines)
