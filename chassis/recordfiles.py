"""Files that ingestion backfills: record files (Parquet of serialised events of any topic) and, by the same interface, trip files."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from chassis.errors import ArterialError, Reason
from chassis.tripfiles import TripFile
from chassis.wire import BUILTIN_IDS, prefix

COLUMN = "value"
# Keys of the Parquet schema's metadata.
TOPIC_KEY, SUPERSEDES_KEY = b"arterial.topic", b"arterial.supersedes"
TRIP_TOPIC = "trip_events_v2"
BATCH_ROWS = 100_000
# A correction is one commit, so that no reader ever meets half of it; a commit holds no more rows than a data file of the lake.
MAX_CORRECTION_ROWS = 2_000_000
_SOURCE = re.compile(r"file:[0-9a-f]{64}")


@dataclass(frozen=True)
class Batch:
    """Rows [start, start + n) of a file as Kafka values; what cannot be decoded is for the judge to find."""

    start: int
    values: Sequence[bytes | None]


class SourceFile(Protocol):
    """A file as a source of the lake: rows are numbered from 0, as offsets are."""

    @property
    def source(self) -> str:
        """Name in the lake: "file:<sha256>"."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def topic(self) -> str:
        """Topic whose raw table the rows belong to."""

    @property
    def supersedes(self) -> tuple[str, ...]:
        """Sources that this one corrects; none for what is no correction."""

    def batches(self, start: int, message: str) -> Iterator[Batch]:
        """The rows from `start` on, framed with the built-in schema id of `message`, the full name of the topic's message."""


class RecordFile:
    """A record file, identified by the SHA-256 of its bytes; `supersedes` names the sources that it corrects.

    Raises:
        ArterialError: INVALID_REQUEST if the file does not exist or is no record file, or names a source that is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        schema = _schema(path)
        metadata = schema.metadata or {}
        if TOPIC_KEY not in metadata or schema.names != [COLUMN] or not _is_binary(schema.field(COLUMN).type):
            raise ArterialError(
                Reason.INVALID_REQUEST,
                f"{path.name} is no record file: Parquet with one binary column '{COLUMN}' and schema metadata {TOPIC_KEY.decode()}",
            )
        self.topic = metadata[TOPIC_KEY].decode()
        self.supersedes = tuple(part for part in metadata.get(SUPERSEDES_KEY, b"").decode().split(",") if part)
        _check(self.supersedes)
        self.rows: int = pq.read_metadata(path).num_rows
        self.source = source_of(path)
        if self.supersedes and self.rows > MAX_CORRECTION_ROWS:
            raise ArterialError(
                Reason.INVALID_REQUEST,
                f"{path.name} has {self.rows} rows; a correction is one commit of at most {MAX_CORRECTION_ROWS}",
            )

    def batches(self, start: int, message: str) -> Iterator[Batch]:
        """The rows from `start` on; a correction is one batch."""
        head = prefix(BUILTIN_IDS[message])
        if self.supersedes:
            yield Batch(start, _framed(head, pq.read_table(self.path)[COLUMN].slice(start)))
            return
        first = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                if first + batch.num_rows > start:
                    skipped = max(0, start - first)
                    yield Batch(first + skipped, _framed(head, batch[COLUMN].slice(skipped)))
                first += batch.num_rows


class TripRecords:
    """A trip file as a source of the lake."""

    topic = TRIP_TOPIC
    supersedes: tuple[str, ...] = ()

    def __init__(self, file: TripFile) -> None:
        self._file = file
        self.source = file.source
        self.rows: int = file.rows

    def batches(self, start: int, message: str) -> Iterator[Batch]:
        """The rows from `start` on."""
        for chunk in self._file.chunks(start):
            yield Batch(chunk.start, self._file.values(chunk))


def open_file(path: Path) -> SourceFile:
    """A record file or a trip file, whichever it is.

    Raises:
        ArterialError: INVALID_REQUEST if the file does not exist or is neither.
    """
    if path.suffix == ".parquet" and path.is_file() and TOPIC_KEY in (_schema(path).metadata or {}):
        return RecordFile(path)
    return TripRecords(TripFile(path))


def write_records(path: Path, topic: str, values: Sequence[bytes] | pa.Array, supersedes: Sequence[str] = ()) -> str:
    """Writes a record file of serialised events, unframed; returns its source, "file:<sha256>". The same input gives the same bytes.

    Raises:
        ArterialError: INVALID_REQUEST if `supersedes` names what is no source of a file.
    """
    _check(supersedes)
    metadata = {TOPIC_KEY: topic.encode()} | ({SUPERSEDES_KEY: ",".join(supersedes).encode()} if supersedes else {})
    column = values if isinstance(values, pa.Array) else pa.array(values, pa.binary())
    schema = pa.schema([pa.field(COLUMN, pa.binary())], metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Events hardly repeat as wholes: a dictionary of them would only be built to be given up.
    pq.write_table(pa.table([column], schema=schema), path, row_group_size=BATCH_ROWS, compression="zstd", use_dictionary=False)
    return source_of(path)


def source_of(path: Path) -> str:
    """The name of a file as a source: "file:" and the SHA-256 of its bytes."""
    with path.open("rb") as file:
        return f"file:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _schema(path: Path) -> pa.Schema:
    if not path.is_file():
        raise ArterialError(Reason.INVALID_REQUEST, f"{path} does not exist")
    try:
        return pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"{path.name} is not Parquet: {error}") from error


def _check(supersedes: Sequence[str]) -> None:
    for source in supersedes:
        if not _SOURCE.fullmatch(source):
            raise ArterialError(Reason.INVALID_REQUEST, f"'{source}' is no source of a file: 'file:' and 64 hexadecimal digits expected")
    if len(set(supersedes)) < len(supersedes):
        raise ArterialError(Reason.INVALID_REQUEST, "a superseded source is named twice")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _framed(head: bytes, values: pa.Array | pa.ChunkedArray) -> list[bytes | None]:
    return [None if value is None else head + value for value in values.to_pylist()]
