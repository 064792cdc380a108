"""`arterial plan`, `apply`, `get`, `delete` and `watch`: the control plane's resources."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml
from google.protobuf import json_format

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc as grpc_stubs
from arterial.api.controlplane.v1 import resource_pb2
from arterial.api.types.v1 import page_pb2
from chassis import resources
from cli.connect import show, table, to_service

SIGNS = {pb.Change.ACTION_CREATE: "+", pb.Change.ACTION_UPDATE: "~", pb.Change.ACTION_NONE: " "}


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    plan = commands.add_parser("plan", help="what applying files or folders would change")
    plan.add_argument("paths", nargs="+", type=Path)
    plan.set_defaults(run=run_plan)
    apply = commands.add_parser("apply", help="make the resources of files or folders so, all or none")
    apply.add_argument("paths", nargs="+", type=Path)
    apply.add_argument("--approve", action="append", default=[], metavar="KIND/NAME:PATH", help="a one-way door to go through")
    apply.add_argument("--message", default="", help="why, for the record")
    apply.set_defaults(run=run_apply)
    get = commands.add_parser("get", help="resources of a kind, or one resource as YAML")
    get.add_argument("kind")
    get.add_argument("name", nargs="?")
    get.set_defaults(run=run_get)
    delete = commands.add_parser("delete", help="delete a resource")
    delete.add_argument("kind")
    delete.add_argument("name")
    delete.set_defaults(run=run_delete)
    watch = commands.add_parser("watch", help="changes as they come")
    watch.add_argument("kinds", nargs="*")
    watch.set_defaults(run=run_watch)


async def run_plan(arguments: argparse.Namespace) -> int:
    """Shows the changes."""
    async with to_service(arguments, "controlplane") as channel:
        wanted = resources.read(arguments.paths)
        reply = await grpc_stubs.ControlPlaneServiceStub(channel).Plan(pb.PlanRequest(resources=wanted), timeout=10)
    _show_changes(arguments, reply.changes)
    return 0


async def run_apply(arguments: argparse.Namespace) -> int:
    """Applies and shows the changes."""
    async with to_service(arguments, "controlplane") as channel:
        request = pb.ApplyRequest(resources=resources.read(arguments.paths), approvals=arguments.approve, message=arguments.message)
        reply = await grpc_stubs.ControlPlaneServiceStub(channel).Apply(request, timeout=30)
    _show_changes(arguments, reply.changes)
    return 0


def _show_changes(arguments: argparse.Namespace, changes: Sequence[pb.Change]) -> None:
    lines = []
    for change in changes:
        if change.action != pb.Change.ACTION_NONE:
            lines.append(f"{SIGNS[change.action]} {change.kind}/{change.name}")
            lines += [
                f"    {field.path}: {field.before or '(none)'} -> {field.after or '(none)'}"
                + ("  (one-way door)" if field.one_way_door else "")
                for field in change.fields
            ]
    changed = sum(change.action != pb.Change.ACTION_NONE for change in changes)
    document = {"changes": [json_format.MessageToDict(change) for change in changes]}
    show(arguments, document, [*lines, f"{changed} of {len(changes)} resources change"])


async def run_get(arguments: argparse.Namespace) -> int:
    """One resource as YAML, or a table of a kind."""
    async with to_service(arguments, "controlplane") as channel:
        stub = grpc_stubs.ControlPlaneServiceStub(channel)
        if arguments.name:
            reply = await stub.GetResource(pb.GetResourceRequest(kind=arguments.kind, name=arguments.name))
            document = resources.to_document(reply.resource)
            show(arguments, document, [yaml.safe_dump(document, sort_keys=False).rstrip()])
            return 0
        found: list[resource_pb2.Resource] = []
        token = ""
        while True:
            page = page_pb2.PageRequest(page_size=1000, page_token=token)
            listed = await stub.ListResources(pb.ListResourcesRequest(kind=arguments.kind, page=page))
            found += listed.resources
            token = listed.page.next_page_token
            if not token:
                break
    rows = [["NAME", "OWNER", "GENERATION", "VERSION"]]
    rows += [[r.metadata.name, r.metadata.owner, str(r.metadata.generation), str(r.metadata.resource_version)] for r in found]
    show(arguments, [resources.to_document(resource) for resource in found], table(rows))
    return 0


async def run_delete(arguments: argparse.Namespace) -> int:
    """Deletes one resource."""
    async with to_service(arguments, "controlplane") as channel:
        request = pb.DeleteResourceRequest(kind=arguments.kind, name=arguments.name)
        reply = await grpc_stubs.ControlPlaneServiceStub(channel).DeleteResource(request, timeout=10)
    show(arguments, {"resource_version": reply.resource_version}, [f"- {arguments.kind}/{arguments.name}"])
    return 0


async def run_watch(arguments: argparse.Namespace) -> int:
    """Prints changes until interrupted."""
    async with to_service(arguments, "controlplane") as channel:
        async for event in grpc_stubs.ControlPlaneServiceStub(channel).Watch(pb.WatchRequest(kinds=arguments.kinds)):
            name = pb.WatchResponse.Type.Name(event.type).removeprefix("TYPE_")
            what = f"{event.resource.kind}/{event.resource.metadata.name}" if event.HasField("resource") else ""
            show(arguments, json_format.MessageToDict(event), [f"{event.resource_version:>8} {name:<8}{what}"])
    return 0
