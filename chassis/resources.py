"""Resources as people write them (YAML, JSON: the specification stands under `spec`) and as the contract has them."""

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason

# Kind and name.
Key = tuple[str, str]
# Kind of a resource to the field that holds its specification, from the contract itself: PricingPolicy -> pricing_policy.
FIELD_OF_KIND: Mapping[str, str] = {
    "".join(word.title() for word in field.name.split("_")): field.name
    for field in resource_pb2.Resource.DESCRIPTOR.oneofs_by_name["spec"].fields
}


def from_document(document: Mapping[str, Any]) -> resource_pb2.Resource:
    """A resource from a parsed document.

    Raises:
        ValueError: unknown kind, unknown field or value of a wrong type.
    """
    kind = str(document.get("kind"))
    if kind not in FIELD_OF_KIND:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(sorted(FIELD_OF_KIND))}")
    moved = {key: value for key, value in document.items() if key != "spec"}
    moved[FIELD_OF_KIND[kind]] = document.get("spec") or {}
    try:
        return json_format.ParseDict(moved, resource_pb2.Resource())
    except json_format.ParseError as error:
        raise ValueError(re.sub(rf"\b{FIELD_OF_KIND[kind]}\b", "spec", str(error))) from error


def to_document(resource: resource_pb2.Resource) -> dict[str, Any]:
    """The document of a resource, as `from_document` takes it."""
    document: dict[str, Any] = json_format.MessageToDict(resource)
    field = FIELD_OF_KIND.get(resource.kind, "")
    json_name = resource.DESCRIPTOR.fields_by_name[field].json_name if field else ""
    ordered: dict[str, Any] = {key: document[key] for key in ("apiVersion", "kind", "metadata") if key in document}
    ordered["spec"] = document.get(json_name, {})
    if "status" in document:
        ordered["status"] = document["status"]
    return ordered


def key_told(text: str) -> Key:
    """The key that "KIND/NAME" tells. Raises INVALID_REQUEST for what tells none."""
    kind, _, name = text.partition("/")
    if not (kind and name):
        raise ArterialError(Reason.INVALID_REQUEST, f"{text} is not KIND/NAME")
    return kind, name


def key_of(resource: resource_pb2.Resource) -> Key:
    """Kind and name."""
    return resource.kind, resource.metadata.name
