"""Changes of JSON Schemas and what Confluent's schema registry says of them.

The cases follow those that Confluent publishes with its registry (their file is under another licence, so the schemas here are our own):
title, old, new, differences, compatible.
"""

from typing import Any

Case = tuple[str, Any, Any, list[str], bool]
S, N, INT, B, NULL = ({"type": name} for name in ("string", "number", "integer", "boolean", "null"))
MAYBE = {"oneOf": [NULL, S]}


def limits(kind: str, keyword: str, name: str, greater: bool) -> list[Case]:
    """A limit removed, raised and lowered."""
    few, many = {"type": kind, keyword: 4}, {"type": kind, keyword: 9}
    return [
        (f"{keyword} removed", few, {"type": kind}, [f"{name}_REMOVED #/{keyword}"], True),
        (f"{keyword} added", {"type": kind}, few, [f"{name}_ADDED #/{keyword}"], False),
        (f"{keyword} raised", few, many, [f"{name}_INCREASED #/{keyword}"], greater),
        (f"{keyword} lowered", many, few, [f"{name}_DECREASED #/{keyword}"], not greater),
    ]


def has(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object with properties."""
    return {"properties": properties, **more}


def items(*first: Any, **more: Any) -> dict[str, Any]:
    """An array with first items."""
    return {"type": "array", "items": list(first), **more}


CLOSED: Any = {"additionalProperties": False}
TEXTS: Any = {"additionalProperties": S}
MAYBES: Any = {"additionalProperties": MAYBE}
COVERED = "IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"
UNCOVERED = "NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"
OPTIONAL = "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL"
SIMPLE: list[Case] = [
    ("anything may become the empty schema", {"properties": {}}, {}, [], True),
    ("id", {"id": "urn:a"}, {"id": "urn:b"}, ["ID_CHANGED #/"], True),
    ("title", {"title": "a"}, {"title": "b"}, ["TITLE_CHANGED #/"], True),
    ("description", {"description": "a"}, {"description": "b"}, ["DESCRIPTION_CHANGED #/"], True),
    ("type", {"type": "object"}, {"type": "array"}, ["TYPE_CHANGED #/"], False),
    *limits("string", "minLength", "MIN_LENGTH", False),
    *limits("string", "maxLength", "MAX_LENGTH", True),
    *limits("number", "maximum", "MAXIMUM", True),
    *limits("number", "minimum", "MINIMUM", False),
    *limits("number", "exclusiveMaximum", "EXCLUSIVE_MAXIMUM", True),
    *limits("number", "exclusiveMinimum", "EXCLUSIVE_MINIMUM", False),
    *limits("object", "maxProperties", "MAX_PROPERTIES", True),
    *limits("object", "minProperties", "MIN_PROPERTIES", False),
    *limits("array", "maxItems", "MAX_ITEMS", True),
    *limits("array", "minItems", "MIN_ITEMS", False),
    ("pattern removed", {**S, "pattern": "^a"}, S, ["PATTERN_REMOVED #/pattern"], True),
    ("pattern changed", {**S, "pattern": "^a"}, {**S, "pattern": "^b"}, ["PATTERN_CHANGED #/pattern"], False),
    ("a pattern of another language kept", {**S, "pattern": "^\\p{L}$"}, {**S, "pattern": "^\\p{L}$"}, [], True),
    ("pattern kept", {**S, "pattern": "^a"}, {**S, "pattern": "^a"}, [], True),
    ("multipleOf removed", {**N, "multipleOf": 6}, N, ["MULTIPLE_OF_REMOVED #/multipleOf"], True),
    ("multipleOf a divisor", {**N, "multipleOf": 6}, {**N, "multipleOf": 3}, ["MULTIPLE_OF_REDUCED #/multipleOf"], True),
    ("multipleOf a multiple", {**N, "multipleOf": 3}, {**N, "multipleOf": 6}, ["MULTIPLE_OF_EXPANDED #/multipleOf"], False),
    ("multipleOf another", {**N, "multipleOf": 6}, {**N, "multipleOf": 7}, ["MULTIPLE_OF_CHANGED #/multipleOf"], False),
    ("number to integer", N, INT, ["TYPE_NARROWED #/"], False),
    ("integer to number", INT, N, ["TYPE_EXTENDED #/"], True),
    ("not, narrowed", {"not": N}, {"not": INT}, ["NOT_TYPE_NARROWED #/not"], True),
    ("not, extended", {"not": INT}, {"not": N}, ["NOT_TYPE_EXTENDED #/not"], False),
    (
        "a reference's schema",
        items_ref := {"type": "array", "items": {"$ref": "#/definitions/a"}, "definitions": {"a": S}},
        {**items_ref, "definitions": {"a": N}},
        ["TYPE_CHANGED #/items"],
        False,
    ),
    ("to a reference", S, {"$ref": "#/definitions/a", "definitions": {"a": S}}, [], True),
    ("from a reference", {"$ref": "#/definitions/a", "definitions": {"a": S}}, S, [], True),
]
COMBINED: list[Case] = [
    ("enum removed", {**S, "enum": ["x"]}, S, ["PRODUCT_TYPE_NARROWED #/"], True),
    ("enum another", {"allOf": [S, {"enum": ["x"]}]}, {"allOf": [S, {"enum": ["y"]}]}, ["COMBINED_TYPE_SUBSCHEMAS_CHANGED #/"], False),
    ("enum extended", {"allOf": [S, {"enum": ["x"]}]}, {"allOf": [{"enum": ["x", "y"]}, S]}, ["ENUM_ARRAY_EXTENDED #/allOf/1/enum"], True),
    ("list of types", {"type": ["object"]}, {"type": ["object", "array"]}, ["SUM_TYPE_EXTENDED #/"], True),
    ("oneOf another", {"oneOf": [S]}, {"oneOf": [N]}, ["COMBINED_TYPE_SUBSCHEMAS_CHANGED #/"], False),
    ("oneOf extended before", {"oneOf": [S]}, {"oneOf": [N, S]}, ["SUM_TYPE_EXTENDED #/"], True),
    ("oneOf of objects", {"oneOf": [has({"a": S})]}, {"oneOf": [has({"a": N})]}, ["COMBINED_TYPE_SUBSCHEMAS_CHANGED #/"], False),
    ("oneOf narrowed", {"oneOf": [N, S]}, {"oneOf": [S]}, ["SUM_TYPE_NARROWED #/"], False),
    ("allOf extended", {"allOf": [N]}, {"allOf": [N, {"maximum": 3}]}, ["PRODUCT_TYPE_EXTENDED #/"], False),
    ("oneOf to allOf of several", {"oneOf": [S, N]}, {"allOf": [S, N]}, ["COMBINED_TYPE_CHANGED #/"], False),
    ("oneOf to allOf of one", {"oneOf": [S]}, {"allOf": [S]}, ["COMBINED_TYPE_EXTENDED #/"], True),
    ("oneOf to anyOf", {"oneOf": [S, N]}, {"anyOf": [S, N]}, ["COMBINED_TYPE_EXTENDED #/"], True),
    ("to one of several", S, {"oneOf": [N, S]}, ["SUM_TYPE_EXTENDED #/"], True),
    ("to optional", NULL, {"oneOf": [N, NULL]}, ["SUM_TYPE_EXTENDED #/"], True),
    (
        "to one of several, and wider",
        {**S, "maxLength": 3},
        {"oneOf": [N, S]},
        ["MAX_LENGTH_REMOVED #/maxLength", "SUM_TYPE_EXTENDED #/"],
        True,
    ),
]
OBJECTS: list[Case] = [
    (
        "property another",
        has({"a": S}),
        has({"b": S}),
        ["PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL #/properties/b", "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL #/properties/a"],
        False,
    ),
    ("property's type", has({"a": S}), has({"a": N}), ["TYPE_CHANGED #/properties/a"], False),
    ("property added to a closed model", has({"a": S}, **CLOSED), has({"a": S, "b": N}, **CLOSED), [f"{OPTIONAL} #/properties/b"], True),
    (
        "property added where a pattern covers it",
        has({"a": S}, patternProperties={"^S_": S, "^I_": INT}, **CLOSED),
        has({"a": S, "I_7": N}, patternProperties={"^S_": S, "^I_": INT}, **CLOSED),
        ["TYPE_EXTENDED #/properties/I_7", f"PROPERTY_ADDED_{COVERED} #/properties/I_7", f"{OPTIONAL} #/properties/I_7"],
        True,
    ),
    (
        "property added where the rest covers it",
        has({"a": S}, **TEXTS),
        has({"a": S, "b": S}, **TEXTS),
        [f"PROPERTY_ADDED_{COVERED} #/properties/b", f"{OPTIONAL} #/properties/b"],
        True,
    ),
    (
        "property added where the rest is another",
        has({"a": S}, **TEXTS),
        has({"a": S, "b": N}, **TEXTS),
        ["TYPE_CHANGED #/properties/b", f"PROPERTY_ADDED_{UNCOVERED} #/properties/b", f"{OPTIONAL} #/properties/b"],
        False,
    ),
    (
        "required property added where the rest covers it",
        has({"a": S}, **TEXTS),
        has({"a": S, "b": S}, required=["b"], **TEXTS),
        [f"PROPERTY_ADDED_{COVERED} #/properties/b", "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL #/properties/b"],
        False,
    ),
    (
        "property removed where a pattern covers it",
        has({"a": S, "I_7": INT}, **CLOSED),
        has({"a": S}, patternProperties={"^I_": N}, **CLOSED),
        ["TYPE_EXTENDED #/properties/I_7", f"PROPERTY_REMOVED_{COVERED} #/properties/I_7"],
        True,
    ),
    (
        "property removed where the rest covers it",
        has({"a": S, "b": S}, **CLOSED),
        has({"a": S}, **TEXTS),
        [f"PROPERTY_REMOVED_{COVERED} #/properties/b", "ADDITIONAL_PROPERTIES_ADDED #/additionalProperties"],
        True,
    ),
    (
        "property removed where the rest is another",
        has({"a": S, "b": N}, **CLOSED),
        has({"a": S}, **TEXTS),
        [
            "TYPE_CHANGED #/properties/b",
            f"PROPERTY_REMOVED_{UNCOVERED} #/properties/b",
            "ADDITIONAL_PROPERTIES_ADDED #/additionalProperties",
        ],
        False,
    ),
    (
        "optional property removed where the rest is optional",
        has({"a": S, "b": MAYBE}, **CLOSED),
        has({"a": S}, **MAYBES),
        [f"PROPERTY_REMOVED_{COVERED} #/properties/b", "ADDITIONAL_PROPERTIES_ADDED #/additionalProperties"],
        True,
    ),
    (
        "property removed where the rest is wider",
        has({"a": S, "b": S}, **CLOSED),
        has({"a": S}, **MAYBES),
        [
            "SUM_TYPE_EXTENDED #/properties/b",
            f"PROPERTY_REMOVED_{COVERED} #/properties/b",
            "ADDITIONAL_PROPERTIES_ADDED #/additionalProperties",
        ],
        True,
    ),
    (
        "property added to an open model",
        has({"a": S}),
        has({"a": S, "b": N}),
        ["PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL #/properties/b"],
        False,
    ),
    (
        "property removed from a closed model",
        has({"a": S, "b": S}, **CLOSED),
        has({"a": S}, **CLOSED),
        ["PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL #/properties/b"],
        False,
    ),
    (
        "lists of dependencies",
        has({"a": N, "b": S}, dependencies={"a": ["b"]}),
        has({"a": N, "b": S}, dependencies={"b": ["a"]}),
        ["DEPENDENCY_ARRAY_ADDED #/dependencies/b", "DEPENDENCY_ARRAY_REMOVED #/dependencies/a"],
        False,
    ),
    (
        "a dependency fewer",
        {"dependencies": {"a": S, "b": S}},
        {"dependencies": {"a": S}},
        ["DEPENDENCY_SCHEMA_REMOVED #/dependencies/b"],
        True,
    ),
    ("no dependency", {"dependencies": {"a": S}}, {"dependencies": {}}, ["DEPENDENCY_SCHEMA_REMOVED #/dependencies/a"], True),
    ("a dependency's schema", {"dependencies": {"a": S}}, {"dependencies": {"a": N}}, ["TYPE_CHANGED #/dependencies/a"], False),
    (
        "another dependency",
        {"dependencies": {"a": S}},
        {"dependencies": {"b": S}},
        ["DEPENDENCY_SCHEMA_ADDED #/dependencies/b", "DEPENDENCY_SCHEMA_REMOVED #/dependencies/a"],
        False,
    ),
    ("no longer required", has({"a": S}, required=["a"]), has({"a": S}), ["REQUIRED_ATTRIBUTE_REMOVED #/required/a"], True),
    ("required", has({"a": S}), has({"a": S}, required=["a"]), ["REQUIRED_ATTRIBUTE_ADDED #/required/a"], False),
    (
        "required, with a default",
        has({"a": {**S, "default": "x"}}),
        has({"a": {**S, "default": "x"}}, required=["a"]),
        ["REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED #/required/a"],
        True,
    ),
    (
        "what is required is no property",
        has({"a": S}, required=["a"]),
        has({"a": S}, required=["b"]),
        ["REQUIRED_ATTRIBUTE_REMOVED #/required/a"],
        True,
    ),
    ("opened", has({}, **CLOSED), has({}), ["ADDITIONAL_PROPERTIES_ADDED #/additionalProperties"], True),
    ("closed", {"additionalProperties": True}, CLOSED, ["ADDITIONAL_PROPERTIES_REMOVED #/additionalProperties"], False),
    (
        "partly closed",
        {"additionalProperties": True},
        {"additionalProperties": N},
        ["ADDITIONAL_PROPERTIES_NARROWED #/additionalProperties"],
        False,
    ),
    ("the rest's type", TEXTS, {"additionalProperties": N}, ["TYPE_CHANGED #/additionalProperties"], False),
    (
        "anything added to an open model",
        {"additionalProperties": True},
        has({"a": True}, additionalProperties=True),
        ["PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL #/properties/a"],
        True,
    ),
    (
        "anything removed from an open model",
        has({"a": True}, additionalProperties=True),
        {"additionalProperties": True},
        ["PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL #/properties/a"],
        True,
    ),
    ("nothing added to a closed model", CLOSED, has({"a": False}, **CLOSED), [f"{OPTIONAL} #/properties/a"], True),
    (
        "nothing removed from a closed model",
        has({"a": False}, **CLOSED),
        CLOSED,
        ["PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL #/properties/a"],
        True,
    ),
]
ARRAYS: list[Case] = [
    ("items declared", {"type": "array"}, {"type": "array", "items": S}, ["SCHEMA_ADDED #/items"], False),
    ("items no longer declared", {"type": "array", "items": S}, {"type": "array"}, ["SCHEMA_REMOVED #/items"], True),
    (
        "a list of items removed",
        items(S, N),
        {"type": "array"},
        ["ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL #/items/0", "ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL #/items/1"],
        True,
    ),
    ("item added, covered", items(S, N, additionalItems=S), items(S, N, S, additionalItems=S), [f"ITEM_ADDED_{COVERED} #/items/2"], True),
    (
        "item added, not covered",
        items(S, N, additionalItems=S),
        items(S, N, N, additionalItems=S),
        ["TYPE_CHANGED #/items/2", f"ITEM_ADDED_{UNCOVERED} #/items/2"],
        False,
    ),
    (
        "item removed, covered",
        items(S, N, S, additionalItems=S),
        items(S, N, additionalItems=S),
        [f"ITEM_REMOVED_{COVERED} #/items/2"],
        True,
    ),
    (
        "optional item removed, covered",
        items(S, N, MAYBE, additionalItems=MAYBE),
        items(S, N, additionalItems=MAYBE),
        [f"ITEM_REMOVED_{COVERED} #/items/2"],
        True,
    ),
    (
        "item removed, not covered",
        items(S, N, N, additionalItems=S),
        items(S, N, additionalItems=S),
        ["TYPE_CHANGED #/items/2", f"ITEM_REMOVED_{UNCOVERED} #/items/2"],
        False,
    ),
    ("item's type", items(S), items(N), ["TYPE_CHANGED #/items/0"], False),
    ("no longer unique", {"type": "array", "uniqueItems": True}, {"type": "array"}, ["UNIQUE_ITEMS_REMOVED #/uniqueItems"], True),
    ("closed", {"additionalItems": True}, {"additionalItems": False}, ["ADDITIONAL_ITEMS_REMOVED #/additionalItems"], False),
    ("the rest's type", {"additionalItems": S}, {"additionalItems": N}, ["TYPE_CHANGED #/additionalItems"], False),
    (
        "anything added to an open model",
        items(N, additionalItems=True),
        items(N, True, additionalItems=True),
        ["ITEM_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL #/items/1"],
        True,
    ),
    (
        "anything removed from an open model",
        items(N, True, additionalItems=True),
        items(N, additionalItems=True),
        ["ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL #/items/1"],
        True,
    ),
    (
        "nothing added to a closed model",
        items(N, additionalItems=False),
        items(N, False, additionalItems=False),
        ["ITEM_ADDED_TO_CLOSED_CONTENT_MODEL #/items/1"],
        True,
    ),
    (
        "nothing removed from a closed model",
        items(N, False, additionalItems=False),
        items(N, additionalItems=False),
        ["ITEM_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL #/items/1"],
        True,
    ),
    (
        "item added, then opened",
        items(S, N, additionalItems=False),
        items(S, N, B, additionalItems=True),
        ["ITEM_ADDED_TO_CLOSED_CONTENT_MODEL #/items/2", "ADDITIONAL_ITEMS_ADDED #/additionalItems"],
        True,
    ),
    (
        "item removed, then opened",
        items(S, N, B, additionalItems=False),
        items(S, N, additionalItems=True),
        ["ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL #/items/2", "ADDITIONAL_ITEMS_ADDED #/additionalItems"],
        True,
    ),
    (
        "item removed from an open model",
        items(S, N, additionalItems=True),
        items(S, additionalItems=True),
        ["ITEM_REMOVED_FROM_OPEN_CONTENT_MODEL #/items/1"],
        True,
    ),
    (
        "item added to a closed model",
        items(S, additionalItems=False),
        items(S, N, additionalItems=False),
        ["ITEM_ADDED_TO_CLOSED_CONTENT_MODEL #/items/1"],
        True,
    ),
    (
        "item removed, the rest covers it",
        items(S, N, additionalItems=False),
        items(S, additionalItems=N),
        [f"ITEM_REMOVED_{COVERED} #/items/1", "ADDITIONAL_ITEMS_ADDED #/additionalItems"],
        True,
    ),
    (
        "item added, the rest covered it",
        items(S, additionalItems=N),
        items(S, N, additionalItems=True),
        [f"ITEM_ADDED_{COVERED} #/items/1", "ADDITIONAL_ITEMS_EXTENDED #/additionalItems"],
        True,
    ),
]
CASES = [*SIMPLE, *COMBINED, *OBJECTS, *ARRAYS]
# Title, names that the metadata reserved before and after, properties after, differences, compatible.
RESERVED: list[tuple[str, str, str, list[str], list[str], bool]] = [
    ("given up", "state", "", ["a"], ["RESERVED_PROPERTY_REMOVED state"], False),
    (
        "used",
        "fee, state",
        "fee,state",
        ["a", "fee", "state"],
        [
            "RESERVED_PROPERTY_CONFLICTS_WITH_PROPERTY #/properties/fee",
            "RESERVED_PROPERTY_CONFLICTS_WITH_PROPERTY #/properties/state",
            f"{OPTIONAL} #/properties/fee",
            f"{OPTIONAL} #/properties/state",
        ],
        False,
    ),
    (
        "given up, and another used",
        "fee,state",
        "state",
        ["a", "state"],
        ["RESERVED_PROPERTY_REMOVED fee", "RESERVED_PROPERTY_CONFLICTS_WITH_PROPERTY #/properties/state", f"{OPTIONAL} #/properties/state"],
        False,
    ),
    ("kept", "fee,state", "fee,state", ["a", "b"], [f"{OPTIONAL} #/properties/b"], True),
    (
        "new, and used at once",
        "",
        "fee,state",
        ["a", "state"],
        ["RESERVED_PROPERTY_CONFLICTS_WITH_PROPERTY #/properties/state", f"{OPTIONAL} #/properties/state"],
        False,
    ),
    (
        "all given up",
        "fee,state",
        "",
        ["a", "state"],
        ["RESERVED_PROPERTY_REMOVED fee", "RESERVED_PROPERTY_REMOVED state", f"{OPTIONAL} #/properties/state"],
        False,
    ),
]
