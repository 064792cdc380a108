"""Resources as people write them (YAML, JSON: the specification stands under `spec`) and as the contract has them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format

from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import ArterialError, Reason, Violation
from chassis.rpc.validation import violations_of

# The seed is read by every process as it starts: libyaml takes a tenth of the time, where the wheel has it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
API_VERSION = "arterial.dev/v1"
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


def read(paths: Iterable[Path]) -> list[resource_pb2.Resource]:
    """The resources of files and folders (*.yaml, *.yml, *.json), in order.

    Raises:
        ArterialError: INVALID_REQUEST with every error of every document, each with file and line.
    """
    found, violations = [], []
    for path in _files(paths):
        text = path.read_text()
        try:
            documents = _documents(text)
        except yaml.YAMLError as error:
            violations.append(Violation(str(path), f"not YAML: {error}"))
            continue
        for line, document in documents:
            where = f"{path}:{line}"
            try:
                resource = from_document(document)
            except (ValueError, AttributeError) as error:
                violations.append(Violation(where, str(error)))
                continue
            violations += [Violation(f"{where} {violation.field}", violation.description) for violation in violations_of(resource)]
            found.append(resource)
    if violations:
        raise ArterialError(Reason.INVALID_REQUEST, "the resources are not valid", violations=violations)
    return found


def _documents(text: str) -> list[tuple[int, Any]]:
    """The documents of a file that are not empty, each with the line that it begins at."""
    loader = _LOADER(text)
    found = []
    try:
        while loader.check_node():
            node = loader.get_node()
            found.append((node.start_mark.line + 1, loader.construct_document(node)))
    finally:
        loader.dispose()
    return [(line, document) for line, document in found if document is not None]


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ArterialError(Reason.INVALID_REQUEST, f"{path} does not exist")
        files += sorted(file for file in path.rglob("*") if file.suffix in (".yaml", ".yml", ".json")) if path.is_dir() else [path]
    return files
