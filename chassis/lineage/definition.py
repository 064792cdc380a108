"""What a job reads and makes, in logical names: the value that every process derives from what it runs, and emits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Kinds of datasets that have a namespace of their own in each cell: `lake/curated/trips` is `lake://<cell>`, `curated/trips`.
KINDS = ("kafka", "lake", "olap", "sql", "feature", "model", "dashboard")
FILE = "file:"
# How SQL names a dataset: its logical name in backticks.
LOGICAL_NAME = re.compile(r"`([a-z]+/[^`]+)`")
# Transformations (OpenLineage type and subtype).
IDENTITY = "DIRECT/IDENTITY"
TRANSFORMATION = "DIRECT/TRANSFORMATION"
AGGREGATION = "DIRECT/AGGREGATION"
JOIN = "INDIRECT/JOIN"
FILTER = "INDIRECT/FILTER"
GROUP_BY = "INDIRECT/GROUP_BY"
SORT = "INDIRECT/SORT"
WINDOW = "INDIRECT/WINDOW"
CONDITIONAL = "INDIRECT/CONDITIONAL"


# A dialect of SQL, as sqlglot names it.
CLICKHOUSE = "clickhouse"
# Columns of datasets, with their types ("" where unknown).
SchemasByName = Mapping[str, Mapping[str, str]]


class SqlNotUnderstood(ValueError):
    """The statement cannot be parsed, or is no query, INSERT or CREATE ... AS."""


@dataclass(frozen=True)
class ColumnInput:
    """A column that another is made from. DIRECT: its values go in; INDIRECT: it only decides which."""

    dataset: str
    column: str
    transformation: str = TRANSFORMATION


@dataclass(frozen=True)
class Output:
    """A dataset that a job makes.

    `columns`: inputs of each column (none for a constant); leave it empty where columns are not known: then the whole output is made of
    all inputs. `types`: type of each column, in order. `rows`: columns that decide which rows there are (filters, joins, groups).
    """

    dataset: str
    columns: Mapping[str, Sequence[ColumnInput]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[ColumnInput] = ()


@dataclass(frozen=True)
class JobDefinition:
    """A job, for example "ingestion.curated.trips": datasets that it reads, datasets that it makes, and its SQL if it is one statement."""

    name: str
    inputs: Sequence[str]
    outputs: Sequence[Output]
    sql: str = ""


@dataclass(frozen=True)
class Ownership:
    """Who answers for a dataset, and its tier (1 is the most important, 0 unknown)."""

    dataset: str
    owner: str
    tier: int = 0


def identity(dataset: str, columns: Mapping[str, str]) -> dict[str, tuple[ColumnInput, ...]]:
    """Columns copied from a dataset: `columns` maps a column of the output to that of the input."""
    return {name: (ColumnInput(dataset, source, IDENTITY),) for name, source in columns.items()}


def logical_names(sql: str) -> list[str]:
    """Logical names of the datasets that the SQL names, each once, in the order of their first use."""
    return list(dict.fromkeys(LOGICAL_NAME.findall(sql)))


def instance(cell: str, dataset: str) -> tuple[str, str]:
    """OpenLineage namespace and name of a dataset in a cell; a file belongs to no cell.

    Raises:
        ValueError: it is not a logical name.
    """
    kind, _, rest = dataset.partition("/")
    if kind in KINDS and rest:
        return f"{kind}://{cell}", rest
    if dataset.startswith(FILE) and len(dataset) > len(FILE):
        return "file", dataset.removeprefix(FILE)
    raise ValueError(f"{dataset} is no logical name: one of {', '.join(KINDS)}, a slash, a name")


def logical(namespace: str, name: str) -> str:
    """The logical name of an instance, the inverse of `instance`; for foreign namespaces both, joined by a slash."""
    kind = namespace.partition("://")[0]
    if kind in KINDS and "://" in namespace:
        return f"{kind}/{name}"
    return f"{FILE}{name}" if namespace == "file" else f"{namespace}/{name}"
