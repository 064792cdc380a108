"""Corrections: sources that declare which sources they supersede (one-way door 5 of the design).

The first commit of a correction carries one transaction per superseded source. Raw keeps the rows of both; everything that follows raw
leaves the superseded rows out. Transactions survive checkpoints and log clean-up, so the table itself knows for ever what is superseded.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from chassis.errors import ArterialError, Reason
from chassis.lake import Commit, Step, Table

_PREFIX = "superseded/"
# A marker only: that it exists says everything.
_MARK = Step(None, 1)


def steps(sources: Sequence[str]) -> dict[str, Step]:
    """What a correction's first commit moves besides its own progress."""
    return {f"{_PREFIX}{source}": _MARK for source in sources}


def is_superseded(raw: Table, source: str) -> bool:
    """True if the table's snapshot has a correction of the source."""
    return raw.progress(f"{_PREFIX}{source}") is not None


def superseded_by(commit: Commit) -> tuple[str, ...]:
    """The sources that a commit supersedes."""
    return tuple(name.removeprefix(_PREFIX) for name in commit.transactions if name.startswith(_PREFIX))


def sources_of(commit: Commit) -> set[str]:
    """The sources whose progress a commit moves: the rows that it adds are theirs."""
    names = [name for name in commit.transactions if not name.startswith(_PREFIX)]
    return {name.rpartition("#")[0].rpartition("/")[2] for name in names}


def in_force(raw: Table, rows: pa.Table) -> pa.Table:
    """Rows of raw without those whose source the table's snapshot has a correction of; they have a column `_topic`."""
    superseded = [source for source in pc.unique(rows["_topic"]).to_pylist() if is_superseded(raw, source)]
    if not superseded:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["_topic"], value_set=pa.array(superseded, pa.string()))))


def superseded_files(raw: Table) -> list[str]:
    """All superseded sources that the table's snapshot has rows of. Reads one column of the files' rows."""
    found: set[str] = set()
    for batch in pa.RecordBatchReader.from_stream(raw.handle.scan(["_topic"], "_topic >= 'file:' AND _topic < 'file;'")):
        found.update(pc.unique(batch["_topic"].cast(pa.string())).to_pylist())
    return sorted(source for source in found if is_superseded(raw, source))


def rows_of_sources(table: Table, column: str, sources: Sequence[str]) -> pa.ChunkedArray:
    """A column of the rows that came from any of these sources."""
    # By the engine of the tables themselves: merges leave files whose strings Arrow's datasets cannot filter.
    listed = ", ".join(f"'{source}'" for source in sources)
    return pa.table(table.handle.scan([column], f"_topic IN ({listed})"))[column]


def refuse_unless_possible(raw: Table, source: str, superseded: Sequence[str], loaded: Sequence[str]) -> None:
    """A correction, not yet begun, may supersede what is in the table (`loaded`) and not yet superseded.

    Raises:
        ArterialError: REFUSED, with the reason.
    """
    for other in superseded:
        if other == source:
            problem = "it names itself"
        elif other not in loaded:
            problem = f"{other} is not in {raw.name}"
        elif is_superseded(raw, other):
            problem = f"{other} is superseded by another source already"
        else:
            continue
        raise ArterialError(Reason.REFUSED, f"{source} cannot supersede: {problem}")
