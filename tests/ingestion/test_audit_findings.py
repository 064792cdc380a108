"""Comparisons of the audit: exactly what is missing, changed or twice is named, once."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from services.ingestion.findings import ID_BYTES, Findings, Rows, ids_of, rows_table


def rows(*coordinates: tuple[int, int], ids: list[bytes | None] | None = None) -> Rows:
    """Rows of source "t" at (partition, offset); by default the id follows from the coordinates."""
    known = ids if ids is not None else [f"{partition}/{offset}".encode().ljust(ID_BYTES) for partition, offset in coordinates]
    partitions, offsets = [place[0] for place in coordinates], [place[1] for place in coordinates]
    return rows_table(["t"] * len(coordinates), partitions, offsets, pa.array(known, pa.binary(ID_BYTES)))


places = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=30)


@given(expected=places, actual=places)
def test_missing_and_doubled_coordinates_are_named_exactly(expected: list[tuple[int, int]], actual: list[tuple[int, int]]) -> None:
    """As sets would have it."""
    findings = Findings()
    findings.coordinates("raw", expected=rows(*expected), actual=rows(*actual))
    findings.doubled("raw", rows(*actual))
    assert {(found.partition, found.offset) for found in findings.missing.values()} == set(expected) - set(actual)
    assert {(found.partition, found.offset) for found in findings.duplicated.values()} == {p for p in actual if actual.count(p) > 1}


def test_a_loss_and_a_double_do_not_cancel_out() -> None:
    """Equal counts are not equality."""
    findings = Findings()
    findings.coordinates("olap", expected=rows((0, 1), (0, 2)), actual=rows((0, 1), (0, 1)))
    findings.doubled("olap", rows((0, 1), (0, 1)))
    assert [found.offset for found in findings.missing.values()] == [2]
    assert [found.offset for found in findings.duplicated.values()] == [1]


def test_another_record_at_the_same_coordinates_is_missing() -> None:
    """The id at a coordinate is compared, too; unknown ids are not."""
    findings = Findings()
    expected = rows((0, 1), (0, 2), ids=[b"a" * ID_BYTES, None])
    findings.coordinates("raw", expected=expected, actual=rows((0, 2), (0, 1), ids=[b"x" * ID_BYTES, b"b" * ID_BYTES]))
    assert [found.event_id for found in findings.missing.values()] == [b"a" * 16]


def test_what_coordinates_name_is_not_named_again_by_its_id() -> None:
    """One loss is one finding, though ledger and Kafka both miss it."""
    findings = Findings()
    expected = rows((0, 1), (0, 2))
    findings.coordinates("raw", expected=expected, actual=rows((0, 1)))
    findings.ids("raw", expected=expected.ids, actual=rows((0, 1)))
    assert len(findings.missing) == 1


def test_doubled_ids_ignore_rows_without_id() -> None:
    """Dead rows have none."""
    findings = Findings()
    findings.doubled_ids("curated", rows((0, 1), (0, 2), (0, 3), (0, 4), ids=[None, None, b"a" * ID_BYTES, b"a" * ID_BYTES]))
    assert [found.event_id for found in findings.duplicated.values()] == [b"a" * 16]


def test_bounds_cut_what_came_after_and_before() -> None:
    """`before` and `since` go by partition; other sources stay."""
    all_rows = rows((0, 1), (0, 5), (1, 1), (1, 5))
    assert all_rows.before("t", {0: 5, 1: 2}).offsets.tolist() == [1, 1]
    assert all_rows.before("other", {0: 0}).offsets.tolist() == [1, 5, 1, 5]
    assert all_rows.since({0: 2, 1: 0}).offsets.tolist() == [5, 1, 5]


def test_ids_are_event_id_and_time() -> None:
    """24 bytes, big-endian microseconds; null for what is not 16 bytes; slices are read where they begin."""
    event_ids = pa.chunked_array([pa.array([b"z" * 16, b"a" * 16, None]).slice(1), pa.array([b"short", b"b" * 16])])
    times = pa.chunked_array([pa.array([-1, 2, 3, 1 << 40], pa.timestamp("us", "UTC"))])
    found = ids_of(event_ids, times).to_pylist()
    assert found == [b"a" * 16 + b"\xff" * 8, None, None, b"b" * 16 + (1 << 40).to_bytes(8, "big")]
    assert rows_table(["t"], [0], [0], ids_of(event_ids, times).slice(3)).event_span_us() == (1 << 40, 1 << 40)
    assert len(ids_of(pa.chunked_array([], pa.binary()), pa.chunked_array([], pa.int64()))) == 0
    assert np.array_equal(rows().offsets, [])
