"""Column lineage of functions over Arrow tables, found by running them on no rows: what a function cannot do without is its input."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from chassis.lineage.definition import FILTER, IDENTITY, TRANSFORMATION, ColumnInput, Output

Transform = Callable[[pa.Table], pa.Table]


def needed(transform: Transform, given: pa.Schema) -> tuple[str, ...]:
    """The columns without which a function fails."""
    rows = given.empty_table()
    return tuple(name for name in given.names if _fails(transform, rows.drop_columns([name])))


def _fails(transform: Transform, rows: pa.Table) -> bool:
    try:
        transform(rows)
    except (KeyError, pa.ArrowException):
        return True
    return False


def transformed(dataset: str, source: str, given: pa.Schema, adding: Sequence[Transform], choosing: Sequence[Transform]) -> Output:
    """What becomes of a dataset's columns.

    Args:
        dataset: the output.
        source: the input, of which `given` are the columns that are taken.
        given: columns of the rows that go in.
        adding: functions that add columns, in order: each new one is made from what its function needs.
        choosing: functions that choose rows, after these: what they need decides the rows (and makes the columns that they add).
    """
    rows = given.empty_table()
    columns: dict[str, tuple[ColumnInput, ...]] = {name: (ColumnInput(source, name, IDENTITY),) for name in given.names}
    deciding: dict[tuple[str, str], ColumnInput] = {}
    for transform in (*adding, *choosing):
        inputs = [item for name in needed(transform, rows.schema) for item in columns[name]]
        result = transform(rows)
        for name in result.column_names:
            if name not in columns:
                columns[name] = tuple(ColumnInput(item.dataset, item.column, TRANSFORMATION) for item in inputs)
        if transform in choosing:
            deciding |= {(item.dataset, item.column): ColumnInput(item.dataset, item.column, FILTER) for item in inputs}
        rows = result
    types = {field.name: str(field.type) for field in rows.schema}
    return Output(dataset, {name: columns[name] for name in types}, types, tuple(deciding.values()))
