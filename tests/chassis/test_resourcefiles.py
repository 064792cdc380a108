"""Resources in files: what is wrong is told at once, with its place and what is allowed instead."""

import json
from pathlib import Path

import pytest

from chassis.errors import ArterialError, Reason, Violation
from chassis.resourcefiles import declared, located, read

HEAD = "apiVersion: arterial.dev/v1\nkind: "


def refused(file: Path, text: str) -> list[tuple[str, str]]:
    """Place and reason of every violation."""
    file.write_text(text)
    with pytest.raises(ArterialError) as caught:
        read([file])
    assert caught.value.reason is Reason.INVALID_REQUEST
    return [(violation.field.removeprefix(f"{file}:"), violation.description) for violation in caught.value.violations]


def test_errors_come_all_at_once_with_line_and_path(tmp_path: Path) -> None:
    """Unknown kind, unknown fields at any depth, wrong types, unknown values, broken constraints."""
    told = refused(
        tmp_path / "wrong.yaml",
        f"{HEAD}Topik\nmetadata: {{name: a}}\n---\n"
        f"{HEAD}Cell\nmetadata: {{name: b, ouner: x}}\nspec:\n  regin: x\n---\n"
        f"{HEAD}Dataset\nmetadata: {{name: c}}\nspec:\n  tier: 9\n---\n"
        f"{HEAD}QualityRule\nmetadata: {{name: d}}\nspec:\n  dataset: x\n  test: UNIQ\n  columns: id\n  min: low\n---\n"
        "just text\n",
    )
    assert [place for place, _ in told] == [
        "2 kind",
        "7 metadata.ouner",
        "9 spec.regin",
        "15 spec.tier",
        "22 spec.test",
        "23 spec.columns",
        "24 spec.min",
        "26 ",
    ]
    reasons = [why for _, why in told]
    assert "did you mean Topic" in reasons[0] and "did you mean owner" in reasons[1] and "did you mean region" in reasons[2]
    assert "QUALITY_TEST_UNIQUE" in reasons[4] and "list" in reasons[5] and "a number" in reasons[6]


def test_a_definition_may_stand_in_a_file_beside(tmp_path: Path) -> None:
    """It is sent as the definition itself; a file that is not there is an error with its place."""
    file = tmp_path / "schema.yaml"
    schema = f"{HEAD}Schema\nmetadata: {{name: rides_v1}}\nspec: {{type: SCHEMA_TYPE_PROTOBUF, definitionFile: ride.proto}}\n"
    assert "ride.proto" in refused(file, schema)[0][1]
    (tmp_path / "ride.proto").write_text('syntax = "proto3";')
    (resource,) = read([file])
    assert (resource.schema.definition, resource.schema.definition_file) == ('syntax = "proto3";', "")


def test_what_a_service_refuses_is_told_with_file_and_line(tmp_path: Path) -> None:
    """Paths of the request become places in the files that it was made from."""
    file = tmp_path / "two.yaml"
    cell = f"{HEAD}Cell\nmetadata: {{name: a}}\nspec: {{region: x}}\n"
    file.write_text(f"{cell}---\n{HEAD}Slo\nmetadata:\n  name: b\nspec:\n  dataset: lake/none\n  indicator: SLO_INDICATOR_FRESHNESS\n")
    written = declared([file])
    with pytest.raises(ArterialError) as caught, located(written):
        raise ArterialError(Reason.INVALID_REQUEST, "no", violations=[Violation("resources[1].spec.dataset", "x")])
    assert [violation.field for violation in caught.value.violations] == [f"{file}:11 spec.dataset"]


def test_what_is_no_yaml_is_told(tmp_path: Path) -> None:
    """With the file."""
    assert "not YAML" in refused(tmp_path / "broken.yaml", "a: [1\n")[0][1]


def test_what_is_no_text_and_what_goes_too_deep_are_told(tmp_path: Path) -> None:
    """With the file; a folder that is named like a file is none; values that hold a million others are told by their beginning."""
    file = tmp_path / "wrong.yaml"
    file.write_bytes(b"\xff\xfe")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ArterialError) as caught:
        read([tmp_path])
    assert [violation.field for violation in caught.value.violations] == [str(file)]
    owner = f"{HEAD}Owner\nmetadata: {{name: a}}\nspec:\n"
    assert "must be text" in refused(file, f"{owner}  description: {'[' * 500}{']' * 500}\n")[0][1]
    grown = "".join(f"  a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9))
    told = refused(file, f"{owner}  a0: &a0 [x]\n{grown}  channels: [*a8]\n")
    assert any(place.endswith("spec.channels[0]") and len(why) < 200 for place, why in told)


def test_a_field_that_is_given_twice_is_an_error(tmp_path: Path) -> None:
    """At any depth, with the line of the second: YAML would take the last and say nothing."""
    text = f"{HEAD}Cell\nmetadata:\n  name: a\n  labels: {{of: x, of: y}}\nspec: {{region: x}}\nspec: {{region: y}}\n"
    assert set(refused(tmp_path / "twice.yaml", text)) == {("5 of", "is given twice"), ("7 spec", "is given twice")}


def test_labels_are_texts(tmp_path: Path) -> None:
    """Numbers and truth values are told with their place."""
    text = f"{HEAD}Cell\nmetadata:\n  name: a\n  labels:\n    number: 1\n    truth: true\nspec: {{region: x}}\n"
    told = refused(tmp_path / "labels.yaml", text)
    assert told == [("6 metadata.labels.number", "must be text, not 1"), ("7 metadata.labels.truth", "must be text, not True")]


def test_json_is_read_as_programs_write_it(tmp_path: Path) -> None:
    """Letters beyond 16 bits come as two halves; what only looks like that stays."""
    document = {"apiVersion": "arterial.dev/v1", "kind": "Owner", "metadata": {"name": "a"}}
    text = "\N{GRINNING FACE} \\ud83d\\ude00"
    spec = {"description": text, "channels": [{"type": "CHANNEL_TYPE_CHAT", "address": "a"}]}
    file = tmp_path / "owner.json"
    file.write_text(json.dumps(document | {"spec": spec}, indent="\t"))
    assert read([file])[0].owner.description == text
