"""Rows of any store in one form, and the comparison of two: what is missing, what is there twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb

# event_id, then event_time as big-endian microseconds since 1970.
ID_BYTES = 24
# Partition and offset in one integer: offsets stay far below 2^48.
_PARTITION_SHIFT = 48
_OFFSETS = np.int64((1 << _PARTITION_SHIFT) - 1)


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
        return self.coordinates & _OFFSETS

    def where(self, mask: NDArray[np.bool_]) -> "Rows":
        """The rows that the mask, shape (n,), keeps."""
        if mask.all():
            return self
        keep = pa.array(mask)
        return Rows(self.source.filter(keep), self.coordinates[mask], self.ids.filter(keep), self.dead[mask])

    def good(self) -> "Rows":
        """The rows that are not dead."""
        return self.where(~self.dead)

    def of(self, source: str) -> "Rows":
        """The rows of one source."""
        return self.where(self._is_of(source))

    def _is_of(self, source: str) -> NDArray[np.bool_]:
        return np.asarray(pc.equal(self.source, source).to_numpy(), bool)

    def without(self, sources: Sequence[str]) -> "Rows":
        """The rows of all other sources."""
        return self.where(~self._are_of(sources))

    def of_any(self, sources: Sequence[str]) -> "Rows":
        """The rows of these sources."""
        return self.where(self._are_of(sources))

    def _are_of(self, sources: Sequence[str]) -> NDArray[np.bool_]:
        return np.asarray(pc.is_in(self.source, value_set=pa.array(sources, pa.string())).to_numpy(), bool)

    def sources(self) -> list[str]:
        """Distinct sources, sorted."""
        return sorted(pc.unique(self.source).to_pylist())

    def before(self, source: str, ends: Mapping[int, int]) -> "Rows":
        """All rows but those of `source` at or after the end of their partition: what came after the audit began."""
        return self.where(~self._is_of(source) | (self.offsets < self._by_partition(ends)))

    def since(self, begins: Mapping[int, int]) -> "Rows":
        """The rows at or after the begin of their partition: what came before has left Kafka by retention."""
        return self.where(self.offsets >= self._by_partition(begins))

    def _by_partition(self, offsets: Mapping[int, int]) -> NDArray[np.int64]:
        numbers = self.coordinates >> _PARTITION_SHIFT
        table = np.zeros(max(offsets, default=0) + 1, np.int64)
        for partition, offset in offsets.items():
            table[partition] = offset
        return np.where(numbers < len(table), table[np.minimum(numbers, len(table) - 1)], 0)

    def event_span_us(self) -> tuple[int, int] | None:
        """Smallest and largest event time of known ids, microseconds; None without any."""
        known = self.ids.filter(pc.is_valid(self.ids))
        if not len(known):
            return None
        times = np.ascontiguousarray(_octets(known)[:, 16:]).view(">i8")
        return int(times.min()), int(times.max())


def rows_table(
    source: Sequence[str] | pa.Array | pa.ChunkedArray,
    partitions: Sequence[int] | NDArray[np.int32],
    offsets: Sequence[int] | NDArray[np.int64],
    ids: pa.Array,
    dead: NDArray[np.bool_] | None = None,
) -> Rows:
    """Rows from columns."""
    coordinates = (np.asarray(partitions, np.int64) << _PARTITION_SHIFT) | np.asarray(offsets, np.int64)
    column = source if isinstance(source, pa.ChunkedArray) else pa.chunked_array([pa.array(source, pa.string())])
    return Rows(column, coordinates, ids, np.zeros(len(coordinates), bool) if dead is None else dead)


def ids_of(event_ids: pa.ChunkedArray, event_times: pa.ChunkedArray) -> pa.Array:
    """Ids of 24 bytes; null where there is no event_id of 16 bytes."""
    count = len(event_ids)
    flat = pa.concat_arrays([chunk.cast(pa.large_binary()) for chunk in event_ids.chunks]) if count else pa.array([], pa.large_binary())
    known = pc.fill_null(pc.equal(pc.binary_length(flat), 16), False)
    padded = pc.if_else(known, flat, pa.scalar(b"\0" * 16, pa.large_binary()))
    joined = np.zeros((count, ID_BYTES), np.uint8)
    if count:
        start = int(np.frombuffer(padded.buffers()[1], np.int64)[padded.offset])
        joined[:, :16] = np.frombuffer(padded.buffers()[2], np.uint8)[start : start + 16 * count].reshape(count, 16)
        micros = pc.fill_null(event_times.cast(pa.int64()), 0).to_numpy().astype(">i8")
        joined[:, 16:] = micros.view(np.uint8).reshape(count, 8)
    whole = pa.Array.from_buffers(pa.binary(ID_BYTES), count, [None, pa.py_buffer(joined.tobytes())])
    return whole if pc.all(known).as_py() else pc.if_else(known, whole, pa.scalar(None, pa.binary(ID_BYTES)))


def _octets(ids: pa.Array) -> NDArray[np.uint8]:
    """Bytes of ids, shape (n, 24); what stands under a null is of no meaning."""
    start = ids.offset * ID_BYTES
    return np.frombuffer(ids.buffers()[1], np.uint8)[start : start + ID_BYTES * len(ids)].reshape(len(ids), ID_BYTES)


@dataclass
class Findings:
    """What a comparison found, each record once per place: by coordinates where they are known, else by id."""

    missing: dict[tuple[object, ...], pb.AuditFinding] = field(default_factory=dict)
    duplicated: dict[tuple[object, ...], pb.AuditFinding] = field(default_factory=dict)
    # Ids that a finding with coordinates names already, by place.
    _named: set[tuple[str, bytes]] = field(default_factory=set)

    def coordinates(self, place: str, *, expected: Rows, actual: Rows) -> None:
        """Every coordinate of `expected` must be in `actual` (the store called `place`), with the same id; both are of one source."""
        absent = ~np.isin(expected.coordinates, actual.coordinates)
        for row in np.flatnonzero(absent):
            self._note(self.missing, place, expected, int(row))
        for row in _changed(expected.where(~absent), actual):
            self._note(self.missing, place, expected.where(~absent), int(row))

    def doubled(self, place: str, actual: Rows) -> None:
        """No coordinate of a source may be there twice."""
        _, first, counts = np.unique(actual.coordinates, return_index=True, return_counts=True)
        for row in first[counts > 1]:
            self._note(self.duplicated, place, actual, int(row))

    def superseded(self, place: str, actual: Rows) -> None:
        """None of these rows, of superseded sources, may be there."""
        for row in range(len(actual)):
            self._note(self.duplicated, place, actual, row)

    def ids(self, place: str, *, expected: pa.Array, actual: Rows) -> None:
        """Every id of `expected` must be in `actual` (the store called `place`)."""
        known = expected.filter(pc.is_valid(expected))
        for value in pc.unique(known.filter(pc.invert(pc.is_in(known, value_set=actual.ids)))).to_pylist():
            if (place, value) not in self._named:
                self.missing.setdefault((place, value), _finding(place, value))

    def doubled_ids(self, place: str, actual: Rows) -> None:
        """No id may be there twice."""
        counted = pc.value_counts(actual.ids.filter(pc.is_valid(actual.ids)))
        for value in counted.field("values").filter(pc.greater(counted.field("counts"), 1)).to_pylist():
            self.duplicated.setdefault((place, value), _finding(place, value))

    def _note(self, found: dict[tuple[object, ...], pb.AuditFinding], place: str, rows: Rows, row: int) -> None:
        value = rows.ids[row].as_py()
        coordinate = int(rows.coordinates[row])
        finding = _finding(place, value)
        finding.source = rows.source[row].as_py()
        finding.partition, finding.offset = coordinate >> _PARTITION_SHIFT, coordinate & int(_OFFSETS)
        if value is not None and found is self.missing:
            self._named.add((place, value))
        found[place, finding.source, coordinate] = finding


def _changed(expected: Rows, actual: Rows) -> NDArray[np.int64]:
    """Indexes of expected rows whose id is another one in the actual row of the same coordinates. All of `expected` must be there."""
    if not len(expected):
        return np.zeros(0, np.int64)
    order = np.argsort(actual.coordinates, kind="stable")
    place = order[np.searchsorted(actual.coordinates, expected.coordinates, sorter=order)]
    found = actual.ids.take(pa.array(place))
    differs = pc.fill_null(pc.not_equal(expected.ids, found), False)
    return np.flatnonzero(differs.to_numpy(zero_copy_only=False))


def _finding(place: str, value: bytes | None) -> pb.AuditFinding:
    finding = pb.AuditFinding(place=place, partition=-1, offset=-1)
    if value is not None:
        finding.event_id = value[:16]
        # Set as they are: what is wrong may well be a time that no calendar has.
        seconds, micros = divmod(int.from_bytes(value[16:], "big", signed=True), 1_000_000)
        finding.event_time.seconds, finding.event_time.nanos = seconds, micros * 1000
    return finding
