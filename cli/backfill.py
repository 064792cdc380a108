"""`arterial backfill FILE ...`: history into the lake, with its original times; corrections of it, too."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.connect import show
from cli.stack import state_of
from deploy.local.child import StartError


@dataclass(frozen=True)
class Loaded:
    """How far the backfill of a file is."""

    source: str
    done: int
    rows: int


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    backfill = commands.add_parser("backfill", help="load trip files and record files into the lake; a second run changes nothing")
    backfill.add_argument("files", metavar="FILE", type=Path, nargs="+")
    backfill.set_defaults(run=run)


async def load(data_dir: Path, *files: Path) -> AsyncIterator[Loaded]:
    """Runs ingestion's backfill role, one process for all files, against the stack of a data folder; yields its progress.

    Raises:
        StartError: it failed; the message has its last lines.
    """
    command = [sys.executable, "-m", "services.ingestion", "backfill", "--config", str(data_dir / "config" / "ingestion-stream.yaml")]
    environment = {
        **os.environ,
        "ARTERIAL_BACKFILL_FILES": json.dumps([str(file.resolve()) for file in files]),
        "ARTERIAL_STATE_DIR": str(data_dir / "state" / "backfill"),
    }
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    async for line in process.stdout:
        source, done, rows = line.decode().split()
        yield Loaded(source, int(done), int(rows))
    if await process.wait():
        names = ", ".join(str(file) for file in files)
        raise StartError(f"backfill of {names} failed:\n" + "\n".join((await errors).decode().splitlines()[-10:]))


async def run(arguments: argparse.Namespace) -> int:
    """Loads and shows progress."""
    state_of(arguments.data_dir)
    last: dict[str, Loaded] = {}
    async for loaded in load(arguments.data_dir, *arguments.files):
        last[loaded.source] = loaded
        if arguments.output == "text":
            print(f"{loaded.source[:17]}… {loaded.done:>12,} of {loaded.rows:,} rows", flush=True)
    document = {"files": [asdict(loaded) for loaded in last.values()]}
    show(arguments, document, [f"done: {len(last)} of {len(arguments.files)} files had rows that the lake lacked"])
    return 0
