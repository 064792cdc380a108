"""Lineage of declared resources: who answers for each dataset, and what the queries of dashboards read. Pure; SQL is parsed on demand."""

from collections.abc import Iterable, Mapping, Sequence

from arterial.api.controlplane.v1 import resource_pb2
from chassis.errors import Violation
from chassis.lineage.definition import KINDS, ColumnInput, JobDefinition, Output, Ownership, SqlNotUnderstood
from chassis.lineage.sql import extract


def ownerships(resources: Iterable[resource_pb2.Resource]) -> list[Ownership]:
    """Owner and tier of each declared dataset whose name is a logical one."""
    return [
        Ownership(resource.metadata.name, resource.metadata.owner, resource.dataset.tier)
        for resource in resources
        if resource.kind == "Dataset" and resource.metadata.name.partition("/")[0] in KINDS
    ]


def job_name(dataset: str) -> str:
    """Name of the job that draws a dashboard."""
    return f"controlplane.{dataset.replace('/', '.')}"


def drawing(dataset: str, queries: Sequence[str]) -> JobDefinition:
    """The job that draws a dashboard by its queries; without queries it reads nothing any more.

    What decides the rows of one query says nothing of another's columns, so it is told column by column. A query whose columns are not all
    known makes the dashboard depend on the whole of what the queries read.

    Raises:
        SqlNotUnderstood: a query cannot be parsed, or is none.
    """
    inputs: dict[str, None] = {}
    columns: dict[str, dict[ColumnInput, None]] = {}
    known = True
    for query in queries:
        found = extract(query, {})
        inputs |= dict.fromkeys(found.inputs)
        known = known and bool(found.columns)
        for name, made_of in found.columns.items():
            columns.setdefault(name, {}).update(dict.fromkeys([*made_of, *found.rows]))
    made: Mapping[str, Sequence[ColumnInput]] = {name: tuple(made_of) for name, made_of in columns.items()} if known else {}
    return JobDefinition(job_name(dataset), tuple(inputs), (Output(dataset, made),), ";\n".join(query.strip() for query in queries))


def violations(resources: Sequence[resource_pb2.Resource]) -> list[Violation]:
    """One for each query that is not understood. It parses: a step for a thread."""
    found = []
    for place, resource in enumerate(resources):
        for number, query in enumerate(resource.dataset.queries):
            try:
                extract(query, {})
            except SqlNotUnderstood as error:
                found.append(Violation(f"resources[{place}].spec.queries[{number}]", str(error)))
    return found
