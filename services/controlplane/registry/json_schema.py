"""JSON Schemas: read and checked by `jsonschema`, references resolved by `referencing`, then a tree that compares.

The tree follows how Confluent's validator sees a schema: what has a type, or keywords of one, is of that type; several assertions beside
each other are an "allOf" of them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jsonschema import Draft7Validator, FormatChecker
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7, specification_with

from services.controlplane.registry.definition import invalid

# Without a type, the first of these whose keywords appear is meant.
_ARRAY = ("items", "prefixItems", "additionalItems", "unevaluatedItems", "minItems", "maxItems", "uniqueItems")
_OBJECT = ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames", "required")
KEYWORDS: Mapping[str, frozenset[str]] = {
    "array": frozenset((*_ARRAY, "contains", "minContains", "maxContains")),
    "object": frozenset((*_OBJECT, "minProperties", "maxProperties", "dependencies", "dependentRequired", "dependentSchemas")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "string": frozenset(("minLength", "maxLength", "pattern")),
}
CRITERIA = ("allOf", "anyOf", "oneOf")
BESIDE = "beside each other"
_MAX_DEPTH = 200


@dataclass(frozen=True)
class Node:
    """A schema: `kind` is empty, false, string, number, boolean, null, object, array, enum, const, not, conditional or combined."""

    kind: str
    raw: Mapping[str, Any]
    resolver: Any = field(repr=False, compare=False)
    # Of a number: true if only integers are meant.
    integer: bool = False
    # Of a combined one: what it is made of ("type", "beside each other", or the keyword), and allOf, anyOf or oneOf.
    source: str = ""
    criterion: str = ""

    @cached_property
    def parts(self) -> "tuple[Node, ...]":
        """Of a combined one: its parts, made when asked for, because schemas may contain themselves."""
        if self.source == "type":
            return tuple(_typed(each, self.raw, self.resolver) for each in self.raw["type"])
        if self.source == BESIDE:
            return tuple(_assertions(self.raw, self.resolver))
        return tuple(node(each, self.resolver) for each in self.raw[self.source])

    def child(self, raw: Any) -> "Node":
        """The node of a schema inside this one."""
        return node(raw, self.resolver)

    @cached_property
    def key(self) -> str:
        """Equal for equal schemas."""
        return f"{self.kind} {self.source} {self.integer} {json.dumps(self.raw, sort_keys=True)}"


@dataclass(frozen=True)
class JsonDocument:
    """A parsed document."""

    raw: Any
    root: Node


def parse(text: str, imports: Mapping[str, str]) -> JsonDocument:
    """The document of a text; `imports` are the texts of its references by name.

    Raises:
        ArterialError: 42201 if it is no JSON, no JSON Schema, or refers to nothing.
    """
    raw = _read(text)
    if isinstance(raw, dict) and not isinstance(raw.get("$schema", ""), str):
        raise invalid("the schema cannot be read", "$schema is no text")
    validator = validator_for(raw, default=Draft7Validator)
    try:
        # Patterns are JavaScript's: what Python's reader of them thinks does not count.
        validator.check_schema(raw, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        raise invalid("the schema cannot be read", f"{error.json_path}: {error.message}") from error
    dialect = raw.get("$schema", "") if isinstance(raw, dict) else ""
    default = specification_with(dialect, default=DRAFT7) if dialect else DRAFT7
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(_read(body), default_specification=default)) for name, body in imports.items()
    )
    own = Resource.from_contents(raw, default_specification=default)
    resolver = registry.resolver_with_root(own)
    try:
        _check_references(raw, resolver, set(), 0)
        return JsonDocument(raw, node(raw, resolver))
    except Unresolvable as error:
        raise invalid("the schema cannot be read", f"$ref {error.ref} refers to nothing") from error


def canonical(document: JsonDocument, *, normalize: bool) -> str:
    """The document without white space; normalized, with its keys sorted."""
    return json.dumps(document.raw, separators=(",", ":"), sort_keys=normalize, ensure_ascii=False)


def _read(text: str) -> Any:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("the schema cannot be read", f"not JSON: {error}") from error
    if not isinstance(raw, dict | bool):
        raise invalid("the schema cannot be read", "a JSON Schema is an object or a boolean")
    return raw


def _check_references(raw: Any, resolver: Any, seen: set[int], depth: int) -> None:
    """Follows every $ref once. Raises Unresolvable, or 42201 where references turn in a circle without a schema between."""
    if depth > _MAX_DEPTH:
        raise invalid("the schema cannot be read", f"it is nested over {_MAX_DEPTH} deep")
    if isinstance(raw, list):
        for each in raw:
            _check_references(each, resolver, seen, depth + 1)
    if not isinstance(raw, dict) or id(raw) in seen:
        return
    seen.add(id(raw))
    if isinstance(raw.get("$ref"), str):
        _followed(raw, resolver)
    for key, each in raw.items():
        if key not in ("enum", "const", "default", "examples"):
            _check_references(each, resolver, seen, depth + 1)


def _followed(raw: Mapping[str, Any], resolver: Any) -> tuple[Any, Any]:
    """What a $ref leads to, and the resolver there."""
    passed: set[int] = set()
    found: Any = raw
    while isinstance(found, dict) and isinstance(found.get("$ref"), str):
        if id(found) in passed:
            raise invalid("the schema cannot be read", f"$ref {found['$ref']} leads back to itself")
        passed.add(id(found))
        resolved = resolver.lookup(found["$ref"])
        found, resolver = resolved.contents, resolved.resolver
    return found, resolver


def node(raw: Any, resolver: Any) -> Node:
    """The node of a schema, references followed."""
    if isinstance(raw, dict) and isinstance(raw.get("$ref"), str):
        raw, resolver = _followed(raw, resolver)
    if raw is False:
        return Node("false", {}, resolver)
    if raw is True or not raw:
        return Node("empty", {}, resolver)
    found = list(_assertions(raw, resolver))
    if not found:
        return Node("empty", raw, resolver)
    return found[0] if len(found) == 1 else Node("combined", raw, resolver, source=BESIDE, criterion="allOf")


def _assertions(raw: Mapping[str, Any], resolver: Any) -> Iterator[Node]:
    declared = raw.get("type")
    if isinstance(declared, list):
        yield Node("combined", raw, resolver, source="type", criterion="anyOf")
    elif declared is not None:
        yield _typed(declared, raw, resolver)
    else:
        inferred = next((kind for kind, words in KEYWORDS.items() if not words.isdisjoint(raw)), None)
        if inferred is not None:
            yield _typed(inferred, raw, resolver)
    for keyword, kind in (("enum", "enum"), ("const", "const"), ("not", "not"), ("if", "conditional")):
        if keyword in raw:
            yield Node(kind, raw, resolver)
    for criterion in CRITERIA:
        if criterion in raw:
            yield Node("combined", raw, resolver, source=criterion, criterion=criterion)


def _typed(kind: str, raw: Mapping[str, Any], resolver: Any) -> Node:
    return Node("number" if kind == "integer" else kind, raw, resolver, integer=kind == "integer")
