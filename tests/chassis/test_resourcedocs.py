"""The contract explains itself."""

import json

import pytest

from chassis.resourcedocs import ResourceDocs
from chassis.resources import FIELD_OF_KIND


def test_every_kind_is_explained_and_every_field_of_it_has_a_type() -> None:
    """From the contract's own comments."""
    docs = ResourceDocs()
    for kind in FIELD_OF_KIND:
        explained = docs.explain(kind)
        assert explained.text and explained.fields and all(field.type for field in explained.fields)


def test_a_field_is_explained_with_what_lies_within_it() -> None:
    """Comment, constraints, values of an enum."""
    docs = ResourceDocs()
    sla = docs.explain("Dataset.spec.sla")
    assert "count on" in sla.text and [field.path for field in sla.fields] == [
        "Dataset.spec.sla.freshnessSeconds",
        "Dataset.spec.sla.completenessPercent",
    ]
    assert "lte 4096" in docs.explain("Topic.spec.partitions").constraints
    assert "QUALITY_TEST_UNIQUE: " in docs.explain("QualityRule.spec.test").text


@pytest.mark.parametrize(("path", "there_is"), [("Datset", "Dataset"), ("Dataset.spec.slo", "sla"), ("Dataset.nothing", "spec")])
def test_what_does_not_exist_is_told_with_what_does(path: str, there_is: str) -> None:
    """For whoever mistypes."""
    with pytest.raises(LookupError, match=there_is):
        ResourceDocs().explain(path)


def test_the_json_schema_has_all_kinds_and_no_loose_ends() -> None:
    """Every reference has its definition."""
    schema = ResourceDocs().json_schema()
    assert {kind["properties"]["kind"]["const"] for kind in schema["oneOf"]} == set(FIELD_OF_KIND)
    text = json.dumps(schema)
    assert all(f'"#/$defs/{name}"' in text for name in schema["$defs"])
    assert all(part.split('"')[0] in schema["$defs"] for part in text.split("#/$defs/")[1:])
