"""Schemas as files: .proto, .avsc and .json."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from arterial.api.controlplane.v1 import schema_registry_service_pb2 as pb
from arterial.api.controlplane.v1 import specs_pb2
from chassis.errors import ArterialError, Reason, Violation

TYPES = {
    ".proto": specs_pb2.SCHEMA_TYPE_PROTOBUF,
    ".avsc": specs_pb2.SCHEMA_TYPE_AVRO,
    ".json": specs_pb2.SCHEMA_TYPE_JSON,
    ".jsonschema": specs_pb2.SCHEMA_TYPE_JSON,
}
COMPILE_SECONDS = 30
# Lines of the compiler's own log.
_LOGGED = re.compile(r"WARNING: |[IW][0-9]{4} ")
_QUOTED = re.compile(r"""["']([^"'\n]+\.proto)["']""")


def read(file: Path, imports: Sequence[Path], references: Sequence[str]) -> pb.Schema:
    """The schema of a file. A .proto that imports files of its folder, or of `imports`, comes with them.

    Raises:
        ArterialError: INVALID_REQUEST for a file that cannot be read, or a reference that is not NAME=SUBJECT or NAME=SUBJECT:VERSION.
    """
    if file.suffix not in TYPES:
        raise ArterialError(Reason.INVALID_REQUEST, f"{file} is none of {', '.join(TYPES)}")
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"{file} cannot be read: {error}") from error
    folders = [file.parent, *imports]
    if file.suffix == ".proto" and any((folder / name).is_file() for name in _QUOTED.findall(text) for folder in folders):
        return _compiled(file, folders)
    return pb.Schema(type=TYPES[file.suffix], text=text, references=[_reference(each) for each in references])


def _reference(text: str) -> pb.SubjectReference:
    name, _, target = text.partition("=")
    subject, colon, version = target.rpartition(":")
    if not colon or not version.isdigit():
        subject, version = target, "-1"
    if not name or not subject:
        raise ArterialError(Reason.INVALID_REQUEST, f"{text} is not NAME=SUBJECT or NAME=SUBJECT:VERSION")
    return pb.SubjectReference(name=name, subject=subject, version=int(version))


def _compiled(file: Path, folders: Sequence[Path]) -> pb.Schema:
    """The file with all that it imports, by protoc (grpcio-tools)."""
    with tempfile.TemporaryDirectory(prefix="arterial-schema-") as name:
        target = Path(name) / "out.binpb"
        words = [sys.executable, "-m", "grpc_tools.protoc", "--include_imports", f"--descriptor_set_out={target}"]
        words += [*(f"-I{folder.resolve()}" for folder in folders), file.name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
        if done.returncode != 0:
            wrong = [
                Violation(str(file), line) for line in done.stderr.splitlines() if ": warning: " not in line and not _LOGGED.match(line)
            ]
            raise ArterialError(Reason.INVALID_REQUEST, f"{file} cannot be compiled", violations=wrong)
        encoded = target.read_bytes()
    main = FileDescriptorSet.FromString(encoded).file[-1]
    if not main.message_type:
        raise ArterialError(Reason.INVALID_REQUEST, f"{file} declares no message")
    message = f"{main.package}.{main.message_type[0].name}".removeprefix(".")
    return pb.Schema(type=specs_pb2.SCHEMA_TYPE_PROTOBUF, file_descriptor_set=encoded, message=message)
