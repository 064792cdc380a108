"""`arterial partitions`: what the gate says of the partitions of datasets."""

import argparse
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1alpha1 import partition_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import partition_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from cli.connect import show, table, to_service

STATES = ("READY", "BLOCKED", "UNKNOWN")
PAGE = 1000


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    partitions = commands.add_parser("partitions", help="states of dataset partitions, newest date first")
    partitions.add_argument("dataset", nargs="?", default="", help="logical name, for example lake/curated/trips")
    partitions.add_argument("--state", default="", choices=STATES)
    partitions.add_argument("--cell", default="local")
    partitions.add_argument("--limit", type=int, default=100, help="partitions at most")
    partitions.set_defaults(run=run)


async def run(arguments: argparse.Namespace) -> int:
    """A table of partitions."""
    found: list[pb.Partition] = []
    state = pb.PartitionState.Value(f"PARTITION_STATE_{arguments.state or 'UNSPECIFIED'}")
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = partition_service_pb2_grpc.PartitionServiceStub(channel)
        token = ""
        while len(found) < arguments.limit:
            page = page_pb2.PageRequest(page_size=min(PAGE, arguments.limit - len(found)), page_token=token)
            request = pb.ListPartitionsRequest(cell=arguments.cell, dataset=arguments.dataset, state=state, page=page)
            reply = await stub.ListPartitions(request)
            found += reply.partitions
            token = reply.page.next_page_token
            if not token:
                break
    rows = [["DATE", "DATASET", "STATE", "VERSION", "REASONS"]]
    rows += [
        [
            partition.partition_date,
            partition.dataset,
            pb.PartitionState.Name(partition.state).removeprefix("PARTITION_STATE_"),
            str(partition.table_version),
            "; ".join(partition.reasons),
        ]
        for partition in found
    ]
    show(arguments, [json_format.MessageToDict(partition) for partition in found], table(rows))
    return 0
