"""Column lineage of a SQL statement. Each query and CTE of it is resolved once, for all of its columns together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chassis.lineage.definition import CLICKHOUSE, ColumnInput, JobDefinition, Output, SchemasByName


@dataclass(frozen=True)
class Extracted:
    """What a statement reads and makes. `target` is empty for a bare query; `columns` too if they are not all known."""

    target: str
    inputs: tuple[str, ...]
    columns: Mapping[str, tuple[ColumnInput, ...]]
    rows: tuple[ColumnInput, ...]


def extract(sql: str, schemas: SchemasByName, dialect: str = CLICKHOUSE) -> Extracted:
    """Lineage of a statement. Tables that no schema names are datasets too, of unknown columns; table functions are none.

    Raises:
        SqlNotUnderstood: as said there.
    """
    from chassis.lineage.resolver import Resolver, parsed

    target, names, query = parsed(sql, dialect)
    resolver = Resolver(schemas, dialect)
    relation = resolver.resolve(query)
    columns: Mapping[str, Any] = {} if relation.open else relation.columns
    if names and len(names) == len(columns):
        columns = dict(zip(names, columns.values(), strict=True))
    return Extracted(
        target=resolver.dataset_of(target) if target else "",
        inputs=tuple(resolver.inputs),
        columns={name: _sorted(inputs) for name, inputs in columns.items()},
        rows=_sorted(relation.rows),
    )


def _sorted(inputs: Mapping[tuple[str, str], str]) -> tuple[ColumnInput, ...]:
    return tuple(ColumnInput(dataset, column, how) for (dataset, column), how in sorted(inputs.items()))


def from_sql(name: str, sql: str, output: str, schemas: SchemasByName, *, also: Iterable[str] = ()) -> JobDefinition:
    """The definition of a job that makes `output` by one ClickHouse statement over logical dataset names in backticks.

    `schemas` gives the columns of the datasets read, each with its type or ""; `also` are inputs that the statement does not name.

    Raises:
        SqlNotUnderstood: the statement cannot be parsed, or is no query, INSERT or CREATE ... AS.
    """
    found = extract(sql, schemas)
    types = {column: _type(inputs, schemas) for column, inputs in found.columns.items()}
    made = Output(output, found.columns, types, found.rows)
    return JobDefinition(name, tuple(dict.fromkeys([*found.inputs, *also])), (made,), sql)


def _type(inputs: tuple[ColumnInput, ...], schemas: SchemasByName) -> str:
    """The type of a copied column is that of its input; others are not guessed."""
    if len(inputs) == 1 and inputs[0].transformation == "DIRECT/IDENTITY":
        return schemas.get(inputs[0].dataset, {}).get(inputs[0].column, "")
    return ""
