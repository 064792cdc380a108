"""The RPCs of lineage: check, ask the graph, convert. Questions run in threads: a walk may touch all of the graph."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as pb
from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from chassis.paging import next_token, page_bounds
from services.lineage import questions
from services.lineage.questions import Answer, Node
from services.lineage.replica import Replica

ServicerContext = grpc.aio.ServicerContext[Any, Any]
_KINDS = {"feature": pb.NODE_KIND_FEATURE, "model": pb.NODE_KIND_MODEL, "dashboard": pb.NODE_KIND_DASHBOARD}


class LineageHandler(lineage_service_pb2_grpc.LineageServiceServicer):
    """Serves LineageService."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def PutEvents(self, request: pb.PutEventsRequest, context: ServicerContext) -> pb.PutEventsResponse:
        """All or none."""
        return pb.PutEventsResponse(changed=await self._replica.put(request.events))

    async def GetUpstream(self, request: pb.GetUpstreamRequest, context: ServicerContext) -> pb.GetUpstreamResponse:
        """What a node is made from."""
        answer = await asyncio.to_thread(questions.made_from, self._replica.graph, request.name, request.column, request.depth)
        return pb.GetUpstreamResponse(nodes=_nodes(answer.nodes), edges=_edges(answer))

    async def GetDownstream(self, request: pb.GetDownstreamRequest, context: ServicerContext) -> pb.GetDownstreamResponse:
        """What is made from a node."""
        answer = await asyncio.to_thread(questions.made_of, self._replica.graph, request.name, request.column, request.depth)
        return pb.GetDownstreamResponse(nodes=_nodes(answer.nodes), edges=_edges(answer))

    async def GetImpact(self, request: pb.GetImpactRequest, context: ServicerContext) -> pb.GetImpactResponse:
        """Who is hit."""
        nodes, owners = await asyncio.to_thread(questions.impact, self._replica.graph, request.name, request.columns)
        return pb.GetImpactResponse(nodes=_nodes(nodes), owners=owners)

    async def ListColumns(self, request: pb.ListColumnsRequest, context: ServicerContext) -> pb.ListColumnsResponse:
        """Columns and what they are made from."""
        found = questions.columns(self._replica.graph, request.name)
        return pb.ListColumnsResponse(
            columns=[
                pb.ColumnLineage(
                    column=column,
                    type=type_,
                    inputs=[pb.ColumnReference(name=name, column=used, transformation=how) for name, used, how in inputs],
                )
                for column, type_, inputs in found
            ]
        )

    async def Search(self, request: pb.SearchRequest, context: ServicerContext) -> pb.SearchResponse:
        """A page of nodes."""
        list_name = f"search/{request.kind}/{request.text}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, list_name)
        found = await asyncio.to_thread(questions.search, self._replica.graph, request.text)
        wanted = [node for node in found if request.kind in (pb.NODE_KIND_UNSPECIFIED, _kind(node))]
        page = page_pb2.PageResponse(next_page_token=next_token(end, len(wanted), list_name))
        return pb.SearchResponse(nodes=_nodes(wanted[start:end]), page=page)


def _nodes(nodes: Sequence[Node]) -> list[pb.Node]:
    return [
        pb.Node(
            kind=_kind(node),
            name=node.name,
            namespace=node.namespace,
            owner=node.owner,
            tier=node.tier,
            distance=node.distance,
            columns=node.columns,
        )
        for node in nodes
    ]


def _edges(answer: Answer) -> list[pb.Edge]:
    return [pb.Edge(source=source, target=target) for source, target in answer.edges]


def _kind(node: Node) -> pb.NodeKind.ValueType:
    return pb.NODE_KIND_JOB if node.is_job else _KINDS.get(node.namespace.partition("://")[0], pb.NODE_KIND_DATASET)
