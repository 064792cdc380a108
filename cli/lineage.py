"""`arterial lineage`: what is made from what, and who is hit."""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as pb
from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc as grpc_stubs
from arterial.channel import Channel
from chassis.errors import ArterialError, Reason
from cli.connect import paged, show, table, to_service

ACTIONS = {
    "upstream": "what a dataset, column or job is made from",
    "downstream": "what is made from it",
    "impact": "who is hit if it is wrong",
    "columns": "columns of a dataset, and what each is made from",
    "search": "datasets and jobs whose name contains NAME",
}


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    text = "; ".join(f"{action}: {meaning}" for action, meaning in ACTIONS.items())
    lineage = commands.add_parser("lineage", help="what is made from what, and who is hit", description=text)
    lineage.add_argument("action", choices=tuple(ACTIONS))
    lineage.add_argument("name", help="for example lake/curated/trips")
    lineage.add_argument("--column", action="append", default=[], help="only this column; of impact several")
    lineage.add_argument("--depth", type=int, default=0, help="steps at most (default: all)")
    lineage.set_defaults(run=run)


async def run(arguments: argparse.Namespace) -> int:
    """Asks and shows."""
    if len(arguments.column) > 1 and arguments.action != "impact":
        raise ArterialError(Reason.INVALID_REQUEST, f"{arguments.action} takes one column")
    async with to_service(arguments, "lineage") as channel:
        stub = grpc_stubs.LineageServiceStub(channel)
        if arguments.action in ("upstream", "downstream"):
            await _walk(arguments, channel)
        elif arguments.action == "impact":
            reply = await stub.GetImpact(pb.GetImpactRequest(name=arguments.name, columns=arguments.column))
            owners = f"owners: {', '.join(reply.owners) or 'none known'}"
            show(arguments, json_format.MessageToDict(reply), [*_table(reply.nodes), owners])
        elif arguments.action == "columns":
            listed = await stub.ListColumns(pb.ListColumnsRequest(name=arguments.name))
            show(arguments, json_format.MessageToDict(listed), _columns(listed.columns))
        else:
            found = await _search(channel, arguments.name)
            show(arguments, [json_format.MessageToDict(node) for node in found], _table(found))
    return 0


async def _walk(arguments: argparse.Namespace, channel: Channel) -> None:
    stub = grpc_stubs.LineageServiceStub(channel)
    column = arguments.column[0] if arguments.column else ""
    if arguments.action == "upstream":
        up = await stub.GetUpstream(pb.GetUpstreamRequest(name=arguments.name, column=column, depth=arguments.depth))
        lines = tree(arguments.name, up.nodes, [(edge.target, edge.source) for edge in up.edges])
        show(arguments, json_format.MessageToDict(up), lines)
    else:
        down = await stub.GetDownstream(pb.GetDownstreamRequest(name=arguments.name, column=column, depth=arguments.depth))
        lines = tree(arguments.name, down.nodes, [(edge.source, edge.target) for edge in down.edges])
        show(arguments, json_format.MessageToDict(down), lines)


async def _search(channel: Channel, text: str) -> list[pb.Node]:
    stub: Any = grpc_stubs.LineageServiceStub(channel)
    return await paged(lambda page: stub.Search(pb.SearchRequest(text=text, page=page)), "nodes")


def tree(root: str, nodes: Iterable[pb.Node], steps: Iterable[tuple[str, str]]) -> list[str]:
    """The walk as an indented tree, one line per arrow; what was shown before is not unfolded again."""
    known = {node.name: node for node in nodes}
    after: dict[str, list[str]] = defaultdict(list)
    for here, there in steps:
        after[here].append(there)
    return [root, *_branches(root, known, after, {root}, "")]


def _branches(here: str, known: Mapping[str, pb.Node], after: Mapping[str, Sequence[str]], seen: set[str], indent: str) -> Iterator[str]:
    for name in sorted(after.get(here, ())):
        again = name in seen
        seen.add(name)
        yield f"{indent}  {_label(name, known)}{' ...' if again and after.get(name) else ''}"
        if not again:
            yield from _branches(name, known, after, seen, f"{indent}  ")


def _label(name: str, known: Mapping[str, pb.Node]) -> str:
    node = known.get(name)
    if node is None:
        return name
    if node.kind == pb.NODE_KIND_JOB:
        return f"[{name}]"
    said = [f"tier {node.tier}"] * (node.tier > 0) + [node.owner] * bool(node.owner)
    columns = f" ({', '.join(node.columns)})" if node.columns else ""
    return name + columns + (f"  {', '.join(said)}" if said else "")


def _table(nodes: Iterable[pb.Node]) -> list[str]:
    rows = [["NAME", "KIND", "TIER", "OWNER", "STEPS", "COLUMNS"]]
    for node in nodes:
        kind = pb.NodeKind.Name(node.kind).removeprefix("NODE_KIND_").lower()
        rows.append([node.name, kind, str(node.tier or ""), node.owner, str(node.distance), ", ".join(node.columns)])
    return table(rows)


def _columns(columns: Iterable[pb.ColumnLineage]) -> list[str]:
    rows = [["COLUMN", "TYPE", "FROM", "HOW"]]
    for column in columns:
        first = (column.column, column.type)
        for item in column.inputs or [pb.ColumnReference()]:
            place = f"{item.name}.{item.column}" if item.name else ""
            rows.append([*first, place, item.transformation])
            first = ("", "")
    return table(rows)
