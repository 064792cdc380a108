"""SQL over the lake in the OLAP engine: data files of Delta tables as table expressions, and logical names in SQL resolved to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from chassis.config import LakeConfig
from chassis.lake import Added
from chassis.lineage.definition import LOGICAL_NAME, logical_names
from chassis.olap import column_type, quoted

__all__ = ["MAX_FILES_OF_A_LIST", "logical_names", "resolved", "source"]
# ClickHouse expands at most this many names of one list.
MAX_FILES_OF_A_LIST = 1000
_PATTERN_CHARACTERS = frozenset("{}*?,")


def source(lake: LakeConfig, table: str, files: Sequence[Added], schema: pa.Schema, columns: Sequence[str] | None = None) -> str:
    """A table expression in parentheses over exactly these data files of a table, for the FROM of a query.

    Args:
        lake: where the table is: a folder or an S3 store.
        table: name within the lake, for example "curated/trips".
        files: the data files, of any partitions and versions; none gives no rows.
        schema: the table's, partition columns included.
        columns: which ones, all by default. A file that is older than a column gives nulls; partition columns have the values of the log.

    A query over a list of files fails if one is gone or its rows are not those of the log, instead of leaving rows out.

    Raises:
        ValueError: the lake is on a store that the engine is not told to read, a column has no ClickHouse type, or a path is not of
            the Hive-style layout.
    """
    chosen = list(schema) if columns is None else [schema.field(name) for name in columns]
    if not files:
        empty = ", ".join(f"defaultValueOfTypeName({quoted(column_type(field))}) AS `{field.name}`" for field in chosen)
        return f"(SELECT {empty} WHERE 0)"
    chunks = [files[first : first + MAX_FILES_OF_A_LIST] for first in range(0, len(files), MAX_FILES_OF_A_LIST)]
    return "(" + " UNION ALL ".join(_of_files(lake, table, chunk, chosen) for chunk in chunks) + ")"


def resolved(sql: str, sources: Mapping[str, str]) -> str:
    """The SQL with every logical name in backticks (`lake/curated/trips`) replaced by its table expression, as `source` gives them.

    Raises:
        ValueError: a name has no expression.
    """
    unknown = sorted({name for name in logical_names(sql) if name not in sources})
    if unknown:
        raise ValueError(f"no data are given for {', '.join(unknown)}")
    return LOGICAL_NAME.sub(lambda found: sources[found[1]], sql)


def _of_files(lake: LakeConfig, table: str, files: Sequence[Added], columns: Sequence[pa.Field]) -> str:
    root = _root(lake, table)
    partitions = files[0].partition_values
    structure = ", ".join(f"`{field.name}` {column_type(field)}" for field in columns if field.name not in partitions)
    selected = ", ".join(_partition(field, files, root) if field.name in partitions else f"`{field.name}`" for field in columns)
    # Without a column of the files themselves the engine has no structure to read by.
    structure = structure or "`_none` Nullable(UInt8)"
    if len(files) == 1 and "://" not in lake.root:
        # The one case in which the engine itself fails if the file is gone.
        return f"SELECT {selected} FROM {_function(lake, table, quoted(_location(lake, table, files[0].path)), structure)}"
    paths = ",".join(_plain(added.path) for added in files)
    listed = quoted(_location(lake, table, f"{{{paths}}}" if len(files) > 1 else paths))
    read = _function(lake, table, "_files", structure)
    # Other writers need not count rows in the log.
    counted = all(added.rows >= 0 for added in files)
    differs = f"count() != {sum(added.rows for added in files)}" if counted else f"uniqExact(_path) != {len(files)}"
    guard = f"(SELECT throwIf({differs}, 'data files of {_plain(table)} are gone') FROM {read}) = 0"
    return f"SELECT {selected} FROM (WITH {listed} AS _files SELECT *, _path, _file FROM {read} WHERE {guard})"


def _partition(field: pa.Field, files: Sequence[Added], root: str) -> str:
    """A partition column: a constant, or by the folder of each row's file."""
    kind = quoted(column_type(field))
    values: dict[str, str | None] = {}
    for added in files:
        folder = str(PurePosixPath(added.path).parent)
        value = added.partition_values[field.name]
        if values.setdefault(folder, value) != value:
            raise ValueError(f"folder {folder} holds several values of {field.name}: the layout is not Hive-style")
    if len(set(values.values())) == 1:
        return f"CAST({_literal(next(iter(values.values())))}, {kind}) AS `{field.name}`"
    folders = ", ".join(quoted(folder) for folder in values)
    literals = ", ".join(_literal(value) for value in values.values())
    begin = len(root.encode()) + 2
    folder_of_row = f"substring(_path, {begin}, length(_path) - length(_file) - {begin})"
    return f"CAST(transform({folder_of_row}, [{folders}], [{literals}], NULL), {kind}) AS `{field.name}`"


def _literal(value: str | None) -> str:
    return "NULL" if value is None else quoted(value)


def _root(lake: LakeConfig, table: str) -> str:
    """The table's root as the engine's `_path` begins."""
    root = lake.table(table)
    if "://" not in root:
        return str(Path(root).resolve())
    if root.startswith("s3://"):
        return root[5:]
    raise ValueError(f"the OLAP engine is not told to read {root.split('://')[0]}://")


def _location(lake: LakeConfig, table: str, path: str) -> str:
    root = _plain(_root(lake, table))
    if "://" not in lake.root:
        return f"{root}/{path}"
    endpoint = lake.storage_options.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com").rstrip("/")
    # An object's key may hold percent signs, which mean something else in a URL.
    return f"{endpoint}/{root}/{path.replace('%', '%25')}"


def _function(lake: LakeConfig, table: str, location: str, structure: str) -> str:
    if "://" not in lake.root:
        return f"file({location}, 'Parquet', {quoted(structure)})"
    options = lake.storage_options
    credentials = f"{quoted(options.get('AWS_ACCESS_KEY_ID', ''))}, {quoted(options.get('AWS_SECRET_ACCESS_KEY', ''))}"
    return f"s3({location}, {credentials}, 'Parquet', {quoted(structure)})"


def _plain(path: str) -> str:
    """The path itself, if the engine takes it as it is. Delta percent-encodes such characters in what it names."""
    if _PATTERN_CHARACTERS & set(path):
        raise ValueError(f"path {path} has characters of patterns")
    return path
