"""The one format of trained models: an immutable folder `<model>/<version>/` with `manifest.json` and the files that it names.

The manifest is written last, so a folder without one is not a version, however many of its files are there. Who loads a version knows
the manifest's SHA-256 (from the control plane), and the manifest those of the files: what loads is, octet by octet, what was registered.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyarrow.fs import FileType

from chassis.config import LakeConfig
from chassis.errors import ArterialError, Reason
from chassis.filesystem import opened

FORMAT = 1
MANIFEST = "manifest.json"
# Names within a version: no folders, nothing hidden, nothing that leaves the version's folder.
_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")
_PATH = re.compile(r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+$")


@dataclass(frozen=True)
class TableSnapshot:
    """What a table was when training read it: partitions `first_date` to `last_date` (ISO 8601) of `table_version`, `rows` in them."""

    dataset: str
    table_version: int
    first_date: str
    last_date: str
    rows: int


@dataclass(frozen=True)
class Candidate:
    """What a trainer made: file contents by name, metrics on data that it did not see, and what both follow from."""

    files: Mapping[str, bytes]
    features: tuple[str, ...]
    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    snapshots: tuple[TableSnapshot, ...] = ()


@dataclass(frozen=True)
class Artefact:
    """A version, whole and verified. `encoded` is the manifest as it is stored, `sha256` its digest."""

    model: str
    version: str
    created_at: str
    candidate: Candidate
    path: str
    sha256: str
    encoded: bytes = field(repr=False)

    @property
    def files(self) -> Mapping[str, bytes]:
        """Contents of the files by name."""
        return self.candidate.files

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the trainer noted for those who serve the model; JSON values."""
        return self.candidate.parameters


class Artefacts:
    """The versions under a root. All calls block: run them in a thread."""

    def __init__(self, root: LakeConfig) -> None:
        self._files, self._root = opened(root)

    def save(self, model: str, version: str, created_at: str, candidate: Candidate) -> Artefact:
        """Writes a new version: its files first, then the manifest.

        Raises:
            ArterialError: REFUSED if the version is there already, INVALID_REQUEST if a name is none
        """
        for name in (model, version, *candidate.files):
            if not _NAME.match(name):
                raise ArterialError(Reason.INVALID_REQUEST, f"{name!r} is not a name of a model, version or file")
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in candidate.files.items()}
        document = {
            "format": FORMAT,
            "model": model,
            "version": version,
            "created_at": created_at,
            "features": list(candidate.features),
            "snapshots": [dataclasses.asdict(snapshot) for snapshot in candidate.snapshots],
            "metrics": dict(candidate.metrics),
            "parameters": dict(candidate.parameters),
            "files": digests,
        }
        encoded = json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode()
        artefact = Artefact(model, version, created_at, candidate, f"{model}/{version}", hashlib.sha256(encoded).hexdigest(), encoded)
        self.store(artefact)
        return artefact

    def store(self, artefact: Artefact) -> None:
        """Writes a version as it is, for example a copy of one from another root. Raises REFUSED if it is there already."""
        folder = f"{self._root}/{artefact.path}"
        if self._exists(f"{folder}/{MANIFEST}"):
            raise ArterialError(Reason.REFUSED, f"version {artefact.path} is there already; versions never change")
        self._files.create_dir(folder, recursive=True)
        for name, content in artefact.files.items():
            self._write(f"{folder}/{name}", content)
        # On a file system a write is not atomic, a move is; on an object store it is a copy of something whole.
        self._write(f"{folder}/{MANIFEST}.draft", artefact.encoded)
        self._files.move(f"{folder}/{MANIFEST}.draft", f"{folder}/{MANIFEST}")

    def load(self, path: str, sha256: str) -> Artefact:
        """A version, verified against the manifest's digest and every file's.

        Raises:
            ArterialError: NOT_FOUND if it is not there whole, REFUSED if a digest differs or the format is not known.
        """
        if not _PATH.match(path):
            raise ArterialError(Reason.INVALID_REQUEST, f"{path!r} is not a path of a version")
        encoded = self._read(f"{path}/{MANIFEST}")
        _verify(f"{path}/{MANIFEST}", encoded, sha256)
        manifest = json.loads(encoded)
        if manifest["format"] != FORMAT:
            raise ArterialError(Reason.REFUSED, f"{path} has format {manifest['format']}; this program knows {FORMAT}")
        contents = {}
        for name, digest in manifest["files"].items():
            contents[name] = self._read(f"{path}/{name}")
            _verify(f"{path}/{name}", contents[name], digest)
        candidate = Candidate(
            contents,
            tuple(manifest["features"]),
            manifest["metrics"],
            manifest["parameters"],
            tuple(TableSnapshot(**snapshot) for snapshot in manifest["snapshots"]),
        )
        return Artefact(manifest["model"], manifest["version"], manifest["created_at"], candidate, path, sha256, encoded)

    def delete(self, path: str) -> None:
        """Removes a version, if it is there: its manifest first, so that no half of it is taken for a version."""
        folder = f"{self._root}/{path}"
        if self._exists(f"{folder}/{MANIFEST}"):
            self._files.delete_file(f"{folder}/{MANIFEST}")
        if self._files.get_file_info(folder).type != FileType.NotFound:
            self._files.delete_dir(folder)

    def _exists(self, path: str) -> bool:
        return bool(self._files.get_file_info(path).is_file)

    def _write(self, path: str, content: bytes) -> None:
        with self._files.open_output_stream(path) as stream:
            stream.write(content)

    def _read(self, path: str) -> bytes:
        try:
            with self._files.open_input_stream(f"{self._root}/{path}") as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise ArterialError(Reason.NOT_FOUND, f"{path} is not under {self._root}") from error
        except OSError as error:
            raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, f"{path} cannot be read: {error}") from error


def _verify(path: str, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ArterialError(Reason.REFUSED, f"{path} has SHA-256 {found[:12]}..., not {sha256[:12]}...: it is not what was registered")
