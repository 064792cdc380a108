"""Lineage of a declared feature, from its declaration."""

import pyarrow as pa

from chassis.features.windows import TIME, Feature
from chassis.lineage.definition import AGGREGATION, FILTER, GROUP_BY, IDENTITY, WINDOW, ColumnInput, JobDefinition, Output


def job_name(service: str, feature: str) -> str:
    """Name of the job that computes a feature."""
    return f"{service}.features.{feature}"


def feature_job(service: str, feature: Feature, columns: pa.Schema) -> JobDefinition:
    """Events to values: what is aggregated goes into them; filter, key and time decide which. `columns` are those of the topic's events."""
    source = f"kafka/{feature.spec.topic}"
    known = set(columns.names)

    def of(name: str, transformation: str) -> tuple[ColumnInput, ...]:
        return (ColumnInput(source, name, transformation),) if name in known else ()

    columns = {feature.spec.key: of(feature.spec.key, IDENTITY)}
    for aggregate in feature.spec.aggregates:
        for window in feature.spec.windows_seconds:
            columns[f"{aggregate.name}_{window}s"] = of(aggregate.column, AGGREGATION)
    rows = [*of(feature.spec.key, GROUP_BY), *of(TIME, WINDOW)]
    rows += [each for name in sorted(feature.condition.columns) for each in of(name, FILTER)]
    types = {feature.spec.key: "string"} | dict.fromkeys(feature.fields, "double")
    return JobDefinition(job_name(service, feature.name), [source], [Output(f"feature/{feature.name}", columns, types, rows)])
