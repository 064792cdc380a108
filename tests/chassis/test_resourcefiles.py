"""Resources in files: what is wrong is told at once, with its place and what is allowed instead."""

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
