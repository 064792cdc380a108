"""Record files: what is written is read, what is no record file is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chassis.errors import ArterialError
from chassis.recordfiles import BATCH_ROWS, RecordFile, open_file, source_of, write_records
from chassis.wire import split

MESSAGE = "arterial.api.events.v1.PaymentEvent"
OTHER = f"file:{'a' * 64}"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Topic, superseded sources and values, framed with the message's built-in schema id."""
    source = write_records(tmp_path / "p.parquet", "payment_events_v1", [b"one", b"two"], supersedes=[OTHER])
    file = open_file(tmp_path / "p.parquet")
    assert (file.topic, file.supersedes, file.rows, file.source) == ("payment_events_v1", (OTHER,), 2, source)
    (batch,) = file.batches(0, MESSAGE)
    assert [split(value or b"") for value in batch.values] == [(3, (0,), b"one"), (3, (0,), b"two")]


def test_the_same_records_are_the_same_source(tmp_path: Path) -> None:
    """So a file that is made again is not loaded again; other records are another source."""
    first = write_records(tmp_path / "a.parquet", "t", [b"x", b"y"])
    assert first == write_records(tmp_path / "b.parquet", "t", [b"x", b"y"]) == source_of(tmp_path / "a.parquet")
    assert first != write_records(tmp_path / "c.parquet", "t", [b"x", b"z"])


@pytest.mark.parametrize("start", [0, 1, BATCH_ROWS, BATCH_ROWS + 7])
def test_reading_goes_on_at_any_row(tmp_path: Path, start: int) -> None:
    """Batches begin at the row asked for and follow each other without gap."""
    count = BATCH_ROWS + 10
    write_records(tmp_path / "p.parquet", "t", [str(row).encode() for row in range(count)])
    position = start
    for batch in RecordFile(tmp_path / "p.parquet").batches(start, MESSAGE):
        assert batch.start == position and split(batch.values[0] or b"")[2] == str(position).encode()
        position += len(batch.values)
    assert position == count


def test_a_correction_is_one_batch(tmp_path: Path) -> None:
    """Even without rows: then it only takes away."""
    write_records(tmp_path / "big.parquet", "t", pa.repeat(pa.scalar(b"x"), BATCH_ROWS + 1), supersedes=[OTHER])
    write_records(tmp_path / "none.parquet", "t", [], supersedes=[OTHER])
    assert [len(batch.values) for batch in RecordFile(tmp_path / "big.parquet").batches(0, MESSAGE)] == [BATCH_ROWS + 1]
    assert [len(batch.values) for batch in RecordFile(tmp_path / "none.parquet").batches(0, MESSAGE)] == [0]


def test_what_is_no_record_file_is_refused(tmp_path: Path) -> None:
    """Each with an error that says why."""
    marked = {b"arterial.topic": b"t"}
    pq.write_table(pa.table({"other": [b"x"]}).replace_schema_metadata(marked), tmp_path / "column.parquet")
    pq.write_table(pa.table({"value": ["x"]}).replace_schema_metadata(marked), tmp_path / "text.parquet")
    bad = pa.table({"value": [b"x"]}).replace_schema_metadata(marked | {b"arterial.supersedes": b"trip_events_v2"})
    pq.write_table(bad, tmp_path / "topic.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    for name, why in [("column", "no record file"), ("text", "no record file"), ("topic", "no source"), ("noise", "not Parquet")]:
        with pytest.raises(ArterialError, match=why):
            open_file(tmp_path / f"{name}.parquet")
    with pytest.raises(ArterialError, match="does not exist"):
        open_file(tmp_path / "absent.parquet")
    with pytest.raises(ArterialError, match="twice"):
        write_records(tmp_path / "twice.parquet", "t", [], supersedes=[OTHER, OTHER])
