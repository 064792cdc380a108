"""`arterial schema`: schemas of topics, and who would feel a change of theirs."""

import argparse
import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc, schema_registry_service_pb2_grpc, specs_pb2
from arterial.api.controlplane.v1 import schema_registry_service_pb2 as pb
from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as lineage
from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc
from arterial.channel import Channel
from chassis.errors import ArterialError, Reason
from cli import schemafiles
from cli.connect import paged, show, table, to_service
from cli.inspecting import listed

SUFFIX = "-value"
# Exit status of `check`: what breaks somebody of tier 1 is told apart, so that a pipeline can stop harder.
COMPATIBLE, INCOMPATIBLE, INCOMPATIBLE_TIER_1 = 0, 1, 3


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    actions = commands.add_parser("schema", help="schemas of topics: check, register, list, get").add_subparsers(
        dest="action", required=True
    )
    text = "Exit status: 0 compatible; 1 not compatible; 3 not compatible, and something of tier 1 would feel it."
    check = actions.add_parser("check", help="whether a file could be registered, and who would feel it", description=text)
    check.add_argument("--against", type=_version, default=0, metavar="VERSION", help="only this version counts")
    check.set_defaults(run=run_check)
    put = actions.add_parser("register", help="register a file as a version of a subject")
    put.set_defaults(run=run_register)
    for action in (check, put):
        action.add_argument("file", type=Path, help=".proto, .avsc, or JSON Schema (.json, .jsonschema)")
        action.add_argument("--subject", help="default: name of the file with the suffix -value")
        action.add_argument("--import-path", action="append", type=Path, default=[], metavar="DIR", help="where a .proto finds its imports")
        action.add_argument(
            "--reference", action="append", default=[], metavar="NAME=SUBJECT[:VERSION]", help="a registered schema that it imports"
        )
    subjects = actions.add_parser("list", help="subjects with their newest versions")
    subjects.add_argument("prefix", nargs="?", default="")
    subjects.set_defaults(run=run_list)
    get = actions.add_parser("get", help="a schema by subject or id")
    get.add_argument("name", help="subject, or id")
    get.add_argument("--version", type=_version, default=0, help="default: the newest")
    get.set_defaults(run=run_get)


async def run_check(arguments: argparse.Namespace) -> int:
    """The verdict, with everything that would feel the change."""
    schema, subject = _schema(arguments), _subject(arguments)
    async with to_service(arguments, "controlplane") as channel:
        stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(channel)
        request = pb.CheckSchemaRequest(subject=subject, schema=schema, version=arguments.against)
        verdict = await stub.CheckSchema(request, timeout=30)
        topics = await _topics(channel, subject) if verdict.violations else []
    felt = await _felt(arguments, topics, _columns(verdict.violations)) if verdict.violations else Felt((), "")
    document = json_format.MessageToDict(verdict) | {"subject": subject}
    document |= {"felt": [json_format.MessageToDict(node) for node in felt.nodes], "feltUnknown": felt.unknown}
    document |= {"producers": [json_format.MessageToDict(node) for node in felt.producers]}
    show(arguments, document, _lines(subject, verdict, felt))
    if verdict.compatible:
        return COMPATIBLE
    return INCOMPATIBLE_TIER_1 if any(node.tier == 1 for node in felt.nodes) else INCOMPATIBLE


async def run_register(arguments: argparse.Namespace) -> int:
    """Registers."""
    schema, subject = _schema(arguments), _subject(arguments)
    async with to_service(arguments, "controlplane") as channel:
        stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(channel)
        done = await stub.RegisterSchema(pb.RegisterSchemaRequest(subject=subject, schema=schema), timeout=30)
    show(arguments, json_format.MessageToDict(done), [f"schema {done.schema_id}, version {done.version} of {subject}"])
    return 0


async def run_list(arguments: argparse.Namespace) -> int:
    """A table of subjects."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(channel)
        found = await paged(lambda page: stub.ListSubjects(pb.ListSubjectsRequest(prefix=arguments.prefix, page=page)), "subjects")
    rows: list[list[object]] = [["SUBJECT", "VERSION", "ID", "TYPE"]]
    rows += [[each.subject, each.newest_version, each.schema_id, _type(each.type)] for each in found]
    show(arguments, [json_format.MessageToDict(each) for each in found], table(rows))
    return 0


async def run_get(arguments: argparse.Namespace) -> int:
    """A schema as text."""
    async with to_service(arguments, "controlplane") as channel:
        stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(channel)
        if arguments.name.isascii() and arguments.name.isdigit() and int(arguments.name) < 2**31:
            found = (await stub.GetSchema(pb.GetSchemaRequest(schema_id=int(arguments.name)))).registered
        else:
            request = pb.GetSchemaVersionRequest(subject=arguments.name, version=arguments.version)
            found = (await stub.GetSchemaVersion(request)).registered
    head = f"{found.subject}, version {found.version}, id {found.schema_id}, {_type(found.schema.type)}"
    imported = [f"{each.name} = {each.subject}, version {each.version}" for each in found.schema.references]
    show(arguments, json_format.MessageToDict(found), [f"# {line}" for line in (head, *imported)] + [found.schema.text.rstrip()])
    return 0


@dataclass(frozen=True)
class Felt:
    """What would feel a change, most important first, and who writes the topic; and why it is not known, if it is not."""

    nodes: Sequence[lineage.Node]
    unknown: str
    producers: Sequence[lineage.Node] = ()


async def _topics(channel: Channel, subject: str) -> list[str]:
    """Topics that are written with schemas of a subject: by its name, and those of the Schema resources that stand for it."""
    stub: Any = control_plane_service_pb2_grpc.ControlPlaneServiceStub(channel)
    declared = {
        schema.metadata.name
        for schema in await listed(stub, "Schema")
        if subject == (schema.schema.subject or schema.metadata.name + SUFFIX)
    }
    written = {topic.metadata.name for topic in await listed(stub, "Topic") if topic.topic.schema in declared}
    return sorted(written or {subject.removesuffix(SUFFIX)})


async def _felt(arguments: argparse.Namespace, topics: Sequence[str], columns: Sequence[str]) -> Felt:
    """Asks lineage about the tables of topics, and what is made from their columns (all, without any named)."""
    zones = ("kafka", "lake/raw", "lake/curated", "olap/live")
    names = [f"{zone}/{topic}" for topic in topics for zone in zones]
    try:
        async with to_service(arguments, "lineage") as channel:
            stub = lineage_service_pb2_grpc.LineageServiceStub(channel)
            asked = [await _known(stub, name, columns) for name in names]
            answers = await asyncio.gather(*(_impact(stub, name, found) for name, found in zip(names, asked, strict=True)))
            producers = [node for topic in topics for node in await _producers(stub, topic)]
    except (ArterialError, KeyError) as error:
        return Felt((), f"lineage does not answer: {error}")
    nearest: dict[str, lineage.Node] = {}
    for node in sorted((node for answer in answers for node in answer), key=lambda node: node.distance):
        nearest.setdefault(node.name, node)
    return Felt(sorted(nearest.values(), key=lambda node: (node.tier or 9, node.distance, node.name)), "", producers)


async def _producers(stub: Any, topic: str) -> list[lineage.Node]:
    """Jobs that write a topic; those who said their names to ingestion are told by these alone."""
    request = lineage.GetUpstreamRequest(name=f"kafka/{topic}", depth=1)
    try:
        found = [node for node in (await stub.GetUpstream(request)).nodes if node.kind == lineage.NODE_KIND_JOB]
    except ArterialError as error:
        if error.reason is Reason.NOT_FOUND:
            return []
        raise
    for node in found:
        node.name = node.name.removesuffix(f"/{topic}")
    return found


async def _known(stub: Any, name: str, columns: Sequence[str]) -> list[str]:
    """Columns of a dataset that violations are about, those of a nested message included; none where lineage does not know them."""
    if not columns:
        return []
    try:
        known = [each.column for each in (await stub.ListColumns(lineage.ListColumnsRequest(name=name))).columns]
    except ArterialError as error:
        if error.reason is Reason.NOT_FOUND:
            return []
        raise
    found = {column: [each for each in known if each == column or each.startswith(f"{column}_")] for column in columns}
    return list(dict.fromkeys(each for group in found.values() for each in group)) if all(found.values()) else []


async def _impact(stub: Any, name: str, columns: Sequence[str]) -> Sequence[lineage.Node]:
    try:
        return list((await stub.GetImpact(lineage.GetImpactRequest(name=name, columns=columns))).nodes)
    except ArterialError as error:
        if error.reason is Reason.NOT_FOUND:
            return []
        raise


def _columns(violations: Iterable[pb.SchemaViolation]) -> list[str]:
    """Columns of the tables that violations are about; none where one is about more than a column."""
    paths = [violation.path for violation in violations if violation.rule.islower()]
    return list(dict.fromkeys(path.replace(".", "_") for path in paths))


def _lines(subject: str, verdict: pb.CheckSchemaResponse, felt: Felt) -> list[str]:
    level = specs_pb2.SchemaCompatibility.Name(verdict.compatibility).removeprefix("SCHEMA_COMPATIBILITY_")
    lines = [f"{subject} demands {level}: " + ("compatible" if verdict.compatible else "NOT compatible")]
    rows = [["", each.path, each.rule, each.message] for each in verdict.violations]
    lines += table([["", "PATH", "RULE", ""], *rows]) if rows else []
    lines += [f"  changes: {each.path}: {each.message}" for each in verdict.changes]
    if felt.unknown:
        lines.append(f"who would feel it is not known: {felt.unknown}")
    elif not verdict.compatible:
        who = [
            ["", node.name, lineage.NodeKind.Name(node.kind).removeprefix("NODE_KIND_").lower(), node.tier or "", node.owner]
            for node in felt.nodes
        ]
        lines += table([["", "WOULD FEEL IT", "KIND", "TIER", "OWNER"], *who]) if who else ["nobody is known who would feel it"]
        lines += [f"  written by {node.name}" + f" ({node.owner})" * bool(node.owner) for node in felt.producers]
    return lines


def _version(text: str) -> int:
    """Raises ValueError, which argparse tells, for what is no version of a schema."""
    if not 0 <= int(text) < 2**31:
        raise ValueError
    return int(text)


def _type(kind: int) -> str:
    return specs_pb2.SchemaType.Name(kind).removeprefix("SCHEMA_TYPE_")  # type: ignore[arg-type]


def _subject(arguments: argparse.Namespace) -> str:
    return str(arguments.subject or arguments.file.stem + SUFFIX)


def _schema(arguments: argparse.Namespace) -> pb.Schema:
    return schemafiles.read(arguments.file, arguments.import_path, arguments.reference)
