"""`arterial wait`: until every process that acts on a resource says that it is ready."""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc as grpc_stubs
from arterial.api.controlplane.v1 import resource_pb2
from chassis.resources import key_told
from cli.connect import show, to_service

ASK_SECONDS = 0.5


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    wait = commands.add_parser("wait", help="wait until the processes that act on a resource say that it is ready")
    wait.add_argument("resource", metavar="KIND/NAME")
    wait.add_argument("--for", dest="aspect", choices=("ready",), default="ready", help="what to wait for (default ready)")
    wait.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="give up after this (default 60)")
    wait.set_defaults(run=run_wait)


def unready(resource: resource_pb2.Resource) -> list[str]:
    """Why the resource is not ready, one line each; empty if it is: who reported did so of this generation, and holds it for ready."""
    told = [condition for condition in resource.status.conditions if condition.type == "Ready"]
    generation = resource.metadata.generation
    wrong = [
        f"{who(condition)} is at generation {condition.observed_generation} of {generation}"
        for condition in told
        if condition.observed_generation < generation
    ]
    wrong += [
        f"{who(condition)}: {condition.reason} {condition.message}".rstrip()
        for condition in resource.status.conditions
        if (condition.type in ("Ready", "RolledOut") and condition.status != "True") or condition.status == "False"
    ]
    return wrong if told or wrong else ["no process has reported"]


def who(condition: resource_pb2.Condition) -> str:
    """Who reported it."""
    return "/".join(part for part in (condition.cell, condition.component) if part) or "a process"


async def run_wait(arguments: argparse.Namespace) -> int:
    """Exit status 0 when it is ready, 1 if it is not in time; reasons are shown as they change."""
    kind, name = key_told(arguments.resource)

    def changed(lines: Iterable[str]) -> None:
        if arguments.output == "text":
            print(*(f"waiting: {line}" for line in lines), sep="\n", flush=True)

    async with to_service(arguments, "controlplane") as channel:
        stub = grpc_stubs.ControlPlaneServiceStub(channel)
        resource, wrong = await until_ready(stub, kind, name, arguments.timeout, changed)
    status = json_format.MessageToDict(resource.status)
    show(arguments, {"ready": not wrong, "reasons": wrong, "status": status}, [f"{arguments.resource} is {'not ' if wrong else ''}ready"])
    return 1 if wrong else 0


async def until_ready(
    stub: Any, kind: str, name: str, timeout: float, changed: Callable[[Iterable[str]], None]
) -> tuple[resource_pb2.Resource, list[str]]:
    """Asks until the resource is ready or the time is over; the resource, and why it is not ready. Raises NOT_FOUND."""
    deadline, shown = time.monotonic() + timeout, [""]
    while True:
        resource: resource_pb2.Resource = (await stub.GetResource(pb.GetResourceRequest(kind=kind, name=name))).resource
        wrong = unready(resource)
        if not wrong or time.monotonic() >= deadline:
            return resource, wrong
        if wrong != shown:
            changed(wrong)
            shown = wrong
        await asyncio.sleep(ASK_SECONDS)
