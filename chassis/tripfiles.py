"""Real trip files as trip events: pickups of the New York FOIL releases (CSV, or a zip of one), and TLC trip records (Parquet)."""

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from chassis.errors import ArterialError, Reason
from chassis.wire import BUILTIN_IDS, Schema, Schemas, prefix

MESSAGE = "arterial.api.events.v1.TripEvent"
# The files tell local time of this zone.
ZONE = "America/New_York"
CITY_ID = 1
CELL_RESOLUTION = 9
METRES_PER_MILE = 1609.344
CHUNK_ROWS = 100_000
PICKUP_HEADER = '"date/time","lat","lon","base"'
REQUESTED, COMPLETED = 1, 5


@dataclass(frozen=True)
class Chunk:
    """Rows [start, start + n) of a file as columns of TripEvent; `valid` tells which could be read, `raw` has the original text of each."""

    start: int
    columns: dict[str, pa.Array]
    valid: NDArray[np.bool_]
    raw: list[bytes]


class TripFile:
    """A trip file, identified by the SHA-256 of its bytes.

    Raises:
        ArterialError: INVALID_REQUEST if the file does not exist or is of no known form.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ArterialError(Reason.INVALID_REQUEST, f"{path} does not exist")
        self.path = path
        self.sha256 = hashlib.sha256(path.read_bytes()).digest()
        self._parquet = path.suffix == ".parquet"
        self._lines = [] if self._parquet else _lines(path)
        self.rows = pq.read_metadata(path).num_rows if self._parquet else len(self._lines)

    @property
    def source(self) -> str:
        """The file's name as a source of the lake."""
        return f"file:{self.sha256.hex()}"

    def chunks(self, start: int = 0) -> Iterator[Chunk]:
        """The rows from `start` on."""
        for first in range(start, self.rows, CHUNK_ROWS):
            if self._parquet:
                yield _tlc_chunk(first, pq.read_table(self.path).slice(first, CHUNK_ROWS))
            else:
                yield _pickup_chunk(first, self._lines[first : first + CHUNK_ROWS])

    def values(self, chunk: Chunk) -> list[bytes]:
        """The rows as framed Kafka values; a row that could not be read is its original text, which is for the judge to find."""
        count = len(chunk.raw)
        rows = np.arange(chunk.start, chunk.start + count)
        identity = {
            "event_id": row_ids(self.sha256, rows),
            "trip_id": pc.binary_join_element_wise(self.sha256.hex()[:12], pa.array(rows).cast(pa.string()), "-"),
            "sequence": pa.array(np.ones(count, np.int64)),
            "producer": pa.repeat("backfill", count),
        }
        head = prefix(BUILTIN_IDS[MESSAGE])
        encoded = trip_schema().encode(chunk.columns | identity, count)
        return [head + value if good else raw for value, good, raw in zip(encoded, chunk.valid.tolist(), chunk.raw, strict=True)]


@cache
def trip_schema() -> Schema:
    """The built-in schema of trip events."""
    return Schemas().builtin(MESSAGE)


def row_ids(sha256: bytes, rows: NDArray[np.int64], run: int = 0) -> pa.Array:
    """UUIDs of version 8 from a file's SHA-256, the number of a replay's run (0 for a backfill) and the row; shape (n,) of 16 bytes."""
    octets = np.empty((len(rows), 16), np.uint8)
    octets[:, :9] = np.frombuffer(sha256[:9], np.uint8)
    octets[:, 6] = 0x80 | (octets[:, 6] & 0x0F)
    octets[:, 8] = 0x80 | (octets[:, 8] & 0x3F)
    octets[:, 9:11] = np.frombuffer(int(run).to_bytes(2, "big"), np.uint8)
    octets[:, 11:] = np.ascontiguousarray(rows.astype(">i8")).view(np.uint8).reshape(-1, 8)[:, 3:]
    return pa.Array.from_buffers(pa.binary(16), len(rows), [None, pa.py_buffer(octets.tobytes())]).cast(pa.binary())


def cells(latitudes: NDArray[np.float64], longitudes: NDArray[np.float64], resolution: int = CELL_RESOLUTION) -> NDArray[np.int64]:
    """H3 cells of positions, 0 where a position is not on the globe; each distinct position is looked up once."""
    from h3.api import basic_int

    positions, inverse = np.unique(np.column_stack([latitudes, longitudes]), axis=0, return_inverse=True)
    possible = (np.abs(positions[:, 0]) <= 90) & (np.abs(positions[:, 1]) <= 180)
    found = np.array(
        [
            basic_int.latlng_to_cell(lat, lon, resolution) if good else 0
            for (lat, lon), good in zip(positions.tolist(), possible.tolist(), strict=True)
        ],
        np.int64,
    )
    return found[inverse.reshape(-1)]


def to_utc_micros(local: NDArray[np.int64]) -> NDArray[np.int64]:
    """Local microseconds of ZONE as UTC; the offset is looked up once per distinct hour."""
    hours, inverse = np.unique(local // 3_600_000_000, return_inverse=True)
    zone, epoch = ZoneInfo(ZONE), np.datetime64(0, "h")
    offsets = []
    for hour in hours.tolist():
        naive = (epoch + np.timedelta64(hour, "h")).astype("datetime64[s]").item()
        offset = naive.replace(tzinfo=zone).utcoffset()
        offsets.append(int(offset.total_seconds()) * 1_000_000)
    return local - np.array(offsets, np.int64)[inverse.reshape(-1)] if len(local) else local


def _lines(path: Path) -> list[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = archive.read(archive.namelist()[0])
    else:
        content = path.read_bytes()
    lines = content.split(b"\n")
    if lines and not lines[-1].strip():
        lines.pop()
    if not lines or lines[0].strip().decode(errors="replace").lower() != PICKUP_HEADER:
        raise ArterialError(
            Reason.INVALID_REQUEST, f"{path.name} is neither TLC Parquet nor a CSV (or zip) that begins with {PICKUP_HEADER}"
        )
    return [line.rstrip(b"\r") for line in lines[1:]]


def _pickup_chunk(start: int, lines: list[bytes]) -> Chunk:
    text = pa.array([line.decode(errors="replace") for line in lines], pa.string())
    parts = pc.split_pattern(text, ",")
    valid = np.asarray(pc.equal(pc.list_value_length(parts), 4).to_numpy(zero_copy_only=False), bool)
    padded = pc.if_else(pa.array(valid), parts, pa.scalar(["", "", "", ""], pa.list_(pa.string())))
    times = pc.strptime(pc.utf8_trim(pc.list_element(padded, 0), '"'), format="%m/%d/%Y %H:%M:%S", unit="us", error_is_null=True)
    latitude, longitude = (_numbers(pc.list_element(padded, place)) for place in (1, 2))
    for column in (times, latitude, longitude):
        valid &= np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), bool)
    micros = to_utc_micros(pc.fill_null(times.cast(pa.int64()), 0).to_numpy(zero_copy_only=False))
    when = pa.array(micros).cast(pa.timestamp("us", "UTC"))
    lat, lon = (pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False) for column in (latitude, longitude))
    return Chunk(
        start,
        {
            "event_time": when,
            "trip_requested_at": when,
            "region": pa.repeat("us-east", len(lines)),
            "city_id": pa.repeat(pa.scalar(CITY_ID, pa.int64()), len(lines)),
            "status": pa.repeat(pa.scalar(REQUESTED, pa.int32()), len(lines)),
            "product": pa.repeat("standard", len(lines)),
            "pickup_position": pa.StructArray.from_arrays([pa.array(lat), pa.array(lon)], fields=_POSITION),
            "pickup_cell": pa.array(cells(lat, lon)),
            "rider_id": pc.utf8_trim(pc.list_element(padded, 3), '"'),
        },
        valid,
        lines,
    )


_POSITION = [pa.field("latitude", pa.float64(), nullable=False), pa.field("longitude", pa.float64(), nullable=False)]
_MONEY = [pa.field("amount_minor", pa.int64(), nullable=False), pa.field("currency_code", pa.string(), nullable=False)]


def _numbers(texts: pa.Array) -> pa.Array:
    """Decimal numbers; null where a text is none."""
    numeric = pc.match_substring_regex(texts, r"^-?\d+(\.\d+)?$")
    return pc.if_else(numeric, texts, pa.scalar(None, pa.string())).cast(pa.float64())


def _tlc_chunk(start: int, rows: pa.Table) -> Chunk:
    rows = rows.combine_chunks()
    count = rows.num_rows
    started, ended = (to_utc_micros(_column(rows, name).cast(pa.int64()).fill_null(0).to_numpy()) for name in _tlc_times(rows))
    miles = _column(rows, "trip_distance").cast(pa.float64()).fill_null(0).to_numpy()
    total = np.round(_column(rows, "total_amount").cast(pa.float64()).fill_null(0).to_numpy() * 100).astype(np.int64)
    zones = [_column(rows, name).cast(pa.string()).fill_null("") for name in ("PULocationID", "DOLocationID")]
    when, done = (pa.array(micros).cast(pa.timestamp("us", "UTC")) for micros in (started, ended))
    return Chunk(
        start,
        {
            "event_time": done,
            "trip_requested_at": when,
            "pickup_time": when,
            "region": pa.repeat("us-east", count),
            "city_id": pa.repeat(pa.scalar(CITY_ID, pa.int64()), count),
            "status": pa.repeat(pa.scalar(COMPLETED, pa.int32()), count),
            "product": pa.repeat("standard", count),
            "route_id": pc.binary_join_element_wise(zones[0], zones[1], "-"),
            "distance_m": pa.array(np.round(miles * METRES_PER_MILE).astype(np.int64)),
            "duration_seconds": pa.array((ended - started) // 1_000_000),
            "fare": pa.StructArray.from_arrays([pa.array(total), pa.repeat("USD", count)], fields=_MONEY),
        },
        np.ones(count, bool),
        [b""] * count,
    )


def _tlc_times(rows: pa.Table) -> tuple[str, str]:
    for service in ("lpep", "tpep"):
        if f"{service}_pickup_datetime" in rows.column_names:
            return f"{service}_pickup_datetime", f"{service}_dropoff_datetime"
    raise ArterialError(Reason.INVALID_REQUEST, "the Parquet file has no TLC pickup and dropoff times")


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows[name].combine_chunks()
    return column.cast(pa.timestamp("us")) if pa.types.is_timestamp(column.type) else column
