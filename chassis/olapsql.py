"""What ClickHouse's SQL is made of: types of columns, literals, names. Pure."""

import re
from collections.abc import Mapping

import pyarrow as pa

_TYPES: Mapping[pa.DataType, str] = {
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float32(): "Float32",
    pa.float64(): "Float64",
    pa.bool_(): "Bool",
    pa.string(): "String",
    pa.binary(): "String",
    pa.date32(): "Date32",
}

# Types of ClickHouse that the lake keeps as another: unsigned numbers as the next signed ones, the rest as text.
_KEPT_AS: Mapping[str, pa.DataType] = {
    **{name: kept for kept, name in _TYPES.items() if kept != pa.binary()},
    "UInt8": pa.int16(),
    "UInt16": pa.int32(),
    "UInt32": pa.int64(),
    "UInt64": pa.int64(),
    "Date": pa.date32(),
    **{name: pa.timestamp("us", "UTC") for name in ("DateTime", "DateTime64")},
    **{name: pa.string() for name in ("FixedString", "UUID", "Enum8", "Enum16", "IPv4", "IPv6")},
}
# What may stand around a type without changing its values.
_WRAPPED = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)", re.DOTALL)
_GENERIC = re.compile(r"(\w+)(?:\((.*)\))?", re.DOTALL)
_PART = re.compile(r"(?:`([^`]+)`|([A-Za-z_]\w*)) (.+)", re.DOTALL)
# Digits of a decimal that the lake keeps.
_MAX_PRECISION = 38


def column_type(field: pa.Field, *, nullable: bool = True) -> str:
    """The type of a column.

    Raises:
        ValueError: ClickHouse has no type for it here.
    """
    if pa.types.is_timestamp(field.type):
        name = "DateTime64(6, 'UTC')"
    elif pa.types.is_list(field.type):
        return f"Array({column_type(field.type.value_field, nullable=False)})"
    elif pa.types.is_struct(field.type):
        return "Tuple(" + ", ".join(f"`{part.name}` {column_type(part, nullable=False)}" for part in field.type) + ")"
    elif pa.types.is_decimal(field.type):
        name = f"Decimal({field.type.precision}, {field.type.scale})"
    elif field.type in _TYPES:
        name = _TYPES[field.type]
    else:
        raise ValueError(f"column {field.name}: no ClickHouse type for {field.type}")
    return f"Nullable({name})" if nullable else name


def kept_type(kind: str) -> pa.DataType:
    """The type of a column of the lake for one of ClickHouse; `column_type` is its inverse, up to what the lake keeps as another.

    Raises:
        ValueError: the lake keeps no such type.
    """
    wrapped = _WRAPPED.fullmatch(kind)
    if wrapped is not None:
        return kept_type(wrapped[1])
    found = _GENERIC.fullmatch(kind)
    name, inside = (found[1], found[2] or "") if found is not None else ("", "")
    if name == "Array":
        return pa.list_(kept_type(inside))
    if name == "Decimal" and int(inside.split(",")[0]) <= _MAX_PRECISION:
        return pa.decimal128(*(int(part) for part in inside.split(",")))
    parts = [_PART.fullmatch(part) for part in _split(inside)] if name == "Tuple" else []
    if parts and all(part is not None for part in parts):
        return pa.struct([(part[1] or part[2], kept_type(part[3])) for part in parts if part is not None])
    if name not in _KEPT_AS:
        raise ValueError(f"the lake keeps no {kind}")
    return _KEPT_AS[name]


def _split(inside: str) -> list[str]:
    """The parts between the commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in inside:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def named(name: str) -> str:
    """A name in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
