"""The last good desired state on disk: whole by its checksum, replaced atomically, with the one before it to fall back on."""

import hashlib
import os
from pathlib import Path

from google.protobuf.message import DecodeError

from arterial.api.controlplane.v1 import saved_state_pb2
from chassis.logs import logger

FILE, FORMER = "last_good.pb", "last_good.previous.pb"
# In front of the file: format, and SHA-256 of what follows.
MAGIC = b"arterial last good 1\n"
_log = logger(__name__)


class LastGood:
    """The files of one process's folder. Saving may be done in a thread, by one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, state: saved_state_pb2.SavedState) -> None:
        """Replaces the state; what was there becomes the former one. Raises OSError."""
        body = state.SerializeToString()
        file = self._folder / FILE
        if file.exists() and _read(file) is not None:
            file.replace(self._folder / FORMER)
        write_atomically(file, MAGIC + hashlib.sha256(body).digest() + body)

    def load(self) -> saved_state_pb2.SavedState | None:
        """The newest state that is whole; what is corrupt is passed over and said so. None if there is none."""
        for name in (FILE, FORMER):
            file = self._folder / name
            if file.exists():
                state = _read(file)
                if state is not None:
                    return state
                _log.error("saved desired state is corrupt, passed over", file=str(file))
        return None


def _read(file: Path) -> saved_state_pb2.SavedState | None:
    content = file.read_bytes()
    head = len(MAGIC) + hashlib.sha256().digest_size
    body = content[head:]
    if content[:head] != MAGIC + hashlib.sha256(body).digest():
        return None
    try:
        return saved_state_pb2.SavedState.FromString(body)
    except DecodeError:
        return None


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file: whoever reads it finds the old content or the new, whole, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
