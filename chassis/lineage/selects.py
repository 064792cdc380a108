"""What one ClickHouse SELECT over datasets may be, and which columns it gives: read from its text, before it is ever run."""

from dataclasses import dataclass

from chassis.lineage.definition import CLICKHOUSE, SqlNotUnderstood
from chassis.lineage.sql import extract


@dataclass(frozen=True)
class Selected:
    """What a SELECT reads, and the names of its columns in order; None where they depend on columns that are not known (`SELECT *`)."""

    datasets: tuple[str, ...]
    columns: tuple[str, ...] | None


def selected(sql: str) -> Selected:
    """Reads a statement.

    Raises:
        SqlNotUnderstood: it is not exactly one SELECT, reads by a table function, or says where or how the result is written.
    """
    # The parser takes 25 MB, and is loaded where SQL is read.
    import sqlglot
    from sqlglot import exp

    try:
        statements = [tree for tree in sqlglot.parse(sql, dialect=CLICKHOUSE) if tree is not None]
    except (sqlglot.errors.SqlglotError, ValueError, RecursionError):
        statements = []
        extract(sql, {})  # says what is not understood
    if len(statements) > 1:
        raise SqlNotUnderstood(f"has {len(statements)} statements; it must be one SELECT")
    (query,) = statements or (None,)
    if not isinstance(query, exp.Query):
        raise SqlNotUnderstood("is no SELECT")
    for clause in ("format", "into"):
        if query.args.get(clause):
            raise SqlNotUnderstood(f"has a clause {clause.upper()}: where its result goes is not its business")
    for table in query.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            raise SqlNotUnderstood(f"reads by {table.this.sql(dialect=CLICKHOUSE)[:80]}: only datasets can be followed")
    found = extract(sql, {})
    return Selected(found.inputs, tuple(found.columns) or None)
