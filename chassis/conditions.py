"""Conditions on the columns of events, written in SQL and evaluated a batch at a time.

What a condition may consist of: columns, numbers, texts, TRUE, FALSE and NULL; = <> < <= > >=; AND, OR, NOT; IN (...), BETWEEN,
IS [NOT] NULL; + - * and brackets. An event for which it is neither true nor false (NULL) does not count, as in SQL.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import expressions as sql
from sqlglot.errors import SqlglotError

_BINARY: Mapping[type[sql.Expression], Callable[[Any, Any], Any]] = {
    sql.EQ: pc.equal,
    sql.NEQ: pc.not_equal,
    sql.LT: pc.less,
    sql.LTE: pc.less_equal,
    sql.GT: pc.greater,
    sql.GTE: pc.greater_equal,
    sql.And: pc.and_kleene,
    sql.Or: pc.or_kleene,
    sql.Add: pc.add_checked,
    sql.Sub: pc.subtract_checked,
    sql.Mul: pc.multiply_checked,
}


class ConditionError(ValueError):
    """The condition cannot be understood, or does not fit the columns."""


class Condition:
    """A parsed condition."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    @property
    def columns(self) -> frozenset[str]:
        """Columns that it names."""
        return frozenset(column.name for column in self._tree.find_all(sql.Column)) if self._tree is not None else frozenset()

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows it is true for, shape (n,), without nulls.

        Raises:
            ConditionError: a column is missing or of a type that does not fit.
        """
        if self._tree is None:
            return pa.repeat(pa.scalar(True), batch.num_rows)
        try:
            found = _evaluate(self._tree, batch)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, KeyError) as error:
            raise ConditionError(f"{self._tree.sql()}: {error}") from error
        if isinstance(found, pa.Scalar):
            found = pa.repeat(found, batch.num_rows)
        if not pa.types.is_boolean(found.type):
            raise ConditionError(f"{self._tree.sql()} is of type {found.type}, not a condition")
        return found.fill_null(False)


def parse(text: str) -> Condition:
    """A condition; an empty text is true for every event.

    Raises:
        ConditionError: it is not one, or has what conditions may not consist of.
    """
    if not text.strip():
        return Condition(None)
    try:
        tree = sqlglot.parse_one(text, dialect="clickhouse")
    except SqlglotError as error:
        raise ConditionError(f"not a SQL condition: {text}") from error
    for node in tree.walk():
        if type(node) not in _ALLOWED or (isinstance(node, sql.Is) and not isinstance(node.expression, sql.Null)):
            raise ConditionError(f"{node.sql()} ({type(node).__name__}) may not stand in a condition; see chassis.conditions for what may")
    return Condition(tree)


def _evaluate(node: sql.Expression, batch: pa.RecordBatch) -> Any:
    binary = _BINARY.get(type(node))
    if binary is not None:
        return binary(_evaluate(node.this, batch), _evaluate(node.expression, batch))
    return _NODES[type(node)](node, batch)


def _literal(node: sql.Expression, _batch: pa.RecordBatch) -> pa.Scalar:
    text = node.this
    return pa.scalar(text if node.args["is_string"] else float(text) if "." in text or "e" in text.lower() else int(text))


def _among(node: sql.Expression, batch: pa.RecordBatch) -> Any:
    found = _evaluate(node.this, batch)
    return pc.is_in(found, value_set=pa.array([_evaluate(each, batch).as_py() for each in node.expressions]).cast(found.type))


def _between(node: sql.Expression, batch: pa.RecordBatch) -> Any:
    found = _evaluate(node.this, batch)
    low, high = (_evaluate(node.args[name], batch) for name in ("low", "high"))
    return pc.and_kleene(pc.greater_equal(found, low), pc.less_equal(found, high))


_NODES: Mapping[type[sql.Expression], Callable[[Any, pa.RecordBatch], Any]] = {
    sql.Column: lambda node, batch: batch[node.name],
    sql.Literal: _literal,
    sql.Boolean: lambda node, batch: pa.scalar(node.this),
    sql.Null: lambda node, batch: pa.scalar(None),
    sql.Paren: lambda node, batch: _evaluate(node.this, batch),
    sql.Not: lambda node, batch: pc.invert(_evaluate(node.this, batch)),
    sql.Neg: lambda node, batch: pc.negate_checked(_evaluate(node.this, batch)),
    sql.Is: lambda node, batch: pc.is_null(_evaluate(node.this, batch)),
    sql.In: _among,
    sql.Between: _between,
}
_ALLOWED = {*_BINARY, *_NODES, sql.Identifier}
