"""`arterial get`, `describe`, `history`, `diff`, `export`, `explain` and `watch`: what the control plane has, and had."""

import argparse
import difflib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import yaml
from google.protobuf import json_format

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc as grpc_stubs
from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason
from chassis.resourcedocs import Explained, ResourceDocs
from chassis.resources import FIELD_OF_KIND, to_document
from cli.connect import paged, show, table, to_service
from cli.wait import who

# The generated stubs are typed for the synchronous runtime.
Stub = Any


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    get = commands.add_parser("get", help="resources of a kind, or one resource as YAML")
    get.add_argument("kind", type=kind)
    get.add_argument("name", nargs="?")
    get.add_argument("--as-of", metavar="VERSION|TIME", help="as it was: a resource version, or a time (ISO 8601)")
    describe = commands.add_parser("describe", help="a resource, what holds for it, what hangs on it, and its latest changes")
    history = commands.add_parser("history", help="changes of a resource, of a kind, or of all: who, when, what, why")
    history.add_argument("kind", type=kind, nargs="?", default="")
    history.add_argument("name", nargs="?", default="")
    history.add_argument("--limit", type=int, default=50)
    diff = commands.add_parser("diff", help="a resource at two versions")
    for command in (describe, diff):
        command.add_argument("kind", type=kind)
        command.add_argument("name")
    diff.add_argument("before", help="a resource version, or a time (ISO 8601)")
    diff.add_argument("after", nargs="?", help="by default: as it is now")
    export = commands.add_parser("export", help="resources as YAML, as `apply` takes them")
    export.add_argument("kind", type=kind, nargs="?", default="", help="by default all kinds")
    explain = commands.add_parser("explain", help="what a kind or a field means, from the contract itself")
    explain.add_argument("path", nargs="?", help="for example Dataset.spec.sla")
    explain.add_argument("--json-schema", action="store_true", help="a JSON Schema of all kinds, for editors")
    watch = commands.add_parser("watch", help="changes as they come")
    watch.add_argument("kinds", type=kind, nargs="*")
    for command, run in ((get, run_get), (describe, run_describe), (history, run_history), (diff, run_diff), (export, run_export)):
        command.set_defaults(run=run)
    explain.set_defaults(run=run_explain)
    watch.set_defaults(run=run_watch)


def kind(text: str) -> str:
    """A kind, or "" for all, as an argument says it. Raises ArgumentTypeError for what is none."""
    if text and text not in FIELD_OF_KIND:
        near = get_close_matches(text.title(), FIELD_OF_KIND, 1)
        raise argparse.ArgumentTypeError(
            f"{text} is no kind: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(FIELD_OF_KIND))}")
        )
    return text


def as_of(text: str | None) -> pb.AsOf | None:
    """A resource version, or a time in ISO 8601 (UTC if it names no zone). Raises INVALID_REQUEST."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and int(text) < 2**63:
        return pb.AsOf(resource_version=int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"{text} is neither a resource version nor a time (ISO 8601)") from error
    found = pb.AsOf()
    found.time.FromDatetime(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
    return found


def document(resource: resource_pb2.Resource) -> dict[str, Any]:
    """The document of a resource as people write it: without status, and without what the control plane itself writes."""
    written = to_document(resource)
    written.pop("status", None)
    kept = ("name", "labels", "owner")
    written["metadata"] = {key: value for key, value in written["metadata"].items() if key in kept}
    return written


async def listed(stub: Stub, kind: str, moment: pb.AsOf | None = None) -> list[resource_pb2.Resource]:
    """All resources of a kind (of all kinds for ""), now or then."""
    return await paged(lambda page: stub.ListResources(pb.ListResourcesRequest(kind=kind, page=page, as_of=moment)), "resources")


def _yaml(written: dict[str, Any]) -> str:
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True).rstrip()


async def _one(stub: Stub, kind: str, name: str, moment: str | None = None) -> resource_pb2.Resource:
    reply: pb.GetResourceResponse = await stub.GetResource(pb.GetResourceRequest(kind=kind, name=name, as_of=as_of(moment)))
    return reply.resource


async def run_get(arguments: argparse.Namespace) -> int:
    """One resource as YAML, or a table of a kind."""
    async with to_service(arguments, "controlplane") as channel:
        stub = grpc_stubs.ControlPlaneServiceStub(channel)
        if arguments.name:
            written = to_document(await _one(stub, arguments.kind, arguments.name, arguments.as_of))
            show(arguments, written, [_yaml(written)])
            return 0
        found = await listed(stub, arguments.kind, as_of(arguments.as_of))
    rows = [["NAME", "OWNER", "GENERATION", "VERSION", "READY"]]
    rows += [[r.metadata.name, r.metadata.owner, str(r.metadata.generation), str(r.metadata.resource_version), _ready(r)] for r in found]
    show(arguments, [to_document(resource) for resource in found], table(rows))
    return 0


def _ready(resource: resource_pb2.Resource) -> str:
    told = {condition.status for condition in resource.status.conditions if condition.type == "Ready"}
    return "False" if "False" in told else "Unknown" if "Unknown" in told else "True" if told else "-"


async def run_describe(arguments: argparse.Namespace) -> int:
    """Everything about one resource."""
    async with to_service(arguments, "controlplane") as channel:
        request = pb.DescribeResourceRequest(kind=arguments.kind, name=arguments.name)
        reply = await grpc_stubs.ControlPlaneServiceStub(channel).DescribeResource(request, timeout=10)
    show(arguments, json_format.MessageToDict(reply), _described(reply))
    return 0


def _described(reply: pb.DescribeResourceResponse) -> Iterator[str]:
    metadata = reply.resource.metadata
    yield _yaml(document(reply.resource))
    yield f"\nversion {metadata.resource_version}, generation {metadata.generation}, since {_time(metadata.created_at)}"
    if reply.HasField("promise"):
        yield "what holds for it:"
        yield from (f"  {name}: {value}" for name, value in json_format.MessageToDict(reply.promise).items())
    for condition in reply.resource.status.conditions:
        since, why = _time(condition.last_transition_time), f"{condition.reason} {condition.message}".rstrip()
        yield f"{condition.type} is {condition.status} since {since}, says {who(condition)}: {why}"
    for what, names in (("refers to", reply.refers_to), ("referred to by", reply.referred_to_by)):
        yield from [f"{what} {', '.join(names)}"] * bool(names)
    for moment in reply.next_ticks:
        yield f"ticks next {_time(moment)} UTC"
    for each in reply.dependents:
        yield f"{'written' if each.producer else 'felt'} by {each.name}" + f" (tier {each.tier}, {each.owner})" * bool(each.tier)
    yield from [f"who would feel a change is not known: {reply.dependents_unknown}"] * bool(reply.dependents_unknown)
    yield "changes:"
    yield from (f"  {line}" for line in _history(reply.changes))


def _history(changes: Any) -> list[str]:
    rows = [["VERSION", "TIME", "WHO", "WHAT", "WHY"]]
    for change in changes:
        action = pb.Change.Action.Name(change.change.action).removeprefix("ACTION_").lower()
        what = f"{action} {change.change.kind}/{change.change.name}" if change.HasField("change") else "status"
        fields = ", ".join(field.path for field in change.change.fields) if change.change.action == pb.Change.ACTION_UPDATE else ""
        rows.append([str(change.resource_version), _time(change.time), change.actor, f"{what} {fields}".strip(), change.message])
    return table(rows)


def _time(moment: Any) -> str:
    return str(moment.ToDatetime().isoformat(sep=" ", timespec="seconds"))


async def run_history(arguments: argparse.Namespace) -> int:
    """The log, newest first."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Stub = grpc_stubs.ControlPlaneServiceStub(channel)
        wanted = {"kind": arguments.kind, "name": arguments.name}
        found = await paged(lambda page: stub.ListChanges(pb.ListChangesRequest(**wanted, page=page)), "changes", arguments.limit)
    show(arguments, [json_format.MessageToDict(change) for change in found], _history(found))
    return 0


async def run_diff(arguments: argparse.Namespace) -> int:
    """Exit status 1 if they differ, as diff has it."""
    async with to_service(arguments, "controlplane") as channel:
        stub = grpc_stubs.ControlPlaneServiceStub(channel)
        moments = (arguments.before, arguments.after)
        before, after = [_yaml(document(await _one(stub, arguments.kind, arguments.name, moment))).splitlines() for moment in moments]
    lines = list(difflib.unified_diff(before, after, str(arguments.before), str(arguments.after or "now"), lineterm=""))
    show(arguments, {"diff": lines}, lines)
    return 1 if lines else 0


async def run_export(arguments: argparse.Namespace) -> int:
    """All resources, one document each."""
    async with to_service(arguments, "controlplane") as channel:
        found = [document(resource) for resource in await listed(grpc_stubs.ControlPlaneServiceStub(channel), arguments.kind)]
    show(arguments, found, ["\n---\n".join(_yaml(written) for written in found)])
    return 0


def run_explain(arguments: argparse.Namespace) -> int:
    """Needs no control plane."""
    docs = ResourceDocs()
    if arguments.json_schema:
        print(json.dumps(docs.json_schema(), indent=2))
        return 0
    try:
        explained = docs.explain(arguments.path or "")
    except LookupError as error:
        raise ArterialError(Reason.NOT_FOUND, str(error)) from error
    show(arguments, {"path": explained.path, "type": explained.type, "text": explained.text}, _explained(explained))
    return 0


def _explained(explained: Explained) -> Iterator[str]:
    yield f"{explained.path} ({explained.type})" + f"  {explained.constraints}" * bool(explained.constraints)
    yield from (f"  {line}" for line in explained.text.splitlines())
    for field in explained.fields:
        name = field.path.rsplit(".", 1)[1]
        yield f"  {name} ({field.type})" + f"  {field.constraints}" * bool(field.constraints)
        yield from (f"      {line}" for line in field.text.splitlines()[:1])


async def run_watch(arguments: argparse.Namespace) -> int:
    """Prints changes until interrupted."""
    async with to_service(arguments, "controlplane") as channel:
        async for event in grpc_stubs.ControlPlaneServiceStub(channel).Watch(pb.WatchRequest(kinds=arguments.kinds)):
            name = pb.WatchResponse.Type.Name(event.type).removeprefix("TYPE_")
            what = f"{event.resource.kind}/{event.resource.metadata.name}" if event.HasField("resource") else ""
            show(arguments, json_format.MessageToDict(event), [f"{event.resource_version:>8} {name:<8}{what}"])
    return 0
