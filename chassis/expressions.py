"""Expressions and conditions on the columns of events, written in SQL (ClickHouse's names) and evaluated a batch at a time.

They consist of columns, numbers, texts, TRUE, FALSE and NULL; = <> < <= > >=; AND, OR, NOT; IN (...), BETWEEN, IS [NOT] NULL; + - * and
brackets; concat, coalesce, lower, upper, toString, fromUnixTimestamp, fromUnixTimestamp64Milli, fromUnixTimestamp64Micro,
parseDateTimeBestEffort (ISO 8601). An event for which a condition is neither true nor false (NULL) does not count, as in SQL.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

TIMESTAMP = pa.timestamp("us", "UTC")
# What nodes of the parsed text mean, by the names that the parser has for them: it takes 25 MB, and is loaded when a text is parsed.
_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "EQ": pc.equal,
    "NEQ": pc.not_equal,
    "LT": pc.less,
    "LTE": pc.less_equal,
    "GT": pc.greater,
    "GTE": pc.greater_equal,
    "And": pc.and_kleene,
    "Or": pc.or_kleene,
    "Add": pc.add_checked,
    "Sub": pc.subtract_checked,
    "Mul": pc.multiply_checked,
}


class ExpressionError(ValueError):
    """The expression cannot be understood, or does not fit the columns."""


class Expression:
    """A parsed expression."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    @property
    def columns(self) -> frozenset[str]:
        """Columns that it names."""
        nodes = self._tree.walk() if self._tree is not None else ()
        return frozenset(node.name for node in nodes if _kind(node) == "Column")

    def values(self, batch: pa.RecordBatch) -> pa.Array:
        """Its value of every row, shape (n,).

        Raises:
            ExpressionError: a column is missing or of a type that does not fit.
        """
        try:
            found = _evaluate(self._tree, batch)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, KeyError, ValueError) as error:
            raise ExpressionError(f"{self._tree.sql()}: {error}") from error
        return pa.repeat(found, batch.num_rows) if isinstance(found, pa.Scalar) else found

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows it is true for as a condition, shape (n,), without nulls. Raises as `values` does."""
        if self._tree is None:
            return pa.repeat(pa.scalar(True), batch.num_rows)
        found = self.values(batch)
        if not pa.types.is_boolean(found.type):
            raise ExpressionError(f"{self._tree.sql()} is of type {found.type}, not a condition")
        return found.fill_null(False)


@lru_cache(maxsize=1000)
def parse(text: str) -> Expression:
    """An expression; of one text it is parsed once.

    Raises:
        ExpressionError: it is none, or has what expressions may not consist of.
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(text, dialect="clickhouse")
    except SqlglotError as error:
        raise ExpressionError(f"not a SQL expression: {text}") from error
    for node in tree.walk():
        if not _may_stand(node):
            raise ExpressionError(f"{node.sql()} ({_kind(node)}) may not stand in an expression")
    return Expression(tree)


def parse_condition(text: str) -> Expression:
    """A condition; an empty text is true for every event. Raises as `parse` does."""
    return parse(text) if text.strip() else Expression(None)


def _kind(node: Any) -> str:
    return type(node).__name__


def _may_stand(node: Any) -> bool:
    if _kind(node) == "Is":
        return _kind(node.expression) == "Null"
    if _kind(node) == "Anonymous":
        return node.name in _FUNCTIONS
    return _kind(node) in _BINARY or _kind(node) in _NODES or _kind(node) == "Identifier"


def _evaluate(node: Any, batch: pa.RecordBatch) -> Any:
    binary = _BINARY.get(_kind(node))
    if binary is not None:
        return binary(_evaluate(node.this, batch), _evaluate(node.expression, batch))
    return _NODES[_kind(node)](node, batch)


def _literal(node: Any, _batch: pa.RecordBatch) -> pa.Scalar:
    text = node.this
    return pa.scalar(text if node.args["is_string"] else float(text) if "." in text or "e" in text.lower() else int(text))


def _among(node: Any, batch: pa.RecordBatch) -> Any:
    found = _evaluate(node.this, batch)
    return pc.is_in(found, value_set=pa.array([_evaluate(each, batch).as_py() for each in node.expressions]).cast(found.type))


def _between(node: Any, batch: pa.RecordBatch) -> Any:
    found = _evaluate(node.this, batch)
    low, high = (_evaluate(node.args[name], batch) for name in ("low", "high"))
    return pc.and_kleene(pc.greater_equal(found, low), pc.less_equal(found, high))


def _concat(node: Any, batch: pa.RecordBatch) -> Any:
    parts = [_text(_evaluate(each, batch)) for each in node.expressions]
    return pc.binary_join_element_wise(*parts, "")


def _function(node: Any, batch: pa.RecordBatch) -> Any:
    (argument,) = node.expressions
    return _FUNCTIONS[node.name](_evaluate(argument, batch))


def _text(value: Any) -> Any:
    return value.cast(pa.string())


def _from_unix(per_second: int) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        return pc.multiply_checked(value.cast(pa.int64()), 1_000_000 // per_second).cast(TIMESTAMP)

    return convert


def _parsed(value: Any) -> Any:
    """Times in ISO 8601; without a zone they are UTC. What is none is null."""
    texts = value.to_pylist() if isinstance(value, pa.Array) else [value.as_py()]
    found = pa.array([_moment(text) for text in texts], TIMESTAMP)
    return found if isinstance(value, pa.Array) else found[0]


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "toString": _text,
    "fromUnixTimestamp": _from_unix(1),
    "fromUnixTimestamp64Milli": _from_unix(1000),
    "fromUnixTimestamp64Micro": _from_unix(1_000_000),
    "parseDateTimeBestEffort": _parsed,
}
_NODES: Mapping[str, Callable[[Any, pa.RecordBatch], Any]] = {
    "Column": lambda node, batch: batch[node.name],
    "Literal": _literal,
    "Boolean": lambda node, batch: pa.scalar(node.this),
    "Null": lambda node, batch: pa.scalar(None),
    "Paren": lambda node, batch: _evaluate(node.this, batch),
    "Not": lambda node, batch: pc.invert(_evaluate(node.this, batch)),
    "Neg": lambda node, batch: pc.negate_checked(_evaluate(node.this, batch)),
    "Is": lambda node, batch: pc.is_null(_evaluate(node.this, batch)),
    "In": _among,
    "Between": _between,
    "Concat": _concat,
    "Coalesce": lambda node, batch: pc.coalesce(*(_evaluate(each, batch) for each in (node.this, *node.expressions))),
    "Lower": lambda node, batch: pc.utf8_lower(_evaluate(node.this, batch)),
    "Upper": lambda node, batch: pc.utf8_upper(_evaluate(node.this, batch)),
    "Anonymous": _function,
}
