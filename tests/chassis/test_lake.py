"""Delta tables: progress and rows move together, superseded writers are stopped."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake.exceptions import DeltaError

from chassis.config import LakeConfig
from chassis.lake import Step, Superseded, Table, drop

SCHEMA = pa.schema([("value", pa.int64()), ("dead", pa.bool_())])


def rows(*values: int) -> pa.Table:
    """Rows of the test table."""
    return pa.table({"value": list(values), "dead": [False] * len(values)}, schema=SCHEMA)


def table(config: LakeConfig) -> Table:
    """A handle of its own."""
    return Table.open_or_create(config, "t", SCHEMA, ["dead"])


def test_a_repeated_commit_changes_nothing(lake_config: LakeConfig) -> None:
    """Who does not know whether a commit succeeded may try again."""
    handle = table(lake_config)
    assert handle.append(rows(1, 2), {"a": Step(None, 2)}) == handle.append(rows(1, 2), {"a": Step(None, 2)})
    assert handle.handle.to_pyarrow_table().num_rows == 2


def test_a_superseded_writer_is_stopped(lake_config: LakeConfig) -> None:
    """A zombie that resumes after its successor has committed neither doubles nor moves progress back."""
    zombie, successor = table(lake_config), table(lake_config)
    zombie.append(rows(1), {"a": Step(None, 1)})
    successor.append(rows(2, 3), {"a": Step(1, 3)})
    with pytest.raises(Superseded):
        zombie.append(rows(2), {"a": Step(1, 2)})
    successor.refresh()
    assert successor.progress("a") == 3
    assert sorted(successor.handle.to_pyarrow_table()["value"].to_pylist()) == [1, 2, 3]


def test_writers_of_different_sources_do_not_disturb_each_other(lake_config: LakeConfig) -> None:
    """Alternating commits from two handles all succeed."""
    first, second = table(lake_config), table(lake_config)
    for number in range(5):
        first.append(rows(number), {"a": Step(number or None, number + 1)})
        second.append(rows(number), {"b": Step(number or None, number + 1)})
    second.refresh()
    assert (second.progress("a"), second.progress("b"), second.handle.to_pyarrow_table().num_rows) == (5, 5, 10)


def test_commits_tell_what_they_added(lake_config: LakeConfig) -> None:
    """Followers read files, rows, partition values and progress from the log."""
    handle = table(lake_config)
    handle.append(rows(1, 2), {"a": Step(None, 2)})
    (commit,) = handle.commits_after(0)
    assert (commit.version, commit.transactions, commit.removed, commit.data_change) == (1, {"a": 2}, (), True)
    assert [(added.rows, added.partition_values) for added in commit.added] == [(2, {"dead": "false"})]
    assert handle.read_file(commit.added[0])["value"].to_pylist() == [1, 2]


def test_new_columns_are_added_and_missing_ones_null(lake_config: LakeConfig) -> None:
    """An additive change of the schema needs nobody's help."""
    handle = table(lake_config)
    handle.append(rows(1), {"a": Step(None, 1)})
    handle.append(pa.table({"value": [2], "dead": [False], "extra": ["x"]}), {"a": Step(1, 2)})
    handle.append(rows(3), {"a": Step(2, 3)})
    found = handle.handle.to_pyarrow_table().sort_by("value")
    assert found["extra"].to_pylist() == [None, "x", None]


def test_a_replacement_takes_the_place_of_what_its_predicate_selects(lake_config: LakeConfig) -> None:
    """In one commit with its progress, from parts that read the same store; a writer that is behind replaces nothing."""
    handle = table(lake_config)
    handle.append(rows(1, 2, 30), {"a": Step(None, 1)})
    behind, version = table(lake_config), handle.version

    def parts(read: Table) -> Iterator[pa.Table]:
        for value in (1, 2):
            found = read.handle.to_pyarrow_dataset().to_table(filter=ds.field("value") == value)
            yield found.set_column(0, "value", pa.array([value + 10]))

    handle.replace(parts(handle), "value IN (1, 2, 11, 12)", {"a": Step(1, 2)})
    assert (handle.version, handle.progress("a")) == (version + 1, 2)
    assert sorted(handle.handle.to_pyarrow_table()["value"].to_pylist()) == [11, 12, 30]
    with pytest.raises(DeltaError, match=r"(?i)concurrent"):
        behind.replace(parts(behind), "value IN (1, 2, 11, 12)", {"a": Step(1, 2)})
    behind.refresh()
    with pytest.raises(Superseded):
        behind.replace(parts(behind), "value IN (1, 2, 11, 12)", {"a": Step(1, 2)})


def test_files_that_were_replaced_are_deleted_and_the_rest_stays(lake_config: LakeConfig) -> None:
    """Only those that were replaced long enough ago."""
    handle = table(lake_config)
    handle.append(rows(1), {"a": Step(None, 1)})
    handle.replace([rows(2)], "dead = false", {"a": Step(1, 2)})
    assert handle.delete_replaced(1) == [] and len(handle.delete_replaced(0)) == 1
    assert handle.handle.to_pyarrow_table()["value"].to_pylist() == [2] and handle.progress("a") == 2


def test_a_table_that_was_dropped_is_told_from_its_next_self(lake_config: LakeConfig) -> None:
    """As long as that has fewer commits."""
    handle = table(lake_config)
    handle.append(rows(1), {"a": Step(None, 1)})
    assert not handle.is_gone()
    drop(lake_config, "t")
    assert handle.is_gone()
    table(lake_config)
    assert handle.is_gone()
