"""The form of a backup: frames that say what they are, and a checksum over all of them at the end. Pure.

A file is MAGIC and then frames: one byte for the kind, four for the length (big-endian), the content. HEADER (JSON), then for each
table TABLE (JSON) and its DATA (zlib, PostgreSQL's COPY as text: it is the same in every version of PostgreSQL), then END (JSON) and SUM,
the SHA-256 of everything before. A file without SUM was cut off.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

MAGIC = b"ARTERIAL BACKUP\n"
FORMAT = 1
# Bytes of a table's data in one frame, before they are compressed: what is held in memory at once.
DATA_BYTES = 1 << 18
# A frame that says it is longer is not one of ours.
MAX_FRAME_BYTES = 1 << 22
HEADER, TABLE, DATA, END, SUM = b"H", b"T", b"D", b"E", b"S"
_LENGTH = struct.Struct(">I")


class BackupError(ValueError):
    """The file is no backup, or is not whole."""


@dataclass(frozen=True)
class Header:
    """What the file is of: revision of the schema, when, last values of its sequences."""

    revision: str
    taken_at: str
    sequences: Mapping[str, int]
    format: int = FORMAT


@dataclass(frozen=True)
class Table:
    """The table that the following data are of."""

    name: str
    columns: Sequence[str]


class Writer:
    """Makes the bytes of a file, one after the other."""

    def __init__(self, compression_level: int = 1) -> None:
        self._sum = hashlib.sha256()
        self._level = compression_level

    def header(self, header: Header) -> bytes:
        """The beginning."""
        document = {"format": header.format, "revision": header.revision, "taken_at": header.taken_at, "sequences": dict(header.sequences)}
        return self._counted(MAGIC) + self._frame(HEADER, _encoded(document))

    def table(self, table: Table) -> bytes:
        """The beginning of a table."""
        return self._frame(TABLE, _encoded({"table": table.name, "columns": list(table.columns)}))

    def data(self, data: bytes) -> bytes:
        """Data of the table; at most a few times DATA_BYTES."""
        return self._frame(DATA, zlib.compress(data, self._level))

    def end(self, rows: Mapping[str, int]) -> bytes:
        """The end, with the number of rows of every table."""
        return self._frame(END, _encoded({"rows": dict(rows)})) + _framed(SUM, self._sum.digest())

    def _frame(self, kind: bytes, content: bytes) -> bytes:
        return self._counted(_framed(kind, content))

    def _counted(self, data: bytes) -> bytes:
        self._sum.update(data)
        return data


def header_of(file: BinaryIO) -> Header:
    """The header of a file, which is read from its beginning to here. Raises BackupError."""
    if file.read(len(MAGIC)) != MAGIC:
        raise BackupError("this is not a backup of a control plane")
    kind, content = _next(file)
    if kind != HEADER:
        raise BackupError("the header is missing")
    document = _decoded(content)
    try:
        sequences = {str(name): int(value) for name, value in document["sequences"].items()}
        return Header(str(document["revision"]), str(document["taken_at"]), sequences, int(document["format"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackupError("the header is not understood") from error


def verify(file: BinaryIO) -> None:
    """Reads the file to its end: every frame is there, nothing was changed, nothing follows. Raises BackupError."""
    begin = file.tell()
    for kind, _ in _frames(file, begin):
        if kind == SUM:
            break
    if file.read(1):
        raise BackupError("something follows the end")
    file.seek(begin)


def tables(file: BinaryIO) -> Iterator[Table | bytes | Mapping[str, int]]:
    """What follows the header of a verified file: tables, their data, and at the end the number of rows of each."""
    for kind, content in _frames(file, None):
        if kind == TABLE:
            document = _decoded(content)
            yield Table(str(document["table"]), [str(name) for name in document["columns"]])
        elif kind == DATA:
            yield zlib.decompress(content)
        elif kind == END:
            yield {str(name): int(count) for name, count in _decoded(content)["rows"].items()}
            return


def _frames(file: BinaryIO, begin: int | None) -> Iterator[tuple[bytes, bytes]]:
    """Frames from here on; with `begin`, the place where the file begins, their sum is compared."""
    digest = hashlib.sha256(MAGIC) if begin is not None else None
    if begin is not None:
        file.seek(begin + len(MAGIC))
    while True:
        kind, content = _next(file)
        if digest is not None:
            if kind == SUM and content != digest.digest():
                raise BackupError("the checksum does not agree: the file was changed or damaged")
            digest.update(_framed(kind, content))
        yield kind, content
        if kind == SUM:
            return


def _next(file: BinaryIO) -> tuple[bytes, bytes]:
    head = file.read(1 + _LENGTH.size)
    length = _LENGTH.unpack(head[1:])[0] if len(head) == 1 + _LENGTH.size else 0
    if len(head) != 1 + _LENGTH.size:
        raise BackupError("the file was cut off")
    if head[:1] not in (HEADER, TABLE, DATA, END, SUM) or length > MAX_FRAME_BYTES:
        raise BackupError("the file is damaged")
    content = file.read(length)
    if len(content) != length:
        raise BackupError("the file was cut off")
    return head[:1], content


def _framed(kind: bytes, content: bytes) -> bytes:
    return kind + _LENGTH.pack(len(content)) + content


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise BackupError("the file is damaged") from error
    if not isinstance(document, dict):
        raise BackupError("the file is damaged")
    return document
