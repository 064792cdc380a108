"""What is made of reports: conditions that say who says so, since when, and of which generation. Pure functions on messages."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from arterial.api.controlplane.v1 import resource_pb2


@dataclass(frozen=True)
class Reporter:
    """A process that reports: its cell, its name, and which of several of that name."""

    cell: str
    component: str
    instance: str = ""


def reported(given: resource_pb2.Status, before: resource_pb2.Status | None, now: datetime) -> resource_pb2.Status:
    """A report as it is kept: a condition whose status is what it was keeps the time since when it is so."""
    since = {condition.type: condition for condition in before.conditions} if before is not None else {}
    kept = resource_pb2.Status(observed_generation=given.observed_generation)
    for condition in given.conditions:
        held = since.get(condition.type)
        added = kept.conditions.add(type=condition.type, status=condition.status, reason=condition.reason, message=condition.message)
        added.observed_generation = given.observed_generation
        if held is not None and held.status == condition.status:
            added.last_transition_time.CopyFrom(held.last_transition_time)
        else:
            added.last_transition_time.FromDatetime(now)
    return kept


def fill(resource: resource_pb2.Resource, reports: Iterable[tuple[Reporter, resource_pb2.Status]]) -> None:
    """Puts all reports into the resource's status; what the control plane itself keeps there stays."""
    generations = []
    resource.status.ClearField("observed_generation")
    del resource.status.conditions[:]
    for reporter, status in reports:
        generations.append(status.observed_generation)
        for condition in status.conditions:
            added = resource.status.conditions.add()
            added.CopyFrom(condition)
            added.cell, added.component, added.instance = reporter.cell, reporter.component, reporter.instance
    if generations:
        resource.status.observed_generation = min(generations)
    if not resource.status.ByteSize():
        resource.ClearField("status")
