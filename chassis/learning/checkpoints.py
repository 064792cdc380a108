"""What a training run has learned so far, kept beside the artefacts: the next attempt goes on from there instead of from the beginning."""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from pyarrow.fs import FileSelector, FileType

from chassis.config import LakeConfig
from chassis.filesystem import opened

# No name of a model begins so.
FOLDER = "_checkpoints"
# An attempt that dies loses about so much of its work; a checkpoint takes a moment of it.
INTERVAL_SECONDS = 20.0
# What a run that failed for good left is removed by whoever trains after this.
KEPT = timedelta(days=7)


class Checkpoints:
    """Those of one run. A checkpoint is named by what it was learned from: other data, or other settings, begin anew. All calls block."""

    def __init__(self, models: LakeConfig, run_id: str, log: Callable[[str], None], *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._files, root = opened(models)
        self._root = f"{root}/{FOLDER}"
        self._folder = f"{self._root}/{run_id}"
        self._log = log
        self._interval_seconds = interval_seconds
        self._saved_at = time.monotonic()

    @property
    def due(self) -> bool:
        """True if the last one, or the beginning, is a while ago."""
        return time.monotonic() - self._saved_at >= self._interval_seconds

    def load(self, name: str) -> bytes | None:
        """The content of a checkpoint; None if there is none that is whole."""
        path = f"{self._folder}/{name}"
        if not self._files.get_file_info(path).is_file:
            return None
        with self._files.open_input_stream(path) as stream:
            content = bytes(stream.read())
        digest, content = content[:32], content[32:]
        return content if hashlib.sha256(content).digest() == digest else None

    def save(self, name: str, content: bytes) -> None:
        """Replaces the checkpoint of that name."""
        self._files.create_dir(self._folder, recursive=True)
        path = f"{self._folder}/{name}"
        with self._files.open_output_stream(f"{path}.draft") as stream:
            stream.write(hashlib.sha256(content).digest() + content)
        self._files.move(f"{path}.draft", path)
        self._saved_at = time.monotonic()

    def tell(self, line: str) -> None:
        """Writes into the log of the run."""
        self._log(line)

    def clear(self) -> None:
        """Removes those of this run, which has ended well, and what others left long ago."""
        if self._files.get_file_info(self._root).type != FileType.Directory:
            return
        old = datetime.now(UTC) - KEPT
        for info in self._files.get_file_info(FileSelector(self._root)):
            forgotten = info.mtime is not None and info.mtime < old
            if info.type == FileType.Directory and (forgotten or info.path.rstrip("/") == self._folder):
                # Another worker may remove it at this moment; no training fails because something is left.
                with suppress(OSError):
                    self._files.delete_dir(info.path)
