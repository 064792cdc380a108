"""Apply of 1,000 resources in seconds, against 1,000 applies of one; and plan over 10,000 with 100 changes.

A control plane in a process of its own, over gRPC, on PostgreSQL; what is planned and applied is checked and compared as it always is.
Resources are those of 2,000 event types: topic, tables with columns and SLA, quality rules.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc as grpc_stubs
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from arterial.channel import connect
from bench.engines import sql_service
from bench.result import report

TYPES, APPLIED, SINGLE, CHANGED = 2000, 1000, 100, 100
MESSAGE = "arterial.api.events.v1.TripEvent"
CALL_SECONDS = 120


def resource(kind: str, name: str, **spec: Any) -> resource_pb2.Resource:
    """A resource with its specification."""
    return resource_pb2.Resource(api_version="arterial.dev/v1", kind=kind, metadata=resource_pb2.Metadata(name=name), **spec)


def event_type(number: int) -> list[resource_pb2.Resource]:
    """The five resources of an event type."""
    topic = f"bench{number:05d}_v1"
    columns = [specs_pb2.Column(name=f"column_{place}", description=f"What column {place} means to people") for place in range(6)]
    tables = [
        resource(
            "Dataset",
            f"lake/{zone}/{topic}",
            dataset=specs_pb2.DatasetSpec(
                description=f"Rows of {topic}, {zone}", tier=2, columns=columns, sla=specs_pb2.Sla(freshness_seconds=300)
            ),
        )
        for zone in ("raw", "curated")
    ]
    rules = [
        resource(
            "QualityRule",
            f"{topic}-{test}",
            quality_rule=specs_pb2.QualityRuleSpec(dataset=f"lake/curated/{topic}", test=test, columns=["event_id"]),
        )
        for test in (specs_pb2.QUALITY_TEST_NOT_NULL, specs_pb2.QUALITY_TEST_UNIQUE)
    ]
    return [resource("Topic", topic, topic=specs_pb2.TopicSpec(message=MESSAGE, key_field="city_id")), *tables, *rules]


async def apply(stub: Any, resources: Sequence[resource_pb2.Resource]) -> float:
    """Seconds that it takes."""
    began = time.monotonic()
    await stub.Apply(pb.ApplyRequest(resources=resources, message="bench"), timeout=CALL_SECONDS)
    return time.monotonic() - began


async def plan(stub: Any, resources: Sequence[resource_pb2.Resource]) -> float:
    """Seconds that it takes; the changes must be those that were made."""
    for each in resources[2 : 2 + 5 * CHANGED : 5]:
        each.dataset.description += ", changed"
    began = time.monotonic()
    reply = await stub.Plan(pb.PlanRequest(resources=resources), timeout=CALL_SECONDS)
    seconds = time.monotonic() - began
    changed = sum(change.action == pb.Change.ACTION_UPDATE for change in reply.changes)
    assert changed == CHANGED, f"{changed} changes planned, {CHANGED} made"
    return seconds


async def main() -> None:
    """Applies, fills up, plans."""
    resources = [each for number in range(TYPES) for each in event_type(number)]
    single = [each for number in range(TYPES, TYPES + SINGLE // 5) for each in event_type(number)]
    async with sql_service("controlplane") as service, connect(service.address) as channel:
        stub = grpc_stubs.ControlPlaneServiceStub(channel)
        applied = await apply(stub, resources[:APPLIED])
        again = await apply(stub, resources[:APPLIED])
        one_by_one = sum([await apply(stub, [each]) for each in single]) * APPLIED / SINGLE
        for first in range(APPLIED, len(resources), APPLIED):
            await apply(stub, resources[first : first + APPLIED])
        planned = await plan(stub, resources)
    report(
        "apply",
        applied,
        "s for 1,000 resources",
        baseline=("1,000 applies of one resource", one_by_one),
        again_seconds=again,
        plan_of_10000_seconds=planned,
    )


if __name__ == "__main__":
    asyncio.run(main())
