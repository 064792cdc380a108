"""What applying resources would change, and which changes are one-way doors. Pure functions on resources."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arterial.api.controlplane.v1 import control_plane_service_pb2 as pb
from arterial.api.controlplane.v1 import resource_pb2
from chassis.resources import FIELD_OF_KIND, Key, key_of, to_document
from services.controlplane.resources.references import references_of
from services.controlplane.resources.retention import makes, retention
from services.controlplane.resources.tiers import promise

Existing = Mapping[Key, resource_pb2.Resource]
DELETED = "deleted"
# Changes that are hard to undo, by kind and path: `apply` wants an approval for each.
ONE_WAY_DOORS: Mapping[str, Mapping[str, str]] = {
    "Cell": {"spec.region": "rows of the lake carry the region: a cell's boundary does not move afterwards"},
    "Topic": {
        "spec.message": "tables of the topic have the columns of its message",
        "spec.schema": "tables of the topic have the columns of its schema",
        "spec.keyField": "records would lie in other partitions than those before",
        "spec.routing": "records would lie in other partitions than those before",
        "spec.partitions": "records of a key would lie in other partitions than those before",
        "spec.incarnation": "everything before is taken for another topic's",
    },
    "Schema": {"spec.subject": "the versions before are of the former subject: nothing is compared with them"},
    "CuratedTable": {
        "spec.keys": "rows that were told apart by the former keys cannot be told apart any more",
        "spec.timeColumn": "rows lie in the partitions of the former column",
    },
    "Feature": {"spec.key": "values are kept by the former key"},
    "PricingPolicy": {"spec.cellResolution": "prices of past ticks are of other cells"},
    "EtaPolicy": {"spec.cellResolution": "speeds of past ticks are of other cells"},
}
# Why the removal of a kind is hard to undo; that of one with data says when they are dropped.
REMOVALS: Mapping[str, str] = {
    "Cell": "what it holds stays where it is, and nobody looks after it any more",
    "Dataset": "nobody answers for its data any more: owner, tier and what was promised are gone",
}
# What the control plane itself writes: never compared.
_OWN_METADATA = ("resourceVersion", "generation", "createdAt", "updatedAt")


def plan(resources: Sequence[resource_pb2.Resource], existing: Existing, remains: Existing) -> list[pb.Change]:
    """One change per resource, in their order. `remains` has what was removed and left its data."""
    return [_change(resource, existing.get(key), remains.get(key)) for resource in resources for key in [key_of(resource)]]


def removals(resources: Iterable[resource_pb2.Resource], existing: Existing, prune: pb.Prune) -> list[pb.Change]:
    """The removal of every existing resource with the labels that is not among those given."""
    given, labels = {key_of(resource) for resource in resources}, dict(prune.labels)
    return [
        removal(key, existing)
        for key in sorted(existing)
        if key not in given and labels.items() <= dict(existing[key].metadata.labels).items()
    ]


def named_removals(names: Iterable[Key], existing: Existing) -> list[pb.Change]:
    """The removal of each resource that is named; one that does not exist is no change."""
    return [
        removal(key, existing) if key in existing else pb.Change(action=pb.Change.ACTION_NONE, kind=key[0], name=key[1])
        for key in dict.fromkeys(names)
    ]


def removal(key: Key, existing: Existing) -> pb.Change:
    """The removal of an existing resource."""
    kind, name = key
    change = pb.Change(action=pb.Change.ACTION_DELETE, kind=kind, name=name)
    reason = _dropped(existing[key], existing) if makes(key) else REMOVALS.get(kind)
    if reason is not None:
        change.fields.add(path=DELETED, one_way_door=True, reason=reason)
    return change


def _dropped(resource: resource_pb2.Resource, existing: Existing) -> str:
    described = {made: existing["Dataset", made] for made in makes(key_of(resource)) if ("Dataset", made) in existing}
    if not described:
        return "its data are dropped once the retention that was promised of them has passed, unless it is declared again before"
    return f"its data are dropped {retention(resource, described).days} days later, unless it is declared again before"


def users_of(removed: Iterable[Key], existing: Existing) -> dict[Key, list[str]]:
    """Of each removed resource, who that stays refers to it or describes its data, as "KIND/NAME"; what nobody does is left out."""
    gone = set(removed)
    users: dict[Key, list[str]] = {}
    for key in sorted(existing.keys() - gone):
        for reference in references_of(existing[key]):
            if reference.target in gone:
                users.setdefault(reference.target, []).append("/".join(key))
    for target in sorted(gone):
        for name in makes(target):
            if ("Dataset", name) in existing.keys() - gone:
                users.setdefault(target, []).append(f"Dataset/{name}")
    return users


def unapproved(changes: Sequence[pb.Change], approvals: Iterable[str]) -> list[str]:
    """One-way doors among the changes without approval, as "KIND/NAME:path"."""
    given = set(approvals)
    return [door for change in changes for door in doors(change) if door not in given]


def doors(change: pb.Change) -> list[str]:
    """One-way doors of a change, as "KIND/NAME:path"."""
    return [f"{change.kind}/{change.name}:{field.path}" for field in change.fields if field.one_way_door]


def _change(wanted: resource_pb2.Resource, current: resource_pb2.Resource | None, former: resource_pb2.Resource | None) -> pb.Change:
    change = pb.Change(kind=wanted.kind, name=wanted.metadata.name, action=pb.Change.ACTION_NONE)
    if current is not None and same(wanted, current):
        return change
    after = _flat(_comparable(wanted))
    before = _flat(_comparable(current)) if current is not None else {}
    standing = former if current is None else current
    left = _flat(_comparable(standing)) if standing is not None else {}
    for path in sorted(left.keys() | after.keys()):
        changed = standing is not None and left.get(path) != after.get(path)
        reason = _why_hard_to_undo(path, standing, wanted) if standing is not None and changed else ""
        if before.get(path) != after.get(path) or reason:
            was = left.get(path, "") if reason else before.get(path, "")
            change.fields.add(path=path, before=was, after=after.get(path, ""), one_way_door=bool(reason), reason=reason)
    if current is None or change.fields:
        change.action = pb.Change.ACTION_CREATE if current is None else pb.Change.ACTION_UPDATE
    return change


def same(wanted: resource_pb2.Resource, current: resource_pb2.Resource) -> bool:
    """Whether nothing is declared otherwise; told by the messages, as documents take a hundred times as long."""
    field = FIELD_OF_KIND[wanted.kind]
    return (
        getattr(wanted, field) == getattr(current, field)
        and wanted.metadata.owner == current.metadata.owner
        and wanted.metadata.labels == current.metadata.labels
    )


def _why_hard_to_undo(path: str, current: resource_pb2.Resource, wanted: resource_pb2.Resource) -> str:
    """Empty if it is not."""
    if wanted.kind == "Dataset":
        if path == "spec.tier" and wanted.dataset.tier > current.dataset.tier:
            return "a lower tier: what was promised of it is not kept any more"
        if (
            path in ("spec.tier", "spec.retentionSeconds")
            and promise(wanted, {}).retention_seconds < promise(current, {}).retention_seconds
        ):
            return "a shorter retention: older data are dropped"
        return ""
    if wanted.kind == "Topic" and path == "spec.retentionSeconds" and wanted.topic.retention_seconds < current.topic.retention_seconds:
        return "a shorter retention: older records are dropped"
    return ONE_WAY_DOORS.get(wanted.kind, {}).get(path, "")


def _comparable(resource: resource_pb2.Resource) -> dict[str, Any]:
    document = to_document(resource)
    document.pop("status", None)
    document["metadata"] = {key: value for key, value in document["metadata"].items() if key not in _OWN_METADATA}
    return document


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {key: text for name, part in value.items() for key, text in _flat(part, f"{path}.{name}" if path else name).items()}
    return {path: json.dumps(value, sort_keys=True)}
