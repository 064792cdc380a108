"""Checkpoints: arrays and the log offset that they belong to, under immutable names that contain the offset."""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs

from chassis.config import LakeConfig
from chassis.filesystem import opened
from chassis.logs import logger

Arrays = Mapping[str, NDArray[np.generic]]
# Older checkpoints that stay: should the newest be unreadable, the one before it only costs a longer replay.
KEPT = 3
_log = logger(__name__)


class Checkpoints:
    """The checkpoints of one partition of a log."""

    def __init__(self, config: LakeConfig, log: str, incarnation: int, partition: int) -> None:
        self._files, self._folder = opened(config, f"{log}/{incarnation}/{partition}")

    def save(self, offset: int, arrays: Arrays) -> None:
        """Saves the state that all records below `offset` lead to."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        self._files.create_dir(self._folder, recursive=True)
        draft, name = f"{self._folder}/{offset:020d}.draft", f"{self._folder}/{offset:020d}.npz"
        with self._files.open_output_stream(draft) as stream:
            stream.write(content.getvalue())
        self._files.move(draft, name)
        for old in self._names()[:-KEPT]:
            self._files.delete_file(old)

    def load(self) -> tuple[int, dict[str, NDArray[np.generic]]] | None:
        """The newest readable checkpoint: its offset and arrays."""
        for name in reversed(self._names()):
            try:
                with self._files.open_input_file(name) as stream, np.load(io.BytesIO(stream.read())) as arrays:
                    return int(name.rsplit("/", 1)[1].removesuffix(".npz")), {key: arrays[key] for key in arrays.files}
            except (OSError, ValueError, KeyError) as error:
                _log.error("checkpoint is not readable, taking the one before", file=name, error=str(error))
        return None

    def _names(self) -> list[str]:
        found = self._files.get_file_info(fs.FileSelector(self._folder, allow_not_found=True))
        return sorted(info.path for info in found if info.path.endswith(".npz"))
