"""Types of ClickHouse as the lake keeps them, and back."""

import pyarrow as pa
import pytest

from chassis.olapsql import column_type, kept_type, named

KEPT = {
    "Int8": pa.int8(),
    "Nullable(UInt16)": pa.int32(),
    "UInt64": pa.int64(),
    "LowCardinality(Nullable(String))": pa.string(),
    "FixedString(16)": pa.string(),
    "Enum8('a' = 1, 'b' = 2)": pa.string(),
    "Date": pa.date32(),
    "DateTime('Europe/Berlin')": pa.timestamp("us", "UTC"),
    "Nullable(DateTime64(3))": pa.timestamp("us", "UTC"),
    "Nullable(Decimal(18, 2))": pa.decimal128(18, 2),
    "Array(LowCardinality(String))": pa.list_(pa.string()),
    "Array(Tuple(name String, `odd name` Array(Decimal(9, 2))))": pa.list_(
        pa.struct([("name", pa.string()), ("odd name", pa.list_(pa.decimal128(9, 2)))])
    ),
}


@pytest.mark.parametrize(("kind", "kept"), KEPT.items(), ids=KEPT)
def test_a_type_is_kept(kind: str, kept: pa.DataType) -> None:
    """And what it is kept as has a type of ClickHouse that is kept as the same."""
    assert kept_type(kind) == kept
    assert kept_type(column_type(pa.field("x", kept))) == kept


@pytest.mark.parametrize("kind", ["Map(String, UInt8)", "Tuple(UInt8, String)", "Decimal(76, 2)", "Nullable(Nothing)", "Int128", "Tuple()"])
def test_what_the_lake_does_not_keep_is_refused(kind: str) -> None:
    """By name, nested or not."""
    for nested in (kind, f"Array({kind})"):
        with pytest.raises(ValueError, match="the lake keeps no"):
            kept_type(nested)


def test_names_are_quoted() -> None:
    """Whatever is in them."""
    assert named("a`b\\c") == "`a\\`b\\\\c`"
