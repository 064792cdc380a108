"""Avro schemas and whether one reads what another wrote: title, reader, writer, incompatibilities.

Those of records without namespace follow the cases that Confluent publishes with its registry (their file is under another licence, so
the schemas here are our own); the others the rules of Avro's specification.
"""

from typing import Any

Case = tuple[str, Any, Any, list[str]]


def ride(*fields: Any, **more: Any) -> dict[str, Any]:
    """A record."""
    return {"type": "record", "name": "Ride", "fields": list(fields), **more}


def field(name: str, type_: Any = "string", **more: Any) -> dict[str, Any]:
    """A field."""
    return {"name": name, "type": type_, **more}


ONE = ride(field("a"))
TWO = ride(field("a"), field("b", default="x"))
TWO_WITHOUT_DEFAULT = ride(field("a"), field("b"))
RENAMED = ride(field("z", aliases=["a"]))
OPTIONAL = ride(field("a", ["null", "string"], doc="of a"))
WIDER = ride(field("a", ["null", "string", "int"], doc="of a"))
THREE = ride(field("a"), field("b", default="x"), field("c", default="y"))
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}
LIST: Any = {"type": "record", "name": "List", "fields": [field("n", "int"), field("next", ["null", "List"], default=None)]}
CASES: list[Case] = [
    ("field added with a default", TWO, ONE, []),
    ("field added without", TWO_WITHOUT_DEFAULT, ONE, ["READER_FIELD_MISSING_DEFAULT_VALUE /fields/1"]),
    ("field renamed with an alias", RENAMED, ONE, []),
    ("type to a union", OPTIONAL, ONE, []),
    ("union to a type", ONE, OPTIONAL, ["TYPE_MISMATCH /fields/0/type/0"]),
    ("type added to a union", WIDER, OPTIONAL, []),
    ("type removed from a union", OPTIONAL, WIDER, ["MISSING_UNION_BRANCH /fields/0/type/2"]),
    ("default removed", TWO_WITHOUT_DEFAULT, TWO, []),
    ("field removed", ONE, TWO, []),
    ("another name", ride(field("a"), name="Trip"), ONE, ["NAME_MISMATCH /name"]),
    ("another name with an alias", ride(field("a"), name="Trip", aliases=["Ride"]), ONE, []),
    ("another namespace", ride(field("a"), namespace="shop"), ONE, []),
    ("int to long", "long", "int", []),
    ("long to int", "int", "long", ["TYPE_MISMATCH /"]),
    ("int to double", "double", "int", []),
    ("string to bytes", "bytes", "string", []),
    ("symbol removed", {**COLOUR, "symbols": ["RED"]}, COLOUR, ["MISSING_ENUM_SYMBOLS /symbols"]),
    ("symbol removed, with a default", {**COLOUR, "symbols": ["RED"], "default": "RED"}, COLOUR, []),
    ("symbol added", {**COLOUR, "symbols": ["RED", "BLUE", "GREEN"]}, COLOUR, []),
    ("size of fixed", {"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 8}, ["FIXED_SIZE_MISMATCH /size"]),
    ("items", {"type": "array", "items": "int"}, {"type": "array", "items": "string"}, ["TYPE_MISMATCH /items"]),
    ("values", {"type": "map", "values": "long"}, {"type": "map", "values": "int"}, []),
    ("record that contains itself", LIST, LIST, []),
    (
        "everything wrong at once",
        ride(field("a", "int"), field("d"), field("e", COLOUR, default="RED")),
        ride(field("a"), field("e", {**COLOUR, "symbols": ["RED", "GREEN"]})),
        ["TYPE_MISMATCH /fields/0/type", "READER_FIELD_MISSING_DEFAULT_VALUE /fields/1", "MISSING_ENUM_SYMBOLS /fields/2/type/symbols"],
    ),
]
