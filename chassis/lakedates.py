"""Dates of a partitioned lake table: which ones its data files lie under, and which ones a commit touched."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from chassis.lake import Added, Commit

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def touched(commit: Commit, date_column: str) -> set[str]:
    """Dates whose rows a commit added to or removed from; nothing of compactions and of files of dead rows."""
    if not commit.data_change:
        return set()
    added = {date_of(file, date_column) for file in commit.added if file.good}
    return added | {_date_of_path(path) for path in commit.removed if "/dead=true/" not in f"/{path}"}


def date_of(added: Added, date_column: str) -> str:
    """Date of a data file; "" for a null."""
    return added.partition_values[date_column] or ""


def _date_of_path(path: str) -> str:
    """Date of a removed file: the log gives its path, whose first folder is `date_column=date`."""
    value = unquote(path.split("/", 1)[0].partition("=")[2])
    return "" if value == HIVE_NULL else value


def files_by_date(files: Sequence[Added], date_column: str) -> Mapping[str, list[Added]]:
    """Good data files of each date."""
    found: dict[str, list[Added]] = {}
    for added in files:
        if added.good:
            found.setdefault(date_of(added, date_column), []).append(added)
    return found


def rows_of(files: Sequence[Added]) -> int:
    """Rows of data files as the log counts them."""
    return sum(max(added.rows, 0) for added in files)
