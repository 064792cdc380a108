"""`arterial partitions`: what the gate says of the partitions of datasets, and overriding it."""

import argparse
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import partition_service_pb2_grpc
from chassis.errors import ArterialError, Reason
from cli.connect import paged, show, table, to_service
from cli.resources import actor

STATES = ("PENDING", "RUNNING", "READY", "FAILED", "BLOCKED", "UNKNOWN")
USAGE = """partitions [DATASET] [--state STATE]
       arterial partitions show DATASET DATE
       arterial partitions override DATASET DATE --state ready|blocked --reason WHY
       arterial partitions override DATASET DATE --withdraw --reason WHY
       arterial partitions overrides [DATASET]
       arterial partitions watch [DATASET]"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    partitions = commands.add_parser(
        "partitions", help="states of dataset partitions, newest date first; override one", usage=f"arterial {USAGE}"
    )
    partitions.add_argument("words", nargs="*", metavar="DATASET", help="logical name, for example lake/curated/trips")
    partitions.add_argument("--state", default="", type=str.upper, choices=STATES)
    partitions.add_argument("--reason", default="", help="why it is overridden, or no longer, for the record")
    partitions.add_argument("--withdraw", action="store_true", help="withdraw the override: the state follows from the verdicts again")
    partitions.add_argument("--cell", default="local")
    partitions.add_argument("--limit", type=int, default=100, help="lines at most")
    partitions.set_defaults(run=run)


async def run(arguments: argparse.Namespace) -> int:
    """Does what the first word says; without one of its words, lists."""
    words: list[str] = arguments.words
    action, rest = (words[0], words[1:]) if words and words[0] in _ACTIONS else ("", words)
    function, fewest, most = _ACTIONS[action]
    if not fewest <= len(rest) <= most:
        raise ArterialError(Reason.INVALID_REQUEST, f"usage: arterial {USAGE}")
    async with to_service(arguments, "controlplane") as channel:
        await function(arguments, partition_service_pb2_grpc.PartitionServiceStub(channel), *rest)
    return 0


async def _list(arguments: argparse.Namespace, stub: Any, dataset: str = "") -> None:
    state = pb.PartitionState.Value(f"PARTITION_STATE_{arguments.state or 'UNSPECIFIED'}")
    found = await paged(
        lambda page: stub.ListPartitions(pb.ListPartitionsRequest(cell=arguments.cell, dataset=dataset, state=state, page=page)),
        "partitions",
        arguments.limit,
    )
    rows = [["DATE", "DATASET", "STATE", "VERSION", "REASONS"], *map(_row, found)]
    show(arguments, [json_format.MessageToDict(partition) for partition in found], table(rows))


async def _show(arguments: argparse.Namespace, stub: Any, dataset: str, day: str) -> None:
    reply = await stub.GetPartition(pb.GetPartitionRequest(cell=arguments.cell, dataset=dataset, partition_date=day))
    lines = _lines(reply.partition)
    for verdict in reply.verdicts:
        aspect, said = (pb.Aspect.Name(verdict.aspect), pb.Verdict.Name(verdict.verdict))
        measured = f" ({_measured(verdict)})" if verdict.HasField("value") else ""
        told = f"  {aspect.removeprefix('ASPECT_').lower()}: {said.removeprefix('VERDICT_')}{measured} at version {verdict.table_version}"
        lines.append(": ".join([told, *filter(None, ["; ".join(verdict.reasons)])]))
    show(arguments, json_format.MessageToDict(reply), lines)


async def _override(arguments: argparse.Namespace, stub: Any, dataset: str, day: str) -> None:
    if not arguments.reason or bool(arguments.state) == arguments.withdraw:
        raise ArterialError(Reason.INVALID_REQUEST, "override needs --reason, and either --state or --withdraw")
    where = {"cell": arguments.cell, "dataset": dataset, "partition_date": day, "reason": arguments.reason}
    if arguments.withdraw:
        reply = await stub.WithdrawOverride(pb.WithdrawOverrideRequest(**where), metadata=actor())
    else:
        state = pb.PartitionState.Value(f"PARTITION_STATE_{arguments.state}")
        reply = await stub.OverridePartition(pb.OverridePartitionRequest(state=state, **where), metadata=actor())
    show(arguments, json_format.MessageToDict(reply.partition), _lines(reply.partition))


async def _overrides(arguments: argparse.Namespace, stub: Any, dataset: str = "") -> None:
    wanted = {"cell": arguments.cell, "dataset": dataset}
    found = await paged(lambda page: stub.ListOverrides(pb.ListOverridesRequest(**wanted, page=page)), "overrides", arguments.limit)
    rows = [["MADE", "DATASET", "DATE", "STATE", "BY", "REASON", "WITHDRAWN"]]
    for made in found:
        ended = f"{made.withdrawn_at.ToDatetime():%Y-%m-%d %H:%M} by {made.withdrawn_by}: {made.withdrawn_because}"
        when, withdrawn = f"{made.made_at.ToDatetime():%Y-%m-%d %H:%M}", ended if made.HasField("withdrawn_at") else ""
        rows.append([when, made.dataset, made.partition_date, _state(made.state), made.actor, made.reason, withdrawn])
    show(arguments, [json_format.MessageToDict(made) for made in found], table(rows))


async def _watch(arguments: argparse.Namespace, stub: Any, dataset: str = "") -> None:
    async for event in stub.WatchPartitions(pb.WatchPartitionsRequest(cell=arguments.cell, dataset=dataset)):
        if event.HasField("partition"):
            show(arguments, json_format.MessageToDict(event.partition), ["  ".join(_row(event.partition))])


_ACTIONS: dict[str, tuple[Any, int, int]] = {
    "": (_list, 0, 1),
    "show": (_show, 2, 2),
    "override": (_override, 2, 2),
    "overrides": (_overrides, 0, 1),
    "watch": (_watch, 0, 1),
}


def _state(state: pb.PartitionState.ValueType) -> str:
    return pb.PartitionState.Name(state).removeprefix("PARTITION_STATE_")


def _measured(verdict: pb.PartitionVerdict) -> str:
    return f"{verdict.value:,.0f} s" if verdict.aspect == pb.ASPECT_FRESHNESS else f"{verdict.value:.2f} %"


def _row(partition: pb.Partition) -> list[str]:
    state, version = _state(partition.state), str(partition.table_version)
    return [partition.partition_date, partition.dataset, state, version, "; ".join(partition.reasons)]


def _lines(partition: pb.Partition) -> list[str]:
    return [
        f"{partition.dataset} {partition.partition_date} is {_state(partition.state)}",
        *(f"  {reason}" for reason in partition.reasons),
    ]
