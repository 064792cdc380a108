"""What applying resources would change, which changes are one-way doors, and what refers to what. Pure functions on resources."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.lineage.definition import logical_names
from chassis.resources import FIELD_OF_KIND, to_document
from services.controlplane.runs import TRAINING_SUFFIX

Key = tuple[str, str]
# Changes that are hard to undo, by kind: `apply` wants an approval for each.
ONE_WAY_DOORS: Mapping[str, frozenset[str]] = {
    "Cell": frozenset({"spec.region"}),
    "Topic": frozenset({"spec.message", "spec.keyField", "spec.routing", "spec.partitions", "spec.incarnation"}),
    "PricingPolicy": frozenset({"spec.cellResolution"}),
    "EtaPolicy": frozenset({"spec.cellResolution"}),
}
# What the control plane itself writes: never compared.
_OWN_METADATA = ("resourceVersion", "generation", "createdAt", "updatedAt")


@dataclass(frozen=True)
class Reference:
    """One resource names another."""

    source: Key
    target: Key


def key_of(resource: resource_pb2.Resource) -> Key:
    """Kind and name."""
    return resource.kind, resource.metadata.name


def check(resources: Sequence[resource_pb2.Resource], existing: Mapping[Key, resource_pb2.Resource]) -> None:
    """Raises INVALID_REQUEST with every violation: wrong kinds, doubles, references to nothing."""
    violations = []
    known = existing.keys() | {key_of(resource) for resource in resources}
    seen: set[Key] = set()
    for index, resource in enumerate(resources):
        where = f"resources[{index}]"
        if FIELD_OF_KIND.get(resource.kind) != resource.WhichOneof("spec"):
            violations.append(Violation(f"{where}.kind", f"{resource.kind} does not agree with the specification given"))
        if key_of(resource) in seen:
            violations.append(Violation(f"{where}.metadata.name", f"{resource.kind}/{resource.metadata.name} is given twice"))
        seen.add(key_of(resource))
        violations += [
            Violation(f"{where}.spec", f"refers to {reference.target[0]}/{reference.target[1]}, which does not exist")
            for reference in references([resource])
            if reference.target not in known
        ]
    if violations:
        raise ArterialError(Reason.INVALID_REQUEST, "the resources are not valid", violations=violations)


def references(resources: Iterable[resource_pb2.Resource]) -> list[Reference]:
    """Who refers to whom: pipelines to their topics, models to what they learn from, dashboards to what they query."""
    return [Reference(key_of(resource), target) for resource in resources for target in _targets(resource)]


def _targets(resource: resource_pb2.Resource) -> list[Key]:
    if resource.kind == "Pipeline":
        return [("Topic", topic) for topic in resource.pipeline.topics]
    if resource.kind == "Model":
        return [("Dataset", name) for name in dict.fromkeys(given.dataset for given in resource.model.inputs)]
    if resource.kind == "Schedule":
        return _targets_of_schedule(resource.schedule)
    if resource.kind == "Dataset":
        return [("Dataset", name) for name in dict.fromkeys(name for query in resource.dataset.queries for name in logical_names(query))]
    return []


def _targets_of_schedule(spec: specs_pb2.ScheduleSpec) -> list[Key]:
    """Datasets that start, feed or come of its runs, and the model that these train."""
    datasets = dict.fromkeys((*spec.data.datasets, *(given.dataset for given in spec.inputs), *spec.outputs))
    models = [("Model", spec.subject)] if spec.run_kind.endswith(TRAINING_SUFFIX) else []
    return [("Dataset", name) for name in datasets] + models


def plan(resources: Sequence[resource_pb2.Resource], existing: Mapping[Key, resource_pb2.Resource]) -> list[pb.Change]:
    """One change per resource, in their order."""
    return [_change(resource, existing.get(key_of(resource))) for resource in resources]


def unapproved(changes: Sequence[pb.Change], approvals: Iterable[str]) -> list[str]:
    """One-way doors among the changes without approval, as "KIND/NAME:path"."""
    given = set(approvals)
    doors = [f"{change.kind}/{change.name}:{field.path}" for change in changes for field in change.fields if field.one_way_door]
    return [door for door in doors if door not in given]


def _change(wanted: resource_pb2.Resource, current: resource_pb2.Resource | None) -> pb.Change:
    change = pb.Change(kind=wanted.kind, name=wanted.metadata.name)
    after = _flat(_comparable(wanted))
    before = _flat(_comparable(current)) if current is not None else {}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            door = current is not None and _is_door(wanted.kind, path, before.get(path, ""), after.get(path, ""))
            change.fields.add(path=path, before=before.get(path, ""), after=after.get(path, ""), one_way_door=door)
    change.action = pb.Change.ACTION_CREATE if current is None else pb.Change.ACTION_UPDATE if change.fields else pb.Change.ACTION_NONE
    return change


def _is_door(kind: str, path: str, before: str, after: str) -> bool:
    if kind == "Dataset" and path == "spec.tier":
        return int(after or 0) > int(before or 0)  # a larger number is less important
    return path in ONE_WAY_DOORS.get(kind, frozenset())


def _comparable(resource: resource_pb2.Resource) -> dict[str, Any]:
    document = to_document(resource)
    document.pop("status", None)
    document["metadata"] = {key: value for key, value in document["metadata"].items() if key not in _OWN_METADATA}
    return document


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {key: text for name, part in value.items() for key, text in _flat(part, f"{path}.{name}" if path else name).items()}
    return {path: json.dumps(value, sort_keys=True)}
