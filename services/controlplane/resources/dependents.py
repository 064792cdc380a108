"""Who would feel a change of resources, asked of the lineage service."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as lineage
from arterial.api.lineage.v1alpha1 import lineage_service_pb2_grpc
from chassis.errors import ArterialError, Reason
from chassis.rpc.client import channel

# A plan is shown to a person who waits: what takes longer is left out, and said so.
TIMEOUT_SECONDS = 2.0
MAX_DEPENDENTS = 100
MAX_ASKED = 200
TOPICS = "kafka/"


class Dependents:
    """Asks what follows from resources; without an address it says that nobody can be asked."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    async def of(self, wanted: Iterable[str]) -> tuple[Mapping[str, Sequence[pb.Dependent]], str]:
        """Dependents by logical name, and why some could not be asked for (empty if all could)."""
        names = list(dict.fromkeys(wanted))
        if not names:
            return {}, ""
        if self._address is None:
            return {}, "no lineage service is configured"
        asked = names[:MAX_ASKED]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), channel(self._address, attempts=1) as connection:
                stub = lineage_service_pb2_grpc.LineageServiceStub(connection)
                answers = await asyncio.gather(*(_of_dataset(stub, name) for name in asked))
        except (ArterialError, TimeoutError) as error:
            return {}, f"the lineage service does not answer: {error}"
        left_out = "" if len(asked) == len(names) else f"only the first {MAX_ASKED} of {len(names)} datasets were asked for"
        return dict(zip(asked, answers, strict=True)), left_out


async def _of_dataset(stub: Any, name: str) -> list[pb.Dependent]:
    """What is made from it, and of a topic who writes to it."""
    try:
        reply = await stub.GetImpact(lineage.GetImpactRequest(name=name))
        writers = (await stub.GetUpstream(lineage.GetUpstreamRequest(name=name, depth=1))).nodes if name.startswith(TOPICS) else ()
    except ArterialError as error:
        if error.reason is Reason.NOT_FOUND:  # nothing was ever made from it
            return []
        raise
    found = [pb.Dependent(name=node.name, tier=node.tier, owner=node.owner) for node in reply.nodes[:MAX_DEPENDENTS]]
    topic = name.removeprefix(TOPICS)
    jobs = [node for node in writers if node.kind == lineage.NODE_KIND_JOB][:MAX_DEPENDENTS]
    return found + [pb.Dependent(name=node.name.removesuffix(f"/{topic}"), owner=node.owner, producer=True) for node in jobs]


def told(found: Mapping[str, Sequence[pb.Dependent]], names: Iterable[str]) -> list[pb.Dependent]:
    """Dependents of some names, each once."""
    each = {(dependent.producer, dependent.name): dependent for name in names for dependent in found.get(name, ())}.values()
    felt, producers = ([one for one in each if one.producer is producer][:MAX_DEPENDENTS] for producer in (False, True))
    return felt + producers
