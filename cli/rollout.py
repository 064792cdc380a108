"""`arterial rollout status` and `abort`: changes that go from cell to cell."""

import argparse
from datetime import UTC
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1alpha1 import rollout_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import rollout_service_pb2_grpc
from chassis.resources import key_told
from cli.connect import paged, show, table, to_service
from cli.resources import APPLY_SECONDS, actor, add_why, show_changes


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    rollout = commands.add_parser("rollout", help="changes that go from cell to cell (apply --canary)")
    actions = rollout.add_subparsers(dest="action", required=True)
    status = actions.add_parser("status", help="where they stand; exit status 1 if one was halted")
    status.add_argument("resource", nargs="?", default="", metavar="KIND/NAME")
    status.set_defaults(run=run_status)
    abort = actions.add_parser("abort", help="make a resource, or all that are under way or halted, what the other cells still see")
    abort.add_argument("resource", nargs="?", default="", metavar="KIND/NAME")
    add_why(abort)
    abort.set_defaults(run=run_abort)


async def run_status(arguments: argparse.Namespace) -> int:
    """The last rollout of each resource, or of one."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = rollout_service_pb2_grpc.RolloutServiceStub(channel)
        found = await paged(lambda page: stub.ListRollouts(pb.ListRolloutsRequest(page=page)), "rollouts")
    chosen = [each for each in found if arguments.resource in ("", f"{each.kind}/{each.name}")]
    rows = [["RESOURCE", "GENERATION", "STATE", "SHOWN TO", "WAITING", "SINCE", "REASON"]]
    rows += [
        [
            f"{each.kind}/{each.name}",
            "removed" if each.removal else str(each.generation),
            pb.RolloutState.Name(each.state).removeprefix("ROLLOUT_STATE_").lower(),
            ",".join(each.shown_cells),
            ",".join(each.waiting_cells) or "-",
            each.moved_at.ToDatetime(UTC).isoformat(timespec="seconds"),
            each.reason,
        ]
        for each in chosen
    ]
    show(arguments, [json_format.MessageToDict(each) for each in chosen], table(rows) if chosen else ["no rollouts"])
    return 1 if any(each.state == pb.ROLLOUT_STATE_HALTED for each in chosen) else 0


async def run_abort(arguments: argparse.Namespace) -> int:
    """Shows what is changed. Raises INVALID_REQUEST for what is no KIND/NAME."""
    kind, name = key_told(arguments.resource) if arguments.resource else ("", "")
    request = pb.AbortRolloutsRequest(kind=kind, name=name, message=arguments.message, approvals=arguments.approve)
    async with to_service(arguments, "controlplane") as channel:
        reply = await rollout_service_pb2_grpc.RolloutServiceStub(channel).AbortRollouts(request, timeout=APPLY_SECONDS, metadata=actor())
    show_changes(arguments, reply.changes, retirements=reply.retirements)
    return 0
