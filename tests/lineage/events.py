"""OpenLineage events as other systems write them, by hand."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

NAMESPACE = "db://somewhere"


def dataset(name: str, columns: Sequence[str] = (), **facets: Any) -> dict[str, Any]:
    """A dataset with a schema facet, if columns are given."""
    if columns:
        facets["schema"] = {"fields": [{"name": column, "type": "int"} for column in columns]}
    return {"namespace": NAMESPACE, "name": name, "facets": facets}


def lineage(columns: Mapping[str, Sequence[str]], rows: Sequence[str] = ()) -> dict[str, Any]:
    """A columnLineage facet; inputs are written "dataset.column"."""

    def field(place: str, subtype: str) -> dict[str, Any]:
        name, _, column = place.rpartition(".")
        kind = "INDIRECT" if subtype == "FILTER" else "DIRECT"
        return {"namespace": NAMESPACE, "name": name, "field": column, "transformations": [{"type": kind, "subtype": subtype}]}

    return {
        "fields": {name: {"inputFields": [field(place, "IDENTITY") for place in places]} for name, places in columns.items()},
        "dataset": [field(place, "FILTER") for place in rows],
    }


def event(
    name: str, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]], at: int = 0, **changes: Any
) -> str:  # fmt: skip
    """A run event COMPLETE, `at` seconds after an epoch of the tests."""
    body = {
        "eventType": "COMPLETE",
        "eventTime": f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z",
        "producer": "urn:test",
        "schemaURL": "urn:openlineage",
        "run": {"runId": str(uuid.uuid4())},
        "job": {"namespace": "tests", "name": name},
        "inputs": list(inputs),
        "outputs": list(outputs),
    }
    return json.dumps({key: value for key, value in {**body, **changes}.items() if value is not None})
