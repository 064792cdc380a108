"""`arterial slo`: how declared objectives are met."""

import argparse
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.controlplane.v1alpha1 import slo_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import slo_service_pb2_grpc
from cli.connect import paged, show, table, to_service

HEADING = ["NAME", "DATASET", "INDICATOR", "CELL", "STATUS", "SHARE", "OBJECTIVE", "BUDGET LEFT", "WINDOW", "MEASURED SINCE"]


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    slo = commands.add_parser("slo", help="how declared objectives are met: share, error budget left, by cell")
    slo.add_argument("name", nargs="?", help="of one Slo; by default all")
    slo.set_defaults(run=run)


async def run(arguments: argparse.Namespace) -> int:
    """Shows one objective or all; the exit status says only whether it could be asked."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = slo_service_pb2_grpc.SloServiceStub(channel)
        if arguments.name:
            found = [(await stub.GetSloStatus(pb.GetSloStatusRequest(name=arguments.name))).status]
        else:
            found = await paged(lambda page: stub.ListSloStatuses(pb.ListSloStatusesRequest(page=page)), "statuses")
    documents = [json_format.MessageToDict(status, always_print_fields_with_no_presence=True) for status in found]
    rows = [row for status in found for row in _rows(status)]
    show(arguments, documents[0] if arguments.name else documents, table([HEADING, *rows]) if rows else ["no objectives"])
    return 0


def _rows(status: pb.SloStatus) -> Iterator[list[str]]:
    indicator = specs_pb2.SloIndicator.Name(status.indicator).removeprefix("SLO_INDICATOR_").lower()
    what, wanted = [status.name, status.dataset, indicator], f"{status.objective_percent:g} %"
    if not status.cells:
        yield [*what, "-", "not measured", "-", wanted, "-", f"{status.window_days} d", "-"]
    for cell in status.cells:
        standing = pb.SloStanding.Name(cell.standing).removeprefix("SLO_STANDING_").replace("_", " ").lower()
        share, left = f"{cell.share_percent:.3f} %", f"{cell.budget_left_percent:.1f} %"
        since = cell.measured_since.ToDatetime().isoformat(sep=" ", timespec="minutes")
        yield [*what, cell.cell, standing, share, wanted, left, f"{status.window_days} d", since]
