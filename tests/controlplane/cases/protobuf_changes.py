"""Changes of Protobuf schemas and what Confluent's schema registry says of them.

The cases follow those that Confluent publishes with its registry (their file is under another licence, so the schemas here are our own):
title, old, new, differences, compatible. Of a schema with imports, the texts stand in a mapping; the last one is the schema.
"""

Text = str | dict[str, str]
Case = tuple[str, Text, Text, list[str], bool]
P3, P2 = 'syntax = "proto3"; ', 'syntax = "proto2"; '


def ride(fields: str, more: str = "", head: str = P3) -> str:
    """A file with a message "Ride"."""
    return f"{head}message Ride {{ {fields} }} {more}"


def importing(package: str, body: str, name: str = "dep.proto") -> dict[str, str]:
    """A file with a message "Ride" whose first field is of an imported message "Bike"."""
    path = "Shop.Bike" if "Shop" in body else "Bike"
    return {name: f"{P3}package {package}; {body}", "main": f'{P3}import "{name}"; message Ride {{ .{package}.{path} bike = 1; }}'}


NAME = "string name = 1; "
STATE_MESSAGE = "message State { string text = 1; }"
STATE = "enum State { ON = 0; OFF = 1; }"
BIKE = "message Bike { int32 id = 1; bool electric = 2; }"
SHOP = "message Shop { message Bike { int32 id = 1; bool electric = 2; } }"
QUALIFIED = "package shop.v1; message Ride { string name = 1; .shop.v1.Ride.State state = 2; message State { string text = 1; } }"
FIELDS: list[Case] = [
    ("package", P3 + QUALIFIED, P3 + QUALIFIED.replace("shop.v1", "shop.v2"), ["PACKAGE_CHANGED #/"], True),
    ("name qualified", ride(NAME + "State s = 2; " + STATE_MESSAGE), ride(NAME + ".Ride.State s = 2; " + STATE_MESSAGE), [], True),
    ("name qualified in a package", P3 + QUALIFIED.replace(".shop.v1.Ride.State", "State"), P3 + QUALIFIED, [], True),
    ("field added", ride(NAME), ride(NAME + "string note = 2;"), ["FIELD_ADDED #/Ride/2"], True),
    (
        "required field added",
        ride("optional " + NAME, head=P2),
        ride("optional " + NAME + "required string note = 2;", head=P2),
        ["REQUIRED_FIELD_ADDED #/Ride/2"],
        False,
    ),
    (
        "required field removed",
        ride("optional " + NAME + "required string note = 2;", head=P2),
        ride("optional " + NAME, head=P2),
        ["REQUIRED_FIELD_REMOVED #/Ride/2"],
        False,
    ),
    (
        "field added to a nested message",
        P3 + "message Outer { int32 n = 1; message Ride { string name = 1; } }",
        P3 + "message Outer { int32 n = 1; message Ride { string name = 1; string note = 2; } }",
        ["FIELD_ADDED #/Outer/Ride/2"],
        True,
    ),
    ("field removed", ride(NAME + "string note = 2;"), ride(NAME), ["FIELD_REMOVED #/Ride/2"], True),
    ("number of a field", ride(NAME), ride("string name = 2;"), ["FIELD_REMOVED #/Ride/1", "FIELD_ADDED #/Ride/2"], True),
    ("int32 to int64", ride(NAME + "int32 n = 2;"), ride(NAME + "int64 n = 2;"), [], True),
    ("string to bytes", ride(NAME + "string note = 2;"), ride(NAME + "bytes note = 2;"), [], True),
    ("int32 to sint32", ride("int32 n = 1;"), ride("sint32 n = 1;"), ["FIELD_SCALAR_KIND_CHANGED #/Ride/1"], False),
    ("fixed32 to float", ride("fixed32 n = 1;"), ride("float n = 1;"), ["FIELD_SCALAR_KIND_CHANGED #/Ride/1"], False),
    ("number to enum", ride("int32 n = 1;"), ride("State n = 1;", STATE), ["ENUM_ADDED #/State"], True),
    ("enum to number", ride("State n = 1;", STATE), ride("int32 n = 1;"), ["ENUM_REMOVED #/State"], True),
    (
        "number to message, an enum of the same name",
        ride(NAME + "int32 n = 2;"),
        ride(NAME + ".Ride.State n = 2; " + STATE_MESSAGE, STATE.replace("State", "State")),
        ["FIELD_KIND_CHANGED #/Ride/2", "MESSAGE_ADDED #/Ride/State", "ENUM_ADDED #/State"],
        False,
    ),
    (
        "message to number, an enum of the same name",
        ride(NAME + ".Ride.State n = 2; " + STATE_MESSAGE, STATE),
        ride(NAME + "int32 n = 2;"),
        ["FIELD_KIND_CHANGED #/Ride/2", "MESSAGE_REMOVED #/Ride/State", "ENUM_REMOVED #/State"],
        False,
    ),
    (
        "name of an enum's value",
        ride("State n = 1;", STATE),
        ride("State n = 1;", STATE.replace("OFF", "AWAY")),
        ["ENUM_CONST_CHANGED #/State/1"],
        True,
    ),
    ("number to message", ride("int32 n = 1;"), ride("Bike n = 1;", BIKE), ["MESSAGE_ADDED #/Bike", "FIELD_KIND_CHANGED #/Ride/1"], False),
    (
        "another field of the same number",
        ride(NAME + "int32 n = 2;"),
        ride(NAME + "string note = 2;"),
        ["FIELD_NAME_CHANGED #/Ride/2", "FIELD_SCALAR_KIND_CHANGED #/Ride/2"],
        False,
    ),
    (
        "another message",
        ride("Bike b = 1;", BIKE),
        ride("Car b = 1;", BIKE.replace("Bike", "Car")),
        ["MESSAGE_REMOVED #/Bike", "MESSAGE_ADDED #/Car", "FIELD_NAMED_TYPE_CHANGED #/Ride/1"],
        False,
    ),
    (
        "values of a map",
        ride(NAME + "map<string, int32> a = 2;"),
        ride(NAME + "map<string, string> b = 2;"),
        ["FIELD_NAME_CHANGED #/Ride/2", "FIELD_SCALAR_KIND_CHANGED #/Ride/2"],
        False,
    ),
    (
        "name qualified in a map",
        ride("map<string, State> m = 1; " + STATE_MESSAGE),
        ride("map<string, Ride.State> m = 1; " + STATE_MESSAGE),
        [],
        True,
    ),
    ("message repeated", ride("optional State s = 1; " + STATE_MESSAGE), ride("repeated State s = 1; " + STATE_MESSAGE), [], True),
    (
        "string repeated",
        ride("optional string s = 1;"),
        ride("repeated string s = 1;"),
        ["FIELD_STRING_OR_BYTES_LABEL_CHANGED #/Ride/1"],
        True,
    ),
    (
        "bytes repeated",
        ride("optional bytes s = 1;"),
        ride("repeated bytes s = 1;"),
        ["FIELD_STRING_OR_BYTES_LABEL_CHANGED #/Ride/1"],
        True,
    ),
    ("number repeated", ride("optional int32 n = 1;"), ride("repeated int32 n = 1;"), ["FIELD_NUMERIC_LABEL_CHANGED #/Ride/1"], False),
    ("message added", ride(NAME), ride(NAME, BIKE), ["MESSAGE_ADDED #/Bike"], True),
    ("message added before", ride(NAME), f"{P3}{BIKE} message Ride {{ {NAME} }}", ["MESSAGE_ADDED #/Bike", "MESSAGE_MOVED #/Ride"], True),
    (
        "messages changed places",
        ride(NAME, BIKE),
        f"{P3}{BIKE} message Ride {{ {NAME} }}",
        ["MESSAGE_MOVED #/Bike", "MESSAGE_MOVED #/Ride"],
        True,
    ),
    (
        "message that contains itself",
        ride("Ride next = 1; int32 n = 2;"),
        ride("Ride next = 1; string n = 2;"),
        ["FIELD_SCALAR_KIND_CHANGED #/Ride/2"],
        False,
    ),
    (
        "field became required",
        ride("optional " + NAME, head=P2),
        ride("required " + NAME, head=P2),
        ["FIELD_BECAME_REQUIRED #/Ride/1"],
        False,
    ),
]
ONEOFS: list[Case] = [
    (
        "field into a new oneof",
        ride(NAME + "string note = 2;"),
        ride(NAME + "oneof what { string note = 2; int32 id = 3; }"),
        ["ONEOF_ADDED #/Ride/what"],
        True,
    ),
    (
        "fields into a new oneof",
        ride(NAME + "string note = 2;"),
        ride(f"oneof what {{ {NAME} string note = 2; int32 id = 3; }}"),
        ["MULTIPLE_FIELDS_MOVED_TO_ONEOF #/Ride/what", "ONEOF_ADDED #/Ride/what"],
        False,
    ),
    (
        "field added to a oneof",
        ride(f"oneof what {{ {NAME} string note = 2; }}"),
        ride(f"oneof what {{ {NAME} string note = 2; int32 id = 3; }}"),
        ["ONEOF_FIELD_ADDED #/Ride/what/3"],
        True,
    ),
    (
        "field removed from a oneof",
        ride(f"oneof what {{ {NAME} string note = 2; int32 id = 3; }}"),
        ride(f"oneof what {{ {NAME} string note = 2; }}"),
        ["ONEOF_FIELD_REMOVED #/Ride/what/3"],
        False,
    ),
    (
        "field into an existing oneof",
        ride(f"oneof what {{ {NAME} }} string note = 2;"),
        ride(f"oneof what {{ {NAME} string note = 2; }}"),
        ["FIELD_MOVED_TO_EXISTING_ONEOF #/Ride/what"],
        False,
    ),
    (
        "type of a field of a renamed oneof",
        ride(f"oneof what {{ {NAME} }}"),
        ride("oneof which { int32 name = 1; }"),
        ["ONEOF_REMOVED #/Ride/what", "ONEOF_ADDED #/Ride/which", "FIELD_SCALAR_KIND_CHANGED #/Ride/1"],
        False,
    ),
]
IMPORTS: list[Case] = [
    (
        "an imported message changed",
        importing("shop", BIKE),
        importing("shop", BIKE.replace("int32", "string"), "dep2.proto"),
        ["FIELD_SCALAR_KIND_CHANGED #/Bike/1", "FIELD_NAMED_TYPE_CHANGED #/Ride/1"],
        False,
    ),
    ("to an import", ride("Bike bike = 1;", BIKE), importing("shop", BIKE), ["MESSAGE_REMOVED #/Bike"], False),
    ("from an import", importing("shop", BIKE), ride("Bike bike = 1;", BIKE), ["MESSAGE_ADDED #/Bike"], True),
    ("import of another package", importing("shop", BIKE), importing("store", BIKE, "dep2.proto"), [], True),
    ("import of a nested message of another package", importing("shop", SHOP), importing("store", SHOP, "dep2.proto"), [], True),
    (
        "an imported nested message changed",
        importing("shop", SHOP),
        importing("store", SHOP.replace("int32", "string")),
        ["FIELD_SCALAR_KIND_CHANGED #/Shop/Bike/1", "FIELD_NAMED_TYPE_CHANGED #/Ride/1"],
        False,
    ),
]
CASES = [*FIELDS, *ONEOFS, *IMPORTS]
# Title, names that the metadata reserved before and after, old, new, differences, compatible.
RESERVED: list[tuple[str, str, str, str, str, list[str], bool]] = [
    ("new, and used at once", "", "name", ride(NAME), ride(NAME), ["FIELD_CONFLICTS_WITH_RESERVED_FIELD name"], False),
    ("given up", "state", "", ride(NAME), ride(NAME), ["RESERVED_FIELD_REMOVED state"], False),
    (
        "used",
        "fee,state",
        "fee, state",
        ride(NAME),
        ride(NAME + "int32 fee = 2; string state = 3;"),
        [
            "FIELD_CONFLICTS_WITH_RESERVED_FIELD fee",
            "FIELD_CONFLICTS_WITH_RESERVED_FIELD state",
            "FIELD_ADDED #/Ride/2",
            "FIELD_ADDED #/Ride/3",
        ],
        False,
    ),
    (
        "given up, and another used",
        "fee,state",
        "state",
        ride(NAME),
        ride(NAME + "string state = 2;"),
        ["RESERVED_FIELD_REMOVED fee", "FIELD_CONFLICTS_WITH_RESERVED_FIELD state", "FIELD_ADDED #/Ride/2"],
        False,
    ),
    ("kept", "fee,state", "fee,state", ride(NAME), ride(NAME + "float x = 2;"), ["FIELD_ADDED #/Ride/2"], True),
]
# What `docs/compatibility.md` says of `buf breaking` (WIRE): title, old, new, compatible for the registry; buf says the opposite.
BUF_DIFFERS: list[tuple[str, str, str, bool]] = [
    ("field removed", ride(NAME + "string note = 2;"), ride(NAME), True),
    ("number of a field", ride(NAME), ride("string name = 2;"), True),
    ("field of a oneof removed", ride(f"oneof what {{ {NAME} int32 id = 2; }}"), ride(f"oneof what {{ {NAME} }} reserved 2;"), False),
    ("enum value removed", ride("State s = 1;", STATE), ride("State s = 1;", "enum State { ON = 0; }"), True),
    ("number to enum", ride("int32 n = 1;"), ride("State n = 1;", STATE), True),
    ("string repeated", ride("optional string s = 1;"), ride("repeated string s = 1;"), True),
    ("field into a new oneof", ride("string note = 2;"), ride("oneof what { string note = 2; int32 id = 3; }"), True),
    ("package", P3 + QUALIFIED, P3 + QUALIFIED.replace("shop.v1", "shop.v2"), True),
    ("message removed", ride(NAME, BIKE), ride(NAME), False),
]
