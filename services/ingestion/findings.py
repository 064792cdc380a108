"""Rows of any store in one form, and the comparison of two: what is missing, what is there twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb

# Partition and offset in one integer: offsets stay far below 2^48.
_PARTITION_SHIFT = 48


@dataclass(frozen=True)
class Rows:
    """Rows of a store, n entries each: source, coordinates (partition << 48 | offset), id (24 bytes, null if unknown), dead."""

    source: pa.ChunkedArray
    coordinates: NDArray[np.int64]
    ids: pa.Array
    dead: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Offset of each row."""
        return self.coordinates & np.int64((1 << _PARTITION_SHIFT) - 1)

    def where(self, mask: NDArray[np.bool_]) -> "Rows":
        """The rows that the mask, shape (n,), keeps."""
        keep = pa.array(mask)
        return Rows(self.source.filter(keep), self.coordinates[mask], self.ids.filter(keep), self.dead[mask])

    def good(self) -> "Rows":
        """The rows that are not dead."""
        return self.where(~self.dead)

    def of(self, source: str) -> "Rows":
        """The rows of one source."""
        return self.where(np.asarray(pc.equal(self.source, source).to_numpy(zero_copy_only=False), bool))

    def sources(self) -> list[str]:
        """Distinct sources, sorted."""
        return sorted(pc.unique(self.source).to_pylist())

    def at_or_after(self, other: "Rows") -> "Rows":
        """The rows of each partition from `other`'s first on: what came before has left Kafka by retention."""
        if not len(other):
            return self.where(np.zeros(len(self), bool))
        keep = np.zeros(len(self), bool)
        for partition in np.unique(other.coordinates >> _PARTITION_SHIFT):
            first = other.coordinates[(other.coordinates >> _PARTITION_SHIFT) == partition].min()
            keep |= ((self.coordinates >> _PARTITION_SHIFT) == partition) & (self.coordinates >= first)
        return self.where(keep)


def rows_table(
    source: Sequence[str] | pa.ChunkedArray,
    partitions: Sequence[int] | NDArray[np.int32],
    offsets: Sequence[int] | NDArray[np.int64],
    ids: pa.Array,
    dead: NDArray[np.bool_] | None = None,
) -> Rows:
    """Rows from columns."""
    coordinates = (np.asarray(partitions, np.int64) << _PARTITION_SHIFT) | np.asarray(offsets, np.int64)
    column = source if isinstance(source, pa.ChunkedArray) else pa.chunked_array([pa.array(source, pa.string())])
    return Rows(column, coordinates, ids, np.zeros(len(coordinates), bool) if dead is None else np.asarray(dead, bool))


def ids_of(event_ids: pa.ChunkedArray | pa.Array, event_times: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Ids of 24 bytes: event_id, then event_time as big-endian microseconds; null where event_id is."""
    flat = event_ids.combine_chunks() if isinstance(event_ids, pa.ChunkedArray) else event_ids
    known = np.asarray(pc.is_valid(flat).to_numpy(zero_copy_only=False), bool)
    padded = pc.fill_null(flat.cast(pa.binary()), b"\0" * 16)
    octets = np.frombuffer(b"".join(padded.to_pylist()), np.uint8).reshape(len(flat), 16)
    micros = pc.fill_null(event_times.cast(pa.int64()), 0).to_numpy(zero_copy_only=False) if len(flat) else np.zeros(0, np.int64)
    joined = np.hstack([octets, np.ascontiguousarray(micros.astype(">i8")).view(np.uint8).reshape(len(flat), 8)])
    whole = pa.Array.from_buffers(pa.binary(24), len(flat), [None, pa.py_buffer(np.ascontiguousarray(joined).tobytes())])
    return pc.if_else(pa.array(known), whole, pa.nulls(len(flat), pa.binary(24)))


@dataclass
class Findings:
    """What a comparison found, each record once per place."""

    missing: dict[tuple[str, object], pb.AuditFinding] = field(default_factory=dict)
    duplicated: dict[tuple[str, object], pb.AuditFinding] = field(default_factory=dict)

    def coordinates(self, place: str, *, expected: Rows, actual: Rows, doubles: bool = True) -> None:
        """Every coordinate of `expected` must be in `actual` (the store called `place`), and none twice."""
        for row in np.flatnonzero(~np.isin(expected.coordinates, actual.coordinates)):
            self._note(self.missing, place, expected, int(row))
        if doubles:
            _, first, counts = np.unique(actual.coordinates, return_index=True, return_counts=True)
            for row in first[counts > 1]:
                self._note(self.duplicated, place, actual, int(row))

    def ids(self, place: str, *, expected: pa.Array, actual: Rows, doubles: bool = False) -> None:
        """Every id of `expected` must be in `actual` (the store called `place`) and, if asked, none twice."""
        known = expected.filter(pc.is_valid(expected))
        for value in pc.unique(known.filter(pc.invert(pc.is_in(known, value_set=actual.ids)))).to_pylist():
            self.missing.setdefault((place, value), _finding(place, value))
        if doubles:
            for entry in pc.value_counts(actual.ids).to_pylist():
                if entry["counts"] > 1 and entry["values"] is not None:
                    self.duplicated.setdefault((place, entry["values"]), _finding(place, entry["values"]))

    @staticmethod
    def _note(found: dict[tuple[str, object], pb.AuditFinding], place: str, rows: Rows, row: int) -> None:
        value = rows.ids[row].as_py()
        coordinate = int(rows.coordinates[row])
        finding = _finding(place, value)
        finding.source = rows.source[row].as_py()
        finding.partition, finding.offset = coordinate >> _PARTITION_SHIFT, coordinate & ((1 << _PARTITION_SHIFT) - 1)
        key = value if value is not None else (finding.source, coordinate)
        found[place, key] = finding


def _finding(place: str, value: bytes | None) -> pb.AuditFinding:
    finding = pb.AuditFinding(place=place, partition=-1, offset=-1)
    if value is not None:
        finding.event_id = value[:16]
        finding.event_time.FromMicroseconds(int.from_bytes(value[16:], "big", signed=True))
    return finding
