"""Avro schemas: read and checked by `fastavro`, then a tree that compares."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from services.controlplane.registry.definition import invalid

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
NAMED = ("record", "error", "enum", "fixed")
_MAX_DEPTH = 200


@dataclass(frozen=True)
class Field:
    """A field of a record."""

    name: str
    aliases: tuple[str, ...]
    type: "Type"
    has_default: bool


@dataclass(eq=False)
class Type:
    """A type. Of a named one `name` is the full name; of an array, a map or a union `parts` are items, values or branches."""

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = field(default=(), repr=False)
    symbols: tuple[str, ...] = ()
    default: str = ""
    size: int = 0
    parts: "tuple[Type, ...]" = field(default=(), repr=False)

    @property
    def short_name(self) -> str:
        """The name without its namespace: readers and writers match by it."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class AvroDocument:
    """A parsed document."""

    raw: Any
    root: Type


def parse(text: str, imports: Mapping[str, str]) -> AvroDocument:
    """The document of a text; `imports` are the texts of its references, each after those that it needs.

    Raises:
        ArterialError: 42201 if it is no JSON, no Avro schema, or names a type that nobody declares.
    """
    raw = _read(text)
    known: dict[str, Any] = {}
    types: dict[str, Type] = {}
    try:
        for body in imports.values():
            imported = _read(body)
            parse_schema(imported, named_schemas=known, _ignore_default_error=True)
            _type(imported, "", types, 0)
        # As Confluent's registry does, a default that is not of its field's type is let pass.
        parse_schema(raw, named_schemas=known, _ignore_default_error=True)
        return AvroDocument(raw, _type(raw, "", types, 0))
    except (SchemaParseException, UnknownType, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise invalid("the schema cannot be read", f"not an Avro schema: {error}") from error


def canonical(document: AvroDocument, *, normalize: bool) -> str:
    """The document without white space; normalized, with full names, primitive types by their name alone and sorted keys."""
    raw = _normalized(document.raw, "") if normalize else document.raw
    return json.dumps(raw, separators=(",", ":"), sort_keys=normalize, ensure_ascii=False)


def _read(text: str) -> Any:
    if text.strip() in PRIMITIVES:
        return text.strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid("the schema cannot be read", f"not JSON: {error}") from error


def _type(raw: Any, namespace: str, types: dict[str, Type], depth: int) -> Type:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested over {_MAX_DEPTH} deep")
    if isinstance(raw, str):
        return Type(raw) if raw in PRIMITIVES else _named(raw, namespace, types)
    if isinstance(raw, list):
        return Type("union", parts=tuple(_type(each, namespace, types, depth + 1) for each in raw))
    kind = raw["type"]
    if isinstance(kind, dict | list) or (kind not in PRIMITIVES and kind not in (*NAMED, "array", "map")):
        return _type(kind, namespace, types, depth + 1)
    if kind in ("array", "map"):
        return Type(kind, parts=(_type(raw["items" if kind == "array" else "values"], namespace, types, depth + 1),))
    return _declared(raw, namespace, types, depth) if kind in NAMED else Type(kind)


def _declared(raw: Mapping[str, Any], namespace: str, types: dict[str, Type], depth: int) -> Type:
    name = full_name(raw["name"], raw.get("namespace", namespace))
    inside = name.rpartition(".")[0]
    aliases = tuple(full_name(alias, inside) for alias in raw.get("aliases", ()))
    kind = "record" if raw["type"] == "error" else raw["type"]
    found = Type(kind, name, aliases, symbols=tuple(raw.get("symbols", ())), default=raw.get("default", ""), size=raw.get("size", 0))
    types[name] = found
    found.fields = tuple(
        Field(each["name"], tuple(each.get("aliases", ())), _type(each["type"], inside, types, depth + 1), "default" in each)
        for each in raw.get("fields", ())
    )
    return found


def _named(name: str, namespace: str, types: Mapping[str, Type]) -> Type:
    return types[full_name(name, namespace)] if full_name(name, namespace) in types else types[name]


def full_name(name: str, namespace: str) -> str:
    """A name with its namespace."""
    return f"{namespace}.{name}" if namespace and "." not in name else name


def _normalized(raw: Any, namespace: str) -> Any:
    if isinstance(raw, list):
        return [_normalized(each, namespace) for each in raw]
    if isinstance(raw, str):
        return raw if raw in PRIMITIVES else full_name(raw, namespace)
    if not isinstance(raw, dict):
        return raw
    kind = raw.get("type")
    if isinstance(kind, str) and kind in PRIMITIVES and len(raw) == 1:
        return kind
    done = dict(raw)
    if isinstance(kind, str) and kind in NAMED:
        done["name"] = full_name(raw["name"], raw.get("namespace", namespace))
        done.pop("namespace", None)
        namespace = done["name"].rpartition(".")[0]
        if "fields" in raw:
            done["fields"] = [{**each, "type": _normalized(each["type"], namespace)} for each in raw["fields"]]
        return done
    for key in ("items", "values"):
        if key in raw:
            done[key] = _normalized(raw[key], namespace)
    if not isinstance(kind, str) or kind not in ("array", "map", *PRIMITIVES):
        done["type"] = _normalized(kind, namespace)
    return done
