"""`arterial backup` and `arterial restore`: all state of the control plane in one file, and back."""

import argparse
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1alpha1 import backup_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import backup_service_pb2_grpc
from chassis.errors import ArterialError, Reason
from cli.connect import show, table, to_service

PIECE_BYTES = 1 << 18


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands."""
    backup = commands.add_parser("backup", help="all state of the control plane into one file")
    backup.add_argument("file", type=Path)
    backup.set_defaults(run=run_backup)
    restore = commands.add_parser("restore", help="all state from a backup, into an empty control plane")
    restore.add_argument("file", type=Path)
    restore.set_defaults(run=run_restore)


async def run_backup(arguments: argparse.Namespace) -> int:
    """The file is there whole, on disk, or not at all; one that was there before stays until then."""
    draft = arguments.file.with_name(f"{arguments.file.name}.{os.getpid()}.draft")
    try:
        async with to_service(arguments, "controlplane") as channel:
            stub: Any = backup_service_pb2_grpc.BackupServiceStub(channel)
            with draft.open("wb") as file:
                async for piece in stub.Backup(pb.BackupRequest()):
                    file.write(piece.data)
                file.flush()
                os.fsync(file.fileno())
        size = draft.stat().st_size
        draft.replace(arguments.file)
    except OSError as error:
        raise ArterialError(Reason.REFUSED, f"{arguments.file} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    show(arguments, {"file": str(arguments.file), "bytes": size}, [f"{arguments.file}: {size} bytes"])
    return 0


async def run_restore(arguments: argparse.Namespace) -> int:
    """Everything or nothing."""
    async with to_service(arguments, "controlplane") as channel:
        stub: Any = backup_service_pb2_grpc.BackupServiceStub(channel)
        reply = await stub.Restore(_pieces(arguments.file))
    rows = [["TABLE", "ROWS"], *([name, str(count)] for name, count in sorted(reply.rows.items()))]
    show(arguments, json_format.MessageToDict(reply), table(rows))
    return 0


async def _pieces(path: Path) -> AsyncIterator[pb.RestoreRequest]:
    """The file, piece by piece. Raises INVALID_REQUEST if it cannot be read."""
    try:
        with path.open("rb") as file:
            while data := file.read(PIECE_BYTES):
                yield pb.RestoreRequest(data=data)
    except OSError as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"{path} cannot be read: {error.strerror}") from error
