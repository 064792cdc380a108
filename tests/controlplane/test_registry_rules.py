"""Compatibility of schemas, without a registry."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import ArterialError
from services.controlplane.registry import avro, avro_rules, json_rules, json_schema, protobuf_rules, prototext, verdicts
from services.controlplane.registry.definition import Compatibility, Definition, SchemaType, SchemaViolation
from services.controlplane.registry.protobuf import closure, model, parse
from services.controlplane.registry.reading import Import, Understood, understand
from services.controlplane.registry.verdicts import Earlier
from tests.controlplane.cases import avro_changes, json_changes, protobuf_changes


def told(found: list[SchemaViolation]) -> list[str]:
    """Rules with paths, in order of the alphabet."""
    return sorted(f"{each.rule} {each.path}" for each in found)


def document(schema: object) -> json_schema.JsonDocument:
    """A JSON Schema."""
    return json_schema.parse(json.dumps(schema), {})


def proto(text: protobuf_changes.Text, reserved: str = "") -> Understood:
    """A Protobuf schema with its imports."""
    imports = []
    if isinstance(text, dict):
        *named, (_, text) = text.items()
        imports = [Import(name, understand(Definition(SchemaType.PROTOBUF, body))) for name, body in named]
    metadata = {"properties": {"confluent:reserved": reserved}} if reserved else None
    return understand(Definition(SchemaType.PROTOBUF, text, metadata=metadata), imports)


@pytest.mark.parametrize("case", json_changes.CASES, ids=lambda case: case[0])
def test_json_schemas_are_judged_as_confluent_does(case: json_changes.Case) -> None:
    """Every difference with its path, and whether it is compatible."""
    _, old, new, wanted, compatible = case
    found = json_rules.differences(document(old), document(new))
    assert told(found) == sorted(wanted)
    assert all(each.rule in json_rules.COMPATIBLE for each in found) is compatible


def modern(schema: Any) -> Any:
    """A schema in the words of draft 2020-12: first items are "prefixItems", the rest "items"."""
    if not isinstance(schema, dict):
        return [modern(each) for each in schema] if isinstance(schema, list) else schema
    found = {key: modern(value) for key, value in schema.items()}
    if isinstance(found.get("items"), list):
        found["prefixItems"] = found.pop("items")
    if "additionalItems" in found:
        found["items"] = found.pop("additionalItems")
    return found


@pytest.mark.parametrize("case", json_changes.CASES, ids=lambda case: case[0])
def test_the_newest_draft_of_json_schema_is_judged_alike(case: json_changes.Case) -> None:
    """Though arrays have other words there."""
    _, old, new, _, compatible = case
    schemas = [document({"$schema": "https://json-schema.org/draft/2020-12/schema", **modern(schema)}) for schema in (old, new)]
    assert all(each.rule in json_rules.COMPATIBLE for each in json_rules.differences(*schemas)) is compatible


@pytest.mark.parametrize("case", json_changes.RESERVED, ids=lambda case: case[0])
def test_json_properties_that_the_metadata_reserves(case: tuple[str, str, str, list[str], list[str], bool]) -> None:
    """Given up, or used, they are incompatible."""
    _, before, after, names, wanted, compatible = case
    old = {"properties": {"a": {"type": "string"}}, "additionalProperties": False}
    new = {"properties": {name: {"type": "string"} for name in names}, "additionalProperties": False}
    schemas = [
        understand(Definition(SchemaType.JSON, json.dumps(schema), metadata={"properties": {"confluent:reserved": reserved}}))
        for schema, reserved in ((old, before), (new, after))
    ]
    broken = verdicts.incompatibilities(*schemas)
    assert told(broken) == sorted(each for each in wanted if not each.startswith("OPTIONAL")) and (not broken) is compatible


@pytest.mark.parametrize("case", protobuf_changes.CASES, ids=lambda case: case[0])
def test_protobuf_schemas_are_judged_as_confluent_does(case: protobuf_changes.Case) -> None:
    """Every difference with its path, and whether it is compatible."""
    _, old, new, wanted, compatible = case
    before, after = (model(proto(text).files) for text in (old, new))
    found = protobuf_rules.differences(before, after)
    assert told(found) == sorted(wanted)
    assert all(each.rule in protobuf_rules.COMPATIBLE for each in found) is compatible


@pytest.mark.parametrize("case", protobuf_changes.RESERVED, ids=lambda case: case[0])
def test_protobuf_fields_that_the_metadata_reserves(case: tuple[str, str, str, str, str, list[str], bool]) -> None:
    """Given up, or used, they are incompatible."""
    _, before, after, old, new, wanted, compatible = case
    broken = verdicts.incompatibilities(proto(old, before), proto(new, after))
    assert told(broken) == sorted(each for each in wanted if not each.startswith("FIELD_ADDED")) and (not broken) is compatible


@pytest.mark.parametrize("case", avro_changes.CASES, ids=lambda case: case[0])
def test_avro_schemas_are_judged_as_avro_resolves_them(case: avro_changes.Case) -> None:
    """Every incompatibility of a reader and a writer, with its path."""
    _, reader, writer, wanted = case
    found = avro_rules.incompatibilities(avro.parse(json.dumps(reader), {}), avro.parse(json.dumps(writer), {}))
    assert [f"{each.rule} {each.path}" for each in found] == wanted


ONE, TWO, THREE = avro_changes.ONE, avro_changes.TWO, avro_changes.THREE
BARE = avro_changes.TWO_WITHOUT_DEFAULT


@pytest.mark.parametrize(
    ("level", "new", "earlier", "compatible"),
    [
        ("NONE", "int", [ONE], True),
        ("BACKWARD", TWO, [ONE], True),
        ("BACKWARD", BARE, [ONE], False),
        ("BACKWARD", BARE, [ONE, TWO], True),
        ("BACKWARD_TRANSITIVE", THREE, [ONE, TWO], True),
        ("BACKWARD_TRANSITIVE", BARE, [ONE, TWO], False),
        ("FORWARD", BARE, [ONE], True),
        ("FORWARD", ONE, [BARE], False),
        ("FORWARD", ONE, [BARE, TWO], True),
        ("FORWARD_TRANSITIVE", ONE, [THREE, TWO], True),
        ("FORWARD_TRANSITIVE", ONE, [BARE, TWO], False),
        ("FULL", TWO, [ONE], True),
        ("FULL", BARE, [ONE, TWO], True),
        ("FULL", BARE, [ONE], False),
        ("FULL", ONE, [BARE], False),
        ("FULL_TRANSITIVE", ONE, [THREE, TWO], True),
        ("FULL_TRANSITIVE", BARE, [ONE, TWO], False),
        ("FULL_TRANSITIVE", ONE, [BARE, TWO], False),
    ],
)
def test_levels_name_the_direction_and_the_versions_that_count(level: str, new: object, earlier: list[object], compatible: bool) -> None:
    """Without TRANSITIVE only the newest version counts."""
    schemas = [understand(Definition(SchemaType.AVRO, json.dumps(schema))) for schema in (new, *earlier)]
    versions = [Earlier(number, schema) for number, schema in enumerate(schemas[1:], 1)]
    assert (not verdicts.violations(schemas[0], versions, Compatibility(level))) is compatible


def test_another_language_is_incompatible_whatever_it_says() -> None:
    """Unless nothing is demanded."""
    old, new = understand(Definition(SchemaType.AVRO, json.dumps(ONE))), understand(Definition(SchemaType.JSON, "{}"))
    found = [verdicts.violations(new, [Earlier(1, old)], level) for level in (Compatibility.FORWARD, Compatibility.NONE)]
    assert [told(each) for each in found] == [["SCHEMA_TYPE_CHANGED #/"], []]


def test_tables_are_stricter_and_remember_every_version() -> None:
    """A column that version 1 had may not come back as another, though version 2 had dropped it rightly."""
    one = proto(protobuf_changes.ride("string name = 1; int64 fee = 2;"))
    two = proto(protobuf_changes.ride("string name = 1; reserved 2;"))
    three = proto(protobuf_changes.ride("string title = 1; optional double fee = 2;"))
    versions = [Earlier(1, one), Earlier(2, two)]
    loose, strict = (verdicts.violations(three, versions, Compatibility.BACKWARD, table=table) for table in (False, True))
    assert loose == [] and told(strict) == ["field_renamed name", "field_type_changed fee"]
    assert verdicts.violations(two, versions[:1], Compatibility.BACKWARD, table=True) == []


def test_compatible_changes_of_a_table_are_told_by_column() -> None:
    """Added, no longer filled, null instead of zero: for whoever reads the tables."""
    old = proto(protobuf_changes.ride("string name = 1; int64 fee = 2; Bike bike = 3;", protobuf_changes.BIKE))
    new = proto(
        protobuf_changes.ride(
            "optional string name = 1; reserved 2; Bike bike = 3;", "message Bike { int32 id = 1; bool electric = 2; bool new = 3; }"
        )
    )
    verdict = verdicts.judge(new, [Earlier(1, old)], Compatibility.BACKWARD, table=True)
    assert not verdict.violations
    assert told(list(verdict.changes)) == ["column_added bike.new", "column_no_longer_filled fee", "column_nullability_changed name"]


EVERYTHING = """
syntax = "proto3";
package all.v1; // of everything
import "buf/validate/validate.proto";
import public "google/protobuf/timestamp.proto";
option java_package = "com.all";
/* a message */ message Ride {
  option deprecated = true;
  reserved 20 to 22, 30; reserved "old";
  enum State { option allow_alias = true; ON = 0; ALSO = 0; OFF = -3 [deprecated = true]; reserved -9 to -7; }
  optional string name = 1 [(buf.validate.field).string = {min_len: 1, pattern: "^\\"x\\\\d+$"}, json_name = "NAME"];
  repeated int32 n = 2 [packed = false];
  map<string, Ride> parts = 3;
  oneof what { State state = 4; google.protobuf.Timestamp at = 5; }
  message Inner { bytes b = 1; }
  Inner inner = 6;
}
service Rides { rpc Find(stream Ride) returns (stream Ride.Inner) { option idempotency_level = IDEMPOTENT; } rpc Get(Ride) returns (Ride); }
"""
OLD = """
syntax = "proto2";
message Ride {
  required string name = 1 [default = "a\\"b\\n"];
  optional group Wheel = 2 { optional int32 size = 1 [default = -4]; }
  extensions 100 to max;
  optional double x = 3 [default = inf];
}
extend Ride { optional bool fast = 100; }
"""


@pytest.mark.parametrize("text", [EVERYTHING, OLD])
def test_the_canonical_text_is_the_same_file(text: str) -> None:
    """protoc makes the same descriptor of it, so it is the same for every way of writing the file."""
    file = parse(text, {})
    printed = prototext.text(FileDescriptorSet(file=closure(file, {})))
    assert parse(printed, {}) == file and prototext.text(FileDescriptorSet(file=closure(parse(printed, {}), {}))) == printed


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("PROTOBUF", 'syntax = "proto3"; message A { Nope n = 1; }'),
        ("PROTOBUF", 'syntax = "proto3"; import "nowhere.proto"; message A {}'),
        ("PROTOBUF", "QUJD"),
        ("AVRO", '{"type": "record"}'),
        ("AVRO", '{"type": "record", "name": "A", "fields": [{"name": "x", "type": "Nope"}]}'),
        ("AVRO", "{"),
        ("JSON", '{"type": "nope"}'),
        ("JSON", '{"$schema": 5}'),
        ("JSON", '{"$ref": "#/definitions/nope"}'),
        ("JSON", '{"$ref": "#/definitions/a", "definitions": {"a": {"$ref": "#/definitions/a"}}}'),
        ("JSON", "[" * 100_000),
    ],
)
def test_what_is_no_schema_is_told_why(kind: str, text: str) -> None:
    """With Confluent's code of an invalid schema."""
    with pytest.raises(ArterialError) as caught:
        understand(Definition(SchemaType(kind), text))
    assert caught.value.metadata == {"registry_code": "42201"} and caught.value.violations


def test_schemas_that_contain_themselves_are_compared() -> None:
    """Directly, and by a combination of schemas."""
    tree = {
        "$ref": "#/definitions/t",
        "definitions": {"t": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/definitions/t"}}]}},
    }
    wider = json.loads(json.dumps(tree).replace('"string"', '"number"'))
    assert json_rules.differences(document(tree), document(tree)) == []
    assert told(json_rules.differences(document(tree), document(wider))) == ["COMBINED_TYPE_SUBSCHEMAS_CHANGED #/"]


JSON_SCHEMAS = st.recursive(
    st.sampled_from([True, False, {}, *({"type": kind} for kind in ("string", "integer", "number", "null", "boolean"))]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("abc"), inner), "additionalProperties": inner}),
        st.fixed_dictionaries({"items": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)


@given(JSON_SCHEMAS)
def test_a_schema_is_compatible_with_itself(schema: object) -> None:
    """Whatever it is made of: parts that could stand for each other may be told as moved."""
    found = json_rules.differences(document(schema), document(schema))
    assert all(each.rule in json_rules.COMPATIBLE for each in found)


@pytest.mark.parametrize("case", protobuf_changes.BUF_DIFFERS, ids=lambda case: case[0])
def test_buf_judges_otherwise_where_the_documents_say_so(case: tuple[str, str, str, bool], tmp_path: Path) -> None:
    """The registry lets pass what buf refuses, or the other way round."""
    _, old, new, compatible = case
    for name, text in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ride.proto").write_text(text)
        (tmp_path / name / "buf.yaml").write_text("version: v2\nbreaking:\n  use: [WIRE]\n")
    words = [str(Path(sys.executable).with_name("buf")), "breaking", str(tmp_path / "new"), "--against", str(tmp_path / "old")]
    buf = subprocess.run(words, capture_output=True, check=False)
    assert (not verdicts.incompatibilities(proto(old), proto(new)), buf.returncode) == (compatible, 100 if compatible else 0)
