"""Expressions on columns, as SQL has them."""

import pyarrow as pa
import pytest

from chassis.expressions import ExpressionError, parse, parse_condition

ROWS = pa.RecordBatch.from_pydict({"a": [1, 2, None, 4], "s": ["x", "y", "z", None]})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", [True, True, True, True]),
        ("a > 1 AND s <> 'y'", [False, False, False, False]),
        ("a IS NOT NULL", [True, True, False, True]),
        ("a IN (1, 4)", [True, False, False, True]),
        ("a BETWEEN 2 AND 4", [False, True, False, True]),
        ("NOT (a = 1 OR s IS NULL)", [False, True, False, False]),
        ("a + 1 >= 3 OR s = 'z'", [False, True, True, True]),
        ("-a < -1", [False, True, False, True]),
        ("TRUE", [True, True, True, True]),
    ],
)
def test_a_condition_holds_where_sql_says_so(text: str, holds: list[bool]) -> None:
    """What is neither true nor false does not count."""
    assert parse_condition(text).mask(ROWS).to_pylist() == holds


@pytest.mark.parametrize("text", ["SELECT 1", "a >", "f(a) = 1", "a IS 5", "sleep(1)"])
def test_what_is_no_condition_is_refused_when_it_is_declared(text: str) -> None:
    """Before any event comes."""
    with pytest.raises(ExpressionError):
        parse(text)


@pytest.mark.parametrize("text", ["b = 1", "a", "a = 'x'"])
def test_what_does_not_fit_the_columns_is_told(text: str) -> None:
    """A missing column, no truth value, a type that cannot be compared."""
    with pytest.raises(ExpressionError):
        parse(text).mask(ROWS)


TIMES = pa.RecordBatch.from_pydict({"ms": [1_500, None], "iso": ["2026-11-25T10:00:00.5+01:00", "soon"], "id": [7, 8]})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("concat('o-', toString(id), '/', coalesce(iso, ''))", ["o-7/2026-11-25T10:00:00.5+01:00", "o-8/soon"]),
        ("fromUnixTimestamp64Milli(ms)", [1_500_000, None]),
        ("fromUnixTimestamp(id)", [7_000_000, 8_000_000]),
        ("parseDateTimeBestEffort(iso)", [1_795_597_200_500_000, None]),
        ("upper(iso)", ["2026-11-25T10:00:00.5+01:00", "SOON"]),
    ],
)
def test_an_expression_has_a_value_of_every_row(text: str, values: list[object]) -> None:
    """Times are microseconds, in UTC; what is no time is null."""
    found = parse(text).values(TIMES)
    assert (found.cast(pa.int64()) if pa.types.is_timestamp(found.type) else found).to_pylist() == values
