"""Lineage of training, from the SQL that reads the lake and the columns that each feature is given."""

from collections.abc import Sequence
from dataclasses import replace

from chassis.learning.features import Feature
from chassis.lineage import ColumnInput, JobDefinition, Output, from_sql
from chassis.lineage.definition import IDENTITY, TRANSFORMATION


def training_job(name: str, model: str, sql: str, features: Sequence[Feature], label: str) -> JobDefinition:
    """A training job: columns of `model/<model>` are its features, each made of what its columns of the query are made of, and the label.

    Args:
        name: of the job, for example "eta.train".
        model: name of the Model.
        sql: what training reads, each column of the lake by its name.
        features: computed from columns of the query.
        label: column of the query that the model learns.

    Raises:
        ValueError: the SQL is not understood, or has no such column.
    """
    read = from_sql(name, sql, f"model/{model}", {})
    query = read.outputs[0]
    missing = sorted({label, *(column for feature in features for column in feature.columns)} - set(query.columns))
    if missing:
        raise ValueError(f"{name}: the query has no column {', '.join(missing)}")
    made = {feature.name: _inputs(query, feature.columns) for feature in features} | {label: tuple(query.columns[label])}
    return JobDefinition(name, read.inputs, (Output(query.dataset, made, dict.fromkeys(made, "double"), query.rows),), sql)


def _inputs(query: Output, columns: Sequence[str]) -> tuple[ColumnInput, ...]:
    """What columns of the query are made of, each once; what is made of several is no copy of any."""
    found = {(each.dataset, each.column): each for column in columns for each in query.columns[column]}
    return tuple(
        replace(each, transformation=TRANSFORMATION) if len(columns) > 1 and each.transformation == IDENTITY else each
        for each in found.values()
    )
