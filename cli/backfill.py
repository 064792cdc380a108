"""`arterial backfill FILE`: history into the lake, with its original times."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cli.connect import show
from cli.stack import state_of
from deploy.local.child import StartError


@dataclass(frozen=True)
class Loaded:
    """How far a backfill is."""

    source: str
    done: int
    rows: int


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    backfill = commands.add_parser("backfill", help="load a trip file into the lake; a second run changes nothing")
    backfill.add_argument("file", type=Path)
    backfill.set_defaults(run=run)


async def load(data_dir: Path, file: Path) -> AsyncIterator[Loaded]:
    """Runs ingestion's backfill role against the stack of a data folder; yields its progress.

    Raises:
        StartError: it failed; the message has its last lines.
    """
    command = [sys.executable, "-m", "services.ingestion", "backfill", "--config", str(data_dir / "config" / "ingestion-stream.yaml")]
    environment = {**os.environ, "ARTERIAL_BACKFILL_FILE": str(file.resolve()), "ARTERIAL_STATE_DIR": str(data_dir / "state" / "backfill")}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    async for line in process.stdout:
        source, done, rows = line.decode().split()
        yield Loaded(source, int(done), int(rows))
    if await process.wait():
        raise StartError(f"backfill of {file} failed:\n" + "\n".join((await errors).decode().splitlines()[-10:]))


async def run(arguments: argparse.Namespace) -> int:
    """Loads and shows progress."""
    state_of(arguments.data_dir)
    last: Loaded | None = None
    async for last in load(arguments.data_dir, arguments.file):
        if arguments.output == "text":
            print(f"{last.done:>12,} of {last.rows:,} rows", flush=True)
    document = {"source": last.source, "rows": last.rows, "done": last.done} if last else {"done": "nothing left to do"}
    show(arguments, document, ["done" if last else "nothing left to do: the file is in the lake"])
    return 0
