"""What changed between two JSON Schemas, by the rules and rule names of Confluent's schema registry.

Where they compare nothing ("if", "then", "else"; "contains"), neither is anything compared here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.controlplane.registry.definition import SchemaViolation
from services.controlplane.registry.json_schema import JsonDocument, Node

# Limits by keyword: the name in rules, and whether a greater value lets more pass.
LIMITS: Mapping[str, Mapping[str, tuple[str, bool]]] = {
    "string": {"maxLength": ("MAX_LENGTH", True), "minLength": ("MIN_LENGTH", False)},
    "number": {
        "maximum": ("MAXIMUM", True),
        "minimum": ("MINIMUM", False),
        "exclusiveMaximum": ("EXCLUSIVE_MAXIMUM", True),
        "exclusiveMinimum": ("EXCLUSIVE_MINIMUM", False),
    },
    "object": {"maxProperties": ("MAX_PROPERTIES", True), "minProperties": ("MIN_PROPERTIES", False)},
    "array": {
        "maxItems": ("MAX_ITEMS", True),
        "minItems": ("MIN_ITEMS", False),
        "maxContains": ("MAX_CONTAINS", True),
        "minContains": ("MIN_CONTAINS", False),
    },
}
ANNOTATIONS = {"title": "TITLE_CHANGED", "description": "DESCRIPTION_CHANGED", "default": "DEFAULT_CHANGED"}
COMPATIBLE = frozenset(
    [f"{name}_{'INCREASED' if greater else 'DECREASED'}" for limits in LIMITS.values() for name, greater in limits.values()]
    + [f"{name}_REMOVED" for limits in LIMITS.values() for name, _ in limits.values()]
    + [
        "ID_CHANGED",
        *ANNOTATIONS.values(),
        "SCHEMA_REMOVED",
        "TYPE_EXTENDED",
        "PATTERN_REMOVED",
        "MULTIPLE_OF_REDUCED",
        "MULTIPLE_OF_REMOVED",
        "REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED",
        "REQUIRED_ATTRIBUTE_REMOVED",
        "DEPENDENCY_ARRAY_NARROWED",
        "DEPENDENCY_ARRAY_REMOVED",
        "DEPENDENCY_SCHEMA_REMOVED",
        "ADDITIONAL_PROPERTIES_ADDED",
        "ADDITIONAL_PROPERTIES_EXTENDED",
        "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "PROPERTY_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "PROPERTY_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "UNIQUE_ITEMS_REMOVED",
        "ADDITIONAL_ITEMS_ADDED",
        "ADDITIONAL_ITEMS_EXTENDED",
        "UNEVALUATED_ITEMS_ADDED",
        "UNEVALUATED_ITEMS_EXTENDED",
        "ITEM_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "ITEM_ADDED_TO_CLOSED_CONTENT_MODEL",
        "ITEM_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL",
        "ITEM_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ITEM_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "ENUM_ARRAY_EXTENDED",
        "COMBINED_TYPE_EXTENDED",
        "PRODUCT_TYPE_NARROWED",
        "SUM_TYPE_EXTENDED",
        "NOT_TYPE_NARROWED",
    ]
)
MAX_TOLD = 1000
Found = list[tuple[str, tuple[str, ...]]]
_ABSENT = object()


def differences(old: JsonDocument, new: JsonDocument) -> list[SchemaViolation]:
    """Everything that changed from `old` to `new`; what is not in COMPATIBLE may make `new` refuse what `old` let pass."""
    return [_violation("#/" + "/".join(path), rule) for rule, path in _Comparison().nodes(old.root, new.root, ())]


def reserved(old: frozenset[str], new: frozenset[str], document: JsonDocument) -> Iterator[SchemaViolation]:
    """Conflicts with the names that the metadata of both versions reserve."""
    properties = document.root.raw.get("properties", {}) if document.root.kind == "object" else {}
    yield from (_violation(name, "RESERVED_PROPERTY_REMOVED") for name in sorted(old - new))
    conflicts = sorted(new & set(properties))
    yield from (_violation(f"#/properties/{name}", "RESERVED_PROPERTY_CONFLICTS_WITH_PROPERTY") for name in conflicts)


def _violation(path: str, rule: str) -> SchemaViolation:
    return SchemaViolation(path, rule, rule.lower().replace("_", " "))


def compatible(found: Found) -> bool:
    """True if no difference makes the new schema refuse what the old one let pass."""
    return all(rule in COMPATIBLE for rule, _ in found)


class _Comparison:
    """Walks two schemas together. A pair is compared once; one that the walk is inside of counts as equal: it is told where it began."""

    def __init__(self) -> None:
        # What was found, by pair, with paths from there: combinations of combinations would else be compared without end.
        self._known: dict[tuple[str, int, int], Found] = {}
        # What is kept by its address must stay there.
        self._alive: list[object] = []

    def optional(self, old: Node | None, new: Node | None, path: tuple[str, ...]) -> Found:
        """Two schemas of which either may be missing."""
        if old is not None and new is not None:
            return self.nodes(old, new, path)
        return [] if old is new else [("SCHEMA_ADDED" if old is None else "SCHEMA_REMOVED", path)]

    def nodes(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        """Two schemas."""
        pair = (f"{old.kind} {old.source} {old.integer} {new.kind} {new.source} {new.integer}", id(old.raw), id(new.raw))
        if pair not in self._known:
            self._alive += [old.raw, new.raw]
            self._known[pair] = []
            self._known[pair] = _bounded(self._nodes(old, new, ()))
        return [(rule, (*path, *inside)) for rule, inside in self._known[pair]]

    def _nodes(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        if (old.kind == "combined") != (new.kind == "combined"):
            found = self._one_combined(old, new, path)
            if found is not None:
                return found
        if old.kind != new.kind:
            return [] if old.kind == "false" or new.kind == "empty" else [("TYPE_CHANGED", path)]
        found = list(_annotations(old, new, path))
        if old.kind in LIMITS:
            found += _limits(old, new, path)
        return found + list(getattr(self, f"_{old.kind}", _nothing)(old, new, path))

    def _one_combined(self, old: Node, new: Node, path: tuple[str, ...]) -> Found | None:
        """A schema became one of several, or one of several became it: enough if one of them agrees."""
        combined = new if new.kind == "combined" else old
        sums = combined is new and combined.criterion != "allOf"
        products = combined is old and combined.criterion == "allOf"
        if len(combined.parts) != 1 and not sums and not products:
            return None
        for part in combined.parts:
            found = self.nodes(old, part, path) if combined is new else self.nodes(part, new, path)
            if compatible(found):
                if len(combined.parts) == 1:
                    return found
                return [*found, ("SUM_TYPE_EXTENDED" if combined is new else "PRODUCT_TYPE_NARROWED", path)]
        return None

    def _string(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        before, after = old.raw.get("pattern"), new.raw.get("pattern")
        if before == after:
            return []
        return [(f"PATTERN_{'ADDED' if before is None else 'REMOVED' if after is None else 'CHANGED'}", (*path, "pattern"))]

    def _number(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        before, after, found = old.raw.get("multipleOf"), new.raw.get("multipleOf"), []
        if before != after:
            found.append((f"MULTIPLE_OF_{_multiple(before, after)}", (*path, "multipleOf")))
        if old.integer != new.integer:
            found.append(("TYPE_EXTENDED" if old.integer else "TYPE_NARROWED", path))
        return found

    def _enum(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        before, after = [{_key(value) for value in side.raw["enum"]} for side in (old, new)]
        if before == after:
            return []
        return [(f"ENUM_ARRAY_{'EXTENDED' if before < after else 'NARROWED' if after < before else 'CHANGED'}", (*path, "enum"))]

    def _const(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        return [] if _key(old.raw["const"]) == _key(new.raw["const"]) else [("ENUM_ARRAY_CHANGED", (*path, "const"))]

    def _not(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        """What must not match is compared the other way round."""
        if old.raw["not"] == new.raw["not"]:
            return []
        inner = self.nodes(new.child(new.raw["not"]), old.child(old.raw["not"]), (*path, "not"))
        return [("NOT_TYPE_NARROWED" if compatible(inner) else "NOT_TYPE_EXTENDED", (*path, "not"))]

    def _combined(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        found: Found = []
        if old.criterion != new.criterion:
            single = [len(side.parts) == 1 for side in (old, new)]
            alike = (single[0] and (single[1] or new.criterion == "oneOf")) or (single[1] and old.criterion == "allOf")
            if new.criterion != "anyOf" and not alike:
                return [("COMBINED_TYPE_CHANGED", path)]
            found.append(("COMBINED_TYPE_EXTENDED", path))
        before, after = _distinct(old.parts), _distinct(new.parts)
        if len(before) != len(after):
            kind = "PRODUCT" if new.criterion == "allOf" else "SUM"
            found.append((f"{kind}_TYPE_{'EXTENDED' if len(before) < len(after) else 'NARROWED'}", path))
        edges: list[dict[int, Found]] = []
        for place, part in enumerate(before):
            compared = [self.nodes(part, other, (*path, old.criterion, str(place))) for other in after]
            edges.append({column: each for column, each in enumerate(compared) if compatible(each)})
        matching = _matching(edges)
        for column, place in sorted(matching.items(), key=lambda edge: edge[1]):
            found += edges[place][column]
        if len(matching) < min(len(before), len(after)):
            found.append(("COMBINED_TYPE_SUBSCHEMAS_CHANGED", path))
        return found

    def _object(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        found = list(self._required(old, new, (*path, "required")))
        before, after = old.raw.get("properties", {}), new.raw.get("properties", {})
        for name in [*before, *(name for name in after if name not in before)]:
            here = (*path, "properties", name)
            if name in before and name in after:
                found += self.nodes(old.child(before[name]), new.child(after[name]), here)
            elif name in before:
                found += self._property_removed(old.child(before[name]), new, name, here)
            else:
                found += self._property_added(old, new, name, here)
        found += self._dependencies(old, new, (*path, "dependencies"))
        return found + self._additional(old, new, (*path, "additionalProperties"), "additionalProperties", "ADDITIONAL_PROPERTIES")

    def _required(self, old: Node, new: Node, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
        before, after = set(old.raw.get("required", [])), set(new.raw.get("required", []))
        properties = new.raw.get("properties", {})
        for name in old.raw.get("properties", {}):
            if name in properties and (name in before) != (name in after):
                if name in before:
                    yield "REQUIRED_ATTRIBUTE_REMOVED", (*path, name)
                else:
                    default = isinstance(properties[name], dict) and "default" in properties[name]
                    yield f"REQUIRED_ATTRIBUTE_{'WITH_DEFAULT_' if default else ''}ADDED", (*path, name)

    def _property_removed(self, old: Node, model: Node, name: str, path: tuple[str, ...]) -> Found:
        if _is_open(model):
            return [("PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL", path)]
        cover = _cover(model, name)
        if cover is not None:
            return self._covered(old, cover, path, "PROPERTY_REMOVED")
        false = old.kind == "false"
        return [(f"PROPERTY_{'WITH_FALSE_' if false else ''}REMOVED_FROM_CLOSED_CONTENT_MODEL", path)]

    def _property_added(self, model: Node, new: Node, name: str, path: tuple[str, ...]) -> Found:
        raw = new.raw["properties"][name]
        if _is_open(model):
            empty = "WITH_EMPTY_SCHEMA_" if new.child(raw).kind == "empty" else ""
            return [(f"PROPERTY_{empty}ADDED_TO_OPEN_CONTENT_MODEL", path)]
        cover = _cover(model, name)
        found = [] if cover is None else self._covered(cover, new.child(raw), path, "PROPERTY_ADDED")
        if name not in new.raw.get("required", []):
            return [*found, ("OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL", path)]
        default = "WITH_DEFAULT_" if isinstance(raw, dict) and "default" in raw else ""
        return [*found, (f"REQUIRED_PROPERTY_{default}ADDED_TO_UNOPEN_CONTENT_MODEL", path)]

    def _covered(self, old: Node, new: Node, path: tuple[str, ...], what: str) -> Found:
        found = self.nodes(old, new, path)
        return [*found, (f"{what}_{'IS' if compatible(found) else 'NOT'}_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", path)]

    def _dependencies(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        found: Found = []
        lists = [_dependencies(side, list) for side in (old, new)]
        for name in [*lists[0], *(name for name in lists[1] if name not in lists[0])]:
            before, after = (set(side[name]) if name in side else None for side in lists)
            if before != after:
                found.append((f"DEPENDENCY_ARRAY_{_sets(before, after)}", (*path, name)))
        schemas = [_dependencies(side, dict | bool) for side in (old, new)]
        for name in [*schemas[0], *(name for name in schemas[1] if name not in schemas[0])]:
            if name in schemas[0] and name in schemas[1]:
                found += self.nodes(old.child(schemas[0][name]), new.child(schemas[1][name]), (*path, name))
            else:
                found.append(("DEPENDENCY_SCHEMA_REMOVED" if name in schemas[0] else "DEPENDENCY_SCHEMA_ADDED", (*path, name)))
        return found

    def _additional(self, old: Node, new: Node, path: tuple[str, ...], keyword: str, name: str) -> Found:
        before, after = old.raw.get(keyword, True), new.raw.get(keyword, True)
        if (before is False) != (after is False):
            return [(f"{name}_{'ADDED' if before is False else 'REMOVED'}", path)]
        if before is not True and after is not True:
            return [] if before is False else self.nodes(old.child(before), new.child(after), path)
        return [] if before is after else [(f"{name}_{'NARROWED' if before is True else 'EXTENDED'}", path)]

    def _array(self, old: Node, new: Node, path: tuple[str, ...]) -> Found:
        old, new = _modern_items(old), _modern_items(new)
        every = [_every_item(side) for side in (old, new)]
        found = self.optional(every[0], every[1], (*path, "items"))
        before, after = old.raw.get("prefixItems", []), new.raw.get("prefixItems", [])
        for place in range(max(len(before), len(after))):
            here = (*path, "items", str(place))
            if place < min(len(before), len(after)):
                found += self.nodes(old.child(before[place]), new.child(after[place]), here)
            elif place < len(before):
                found += self._item_removed(old.child(before[place]), new, here)
            else:
                found += self._item_added(old, new.child(after[place]), here)
        for keyword, name in (("additionalItems", "ADDITIONAL_ITEMS"), ("unevaluatedItems", "UNEVALUATED_ITEMS")):
            found += self._additional(old, new, (*path, keyword), keyword, name)
        unique = [bool(side.raw.get("uniqueItems")) for side in (old, new)]
        if unique[0] != unique[1]:
            found.append(("UNIQUE_ITEMS_REMOVED" if unique[0] else "UNIQUE_ITEMS_ADDED", (*path, "uniqueItems")))
        return found

    def _item_removed(self, old: Node, model: Node, path: tuple[str, ...]) -> Found:
        rest = _rest(model)
        if rest is True:
            return [("ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL", path)]
        if rest is not False:
            return self._covered(old, model.child(rest), path, "ITEM_REMOVED")
        return [(f"ITEM_{'WITH_FALSE_' if old.kind == 'false' else ''}REMOVED_FROM_CLOSED_CONTENT_MODEL", path)]

    def _item_added(self, model: Node, new: Node, path: tuple[str, ...]) -> Found:
        rest = _rest(model)
        if rest is True:
            return [(f"ITEM_{'WITH_EMPTY_SCHEMA_' if new.kind == 'empty' else ''}ADDED_TO_OPEN_CONTENT_MODEL", path)]
        if rest is not False:
            return self._covered(model.child(rest), new, path, "ITEM_ADDED")
        return [("ITEM_ADDED_TO_CLOSED_CONTENT_MODEL", path)]


def _bounded(found: Found) -> Found:
    """At most MAX_TOLD differences, the incompatible ones before the others: schemas in schemas have paths without end."""
    if len(found) <= MAX_TOLD:
        return found
    breaking = [each for each in found if each[0] not in COMPATIBLE]
    return (breaking + [each for each in found if each[0] in COMPATIBLE])[:MAX_TOLD]


def _nothing(_old: Node, _new: Node, _path: tuple[str, ...]) -> Found:
    return []


def _annotations(old: Node, new: Node, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if any(old.raw.get(keyword) != new.raw.get(keyword) for keyword in ("id", "$id")):
        yield "ID_CHANGED", path
    for keyword, rule in ANNOTATIONS.items():
        if old.raw.get(keyword, _ABSENT) != new.raw.get(keyword, _ABSENT):
            yield rule, path


def _limits(old: Node, new: Node, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for keyword, (name, _) in LIMITS[old.kind].items():
        before, after = _limit(old, keyword), _limit(new, keyword)
        if before == after:
            continue
        if before is None or after is None:
            yield f"{name}_{'ADDED' if before is None else 'REMOVED'}", (*path, keyword)
        else:
            yield f"{name}_{'INCREASED' if before < after else 'DECREASED'}", (*path, keyword)


def _limit(side: Node, keyword: str) -> float | None:
    """A limit; until draft 4 "exclusive" was a flag of the other keyword."""
    value, other = side.raw.get(keyword), keyword.removeprefix("exclusive").lower()
    if keyword.startswith("exclusive"):
        return side.raw.get(other) if value is True else None if isinstance(value, bool) else value
    return None if side.raw.get(f"exclusive{keyword.title()}") is True else value


def _multiple(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "ADDED" if before is None else "REMOVED"
    return "EXPANDED" if after % before == 0 else "REDUCED" if before % after == 0 else "CHANGED"


def _sets(before: set[str] | None, after: set[str] | None) -> str:
    if before is None or after is None:
        return "ADDED" if before is None else "REMOVED"
    return "EXTENDED" if before < after else "NARROWED" if after < before else "CHANGED"


def _key(value: Any) -> str:
    """Equal for equal JSON values: `true` is not 1."""
    return f"{type(value).__name__ if isinstance(value, bool) else ''}{value!r}"


def _distinct(parts: Sequence[Node]) -> list[Node]:
    return list({part.key: part for part in parts}.values())


def _matching(edges: Sequence[Mapping[int, object]]) -> dict[int, int]:
    """A greatest matching of rows and columns, as columns with their rows (augmenting paths)."""
    rows: dict[int, int] = {}

    def augment(row: int, tried: set[int]) -> bool:
        for column in edges[row]:
            if column not in tried:
                tried.add(column)
                if column not in rows or augment(rows[column], tried):
                    rows[column] = row
                    return True
        return False

    for row in range(len(edges)):
        augment(row, set())
    return rows


def _is_open(model: Node) -> bool:
    return not model.raw.get("patternProperties") and model.raw.get("additionalProperties", True) is True


def _cover(model: Node, name: str) -> Node | None:
    """The schema that a property without one of its own must keep, if any."""
    for pattern, raw in model.raw.get("patternProperties", {}).items():
        if _matches(pattern, name):
            return model.child(raw)
    rest = model.raw.get("additionalProperties", True)
    return None if isinstance(rest, bool) else model.child(rest)


def _matches(pattern: str, name: str) -> bool:
    """True if a pattern is found in a name; JavaScript's patterns that are none of Python's are found in nothing."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def _dependencies(side: Node, kind: Any) -> dict[str, Any]:
    """Dependencies that are lists of names, or schemas, in the words of all drafts."""
    words = ("dependencies", "dependentRequired" if kind is list else "dependentSchemas")
    return {name: each for word in words for name, each in side.raw.get(word, {}).items() if isinstance(each, kind)}


def _modern_items(side: Node) -> Node:
    """An array whose first items stand in "prefixItems" and the rest in "additionalItems", whatever its draft calls them."""
    raw = dict(side.raw)
    if isinstance(raw.get("items"), list):
        raw["prefixItems"] = raw.pop("items")
    elif "prefixItems" in raw and "items" in raw:
        raw["additionalItems"] = raw.pop("items")
    return Node(side.kind, raw, side.resolver)


def _every_item(side: Node) -> Node | None:
    return side.child(side.raw["items"]) if "items" in side.raw else None


def _rest(model: Node) -> Any:
    """What items beyond the listed ones must keep: a schema, True for anything, False for none."""
    rest = model.raw.get("additionalItems", True)
    return model.raw.get("unevaluatedItems", True) if rest is True else rest
