"""`arterial plan`, `apply`, `edit`, `delete` and `rollback`: changing the control plane's resources."""

import argparse
import asyncio
import difflib
import getpass
import json
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc as grpc_stubs
from arterial.api.controlplane.v1 import resource_pb2
from chassis import resourcefiles
from chassis.errors import ArterialError, Reason
from chassis.resourcefiles import Declared, located
from cli.connect import show, to_service
from cli.inspecting import as_of, document, kind, listed

SIGNS = {pb.Change.ACTION_CREATE: "+", pb.Change.ACTION_UPDATE: "~", pb.Change.ACTION_DELETE: "-"}
PLAN_SECONDS, APPLY_SECONDS = 30.0, 60.0
# What the line of a change says already.
_OBVIOUS = frozenset({"apiVersion", "kind", "metadata.name"})


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    plan = commands.add_parser("plan", help="what applying files or folders would change, and who would feel it")
    apply = commands.add_parser("apply", help="make the resources of files or folders so, all or none")
    for command in (plan, apply):
        command.add_argument("paths", nargs="+", type=Path)
        command.add_argument("--prune", metavar="LABEL=VALUE", action="append", help="remove resources with the label that are not given")
    edit = commands.add_parser("edit", help="edit a resource in $EDITOR")
    delete = commands.add_parser("delete", help="delete a resource, or those of files or folders, all or none")
    rollback = commands.add_parser("rollback", help="make one resource, or all, what they were at a version")
    edit.add_argument("kind", type=kind)
    edit.add_argument("name")
    delete.add_argument("kind", type=kind, nargs="?")
    delete.add_argument("name", nargs="?")
    delete.add_argument("-f", "--file", action="append", default=[], type=Path, metavar="PATH", help="a file, or a folder of files")
    rollback.add_argument("kind", type=kind, nargs="?", help="without a kind: all resources")
    rollback.add_argument("name", nargs="?")
    rollback.add_argument("--to", required=True, metavar="VERSION|TIME", help="resource version, or time (ISO 8601)")
    for command in (apply, edit, delete, rollback):
        add_why(command)
    for command in (apply, edit, rollback):
        command.add_argument(
            "--canary", default="", metavar="CELL", help="show it to this cell first, then to the others while all is well"
        )
    for command, run in ((plan, run_plan), (apply, run_apply), (edit, run_edit), (delete, run_delete), (rollback, run_rollback)):
        command.set_defaults(run=run)


def add_why(command: argparse.ArgumentParser) -> None:
    """What a command that changes resources is told besides: which doors may be gone through, and why."""
    command.add_argument(
        "--approve", action=_Approvals, default=[], metavar="KIND/NAME:PATH[,...]", help="one-way doors to go through, as they are told"
    )
    command.add_argument("--message", default="", help="why, for the record")


class _Approvals(argparse.Action):
    """Doors, one by one or in a list, as a refusal names them."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Adds to those given before."""
        doors = [door.strip() for door in values.split(",")]
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), *filter(None, doors)])


def actor() -> tuple[tuple[str, str]]:
    """Metadata that says who changes something."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        name = str(os.getuid())
    return (("arterial-actor", name),)


async def run_plan(arguments: argparse.Namespace) -> int:
    """Shows the changes; exit status 0 also if there are some."""
    written = resourcefiles.declared(arguments.paths)
    async with to_service(arguments, "controlplane") as channel:
        request = pb.PlanRequest(resources=[each.resource for each in written], prune=_prune(arguments.prune))
        with located(written):
            reply = await grpc_stubs.ControlPlaneServiceStub(channel).Plan(request, timeout=PLAN_SECONDS)
    show_changes(arguments, reply.changes, reply.dependents_unknown)
    return 0


async def run_apply(arguments: argparse.Namespace) -> int:
    """Applies and shows the changes."""
    written = resourcefiles.declared(arguments.paths)
    await _apply(arguments, [each.resource for each in written], written, _prune(arguments.prune))
    return 0


async def run_edit(arguments: argparse.Namespace) -> int:
    """Opens a resource in an editor; what is saved is applied, unless somebody else changed it meanwhile."""
    async with to_service(arguments, "controlplane") as channel:
        request = pb.GetResourceRequest(kind=arguments.kind, name=arguments.name)
        current = (await grpc_stubs.ControlPlaneServiceStub(channel).GetResource(request)).resource
    before = yaml.safe_dump(document(current), sort_keys=False, allow_unicode=True)
    with tempfile.TemporaryDirectory(prefix="arterial-edit-") as folder:
        file = Path(folder) / "resource.yaml"
        file.write_text(before)
        words = os.environ.get("EDITOR") or "vi"
        try:
            editor = await asyncio.create_subprocess_exec(*shlex.split(words), str(file))
        except (OSError, ValueError) as error:
            raise ArterialError(Reason.REFUSED, f"the editor {words} (EDITOR) cannot be started: {error}") from error
        status = await editor.wait()
        if status:
            raise ArterialError(Reason.REFUSED, f"the editor ended with status {status}: nothing is changed")
        if file.read_text() == before:
            show(arguments, {"changes": []}, ["nothing is changed"])
            return 0
        written = resourcefiles.declared([file])
    if [(each.resource.kind, each.resource.metadata.name) for each in written] != [(arguments.kind, arguments.name)]:
        raise ArterialError(Reason.INVALID_REQUEST, f"the file must hold {arguments.kind}/{arguments.name} and nothing else")
    written[0].resource.metadata.resource_version = current.metadata.resource_version
    await _apply(arguments, [written[0].resource], written)
    return 0


async def run_delete(arguments: argparse.Namespace) -> int:
    """Deletes one resource, or together what files declare and is still there. Raises INVALID_REQUEST unless it is told which."""
    if bool(arguments.file) == bool(arguments.kind) or bool(arguments.kind) != bool(arguments.name):
        raise ArterialError(Reason.INVALID_REQUEST, "usage: arterial delete KIND NAME, or arterial delete -f PATH")
    if arguments.file:
        found = [each.resource for each in resourcefiles.declared(arguments.file)]
        removals = [pb.ResourceName(kind=each.kind, name=each.metadata.name) for each in found]
        await _send(arguments, pb.ApplyRequest(removals=removals, approvals=arguments.approve, message=arguments.message))
        return 0
    async with to_service(arguments, "controlplane") as channel:
        request = pb.DeleteResourceRequest(kind=arguments.kind, name=arguments.name, approvals=arguments.approve, message=arguments.message)
        reply = await grpc_stubs.ControlPlaneServiceStub(channel).DeleteResource(request, timeout=APPLY_SECONDS, metadata=actor())
    document = {"resource_version": reply.resource_version, "retirements": [json_format.MessageToDict(each) for each in reply.retirements]}
    show(arguments, document, [f"- {arguments.kind}/{arguments.name}", *map(_retirement, reply.retirements)])
    return 0


async def run_rollback(arguments: argparse.Namespace) -> int:
    """Applies a past state: a change like any other, with its own place in the log."""
    moment = as_of(arguments.to)
    arguments.message = arguments.message or f"rollback to {arguments.to}"
    async with to_service(arguments, "controlplane") as channel:
        stub = grpc_stubs.ControlPlaneServiceStub(channel)
        if arguments.kind:
            request = pb.GetResourceRequest(kind=arguments.kind, name=arguments.name or "", as_of=moment)
            past = [(await stub.GetResource(request)).resource]
        else:
            past = await listed(stub, "", moment)
    for resource in past:
        resource.ClearField("status")
        resource.metadata.resource_version = 0
    await _apply(arguments, past, prune=None if arguments.kind else pb.Prune())
    return 0


async def _apply(
    arguments: argparse.Namespace,
    resources: Sequence[resource_pb2.Resource],
    written: Sequence[Declared] = (),
    prune: pb.Prune | None = None,
) -> None:
    why = {"approvals": arguments.approve, "message": arguments.message}
    await _send(arguments, pb.ApplyRequest(resources=resources, prune=prune, canary=arguments.canary, **why), written)


async def _send(arguments: argparse.Namespace, request: pb.ApplyRequest, written: Sequence[Declared] = ()) -> None:
    async with to_service(arguments, "controlplane") as channel:
        with located(written):
            reply = await grpc_stubs.ControlPlaneServiceStub(channel).Apply(request, timeout=APPLY_SECONDS, metadata=actor())
    show_changes(arguments, reply.changes, retirements=reply.retirements)


def _prune(labels: Sequence[str] | None) -> pb.Prune | None:
    """Raises INVALID_REQUEST for what is no LABEL=VALUE."""
    if labels is None:
        return None
    pairs = dict(label.split("=", 1) for label in labels if "=" in label)
    if len(pairs) < len(labels):
        raise ArterialError(Reason.INVALID_REQUEST, "--prune takes LABEL=VALUE")
    return pb.Prune(labels=pairs)


def show_changes(
    arguments: argparse.Namespace, changes: Sequence[pb.Change], unknown: str = "", retirements: Sequence[pb.Retirement] = ()
) -> None:
    """What a plan or an apply says, for people and for programs."""
    lines = [line for change in changes if change.action != pb.Change.ACTION_NONE for line in shown(change)]
    changed = sum(change.action != pb.Change.ACTION_NONE for change in changes)
    documents: dict[str, Any] = {"changes": [json_format.MessageToDict(change) for change in changes], "dependentsUnknown": unknown}
    documents["retirements"] = [json_format.MessageToDict(each) for each in retirements]
    lines += [f"who would feel it is not known: {unknown}"] * bool(unknown)
    lines += map(_retirement, retirements)
    show(arguments, documents, [*lines, f"{changed} of {len(changes)} resources change"])


def _retirement(each: pb.Retirement) -> str:
    due = f"{each.due_at.ToDatetime():%Y-%m-%d %H:%M} UTC"
    return f"  {each.drops} of {each.kind}/{each.name} in cell {each.cell} are dropped on {due}, unless {each.run_id} is cancelled"


def shown(change: pb.Change) -> list[str]:
    """A change for people: a line for itself, some for each field, one for who would feel it."""
    lines = [f"{SIGNS[change.action]} {change.kind}/{change.name}"]
    for field in change.fields:
        if field.path not in _OBVIOUS:
            lines += _field(change, field)
        if field.one_way_door:
            lines.append(f"      one-way door: {field.reason}; --approve {change.kind}/{change.name}:{field.path}")
    for producer, what in ((False, "felt by"), (True, "written by")):
        told = ", ".join(
            f"{each.name} ({', '.join([f'tier {each.tier}'] * (each.tier > 0) + [each.owner] * bool(each.owner)) or 'not declared'})"
            for each in change.dependents
            if each.producer is producer
        )
        lines += [f"    {what} {told}"] * bool(told)
    return lines


def _field(change: pb.Change, field: pb.FieldChange) -> list[str]:
    """A text of several lines is shown by its changed lines, a new one by how many it has."""
    before, after = (_lines(value) for value in (field.before, field.after))
    if change.action == pb.Change.ACTION_UPDATE and max(len(before), len(after)) > 1:
        changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
        return [f"    {field.path}:", *(f"      {line}" for line in changed)]
    if change.action == pb.Change.ACTION_UPDATE:
        return [f"    {field.path}: {field.before or '(none)'} -> {field.after or '(none)'}"]
    return [f"    {field.path}: {field.after if len(after) < 2 else f'{len(after)} lines'}"] if field.after else []


def _lines(value: str) -> list[str]:
    text = json.loads(value) if value else ""
    return text.splitlines() if isinstance(text, str) else [value]
