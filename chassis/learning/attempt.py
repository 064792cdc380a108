"""The process of one attempt: reads a Task from standard input, trains, saves the artefact, and tells of it on standard output, a JSON
object per line: {"log": text}, and last {"result": {...}} or {"error": text}.

It ends with its parent: standard input is held open as long as the parent lives.
"""

import asyncio
import importlib
import json
import os
import sys
import threading
from dataclasses import asdict
from typing import Any, BinaryIO, cast

from chassis import logs
from chassis.errors import ArterialError
from chassis.learning.artefact import Artefacts
from chassis.learning.checkpoints import Checkpoints
from chassis.learning.task import Task, Trainer

# What serves goes first: training may take what is left of the processors.
NICENESS = 10


def main() -> None:
    """Runs the attempt; the exit status says whether it succeeded."""
    logs.configure("training")
    os.nice(NICENESS)
    task = Task.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    try:
        tell({"result": asyncio.run(attempt(task))})
    except Exception as error:
        logs.logger(__name__).exception("training failed")
        tell({"error": error.message if isinstance(error, ArterialError) else f"{type(error).__name__}: {error}"})
        sys.exit(1)


async def attempt(task: Task) -> dict[str, Any]:
    """Trains and saves; what to register."""
    candidate = await trainer(task.trainer)(task, lambda text: tell({"log": text}))
    saved = Artefacts(task.models).save(task.model, task.version, task.created_at, candidate)
    Checkpoints(task.models, task.run_id, lambda _: None).clear()
    snapshots = [asdict(snapshot) for snapshot in candidate.snapshots]
    return {"path": saved.path, "sha256": saved.sha256, "metrics": dict(candidate.metrics), "snapshots": snapshots}


def trainer(name: str) -> Trainer:
    """The function that "module:function" names."""
    module, function = name.split(":")
    return cast(Trainer, getattr(importlib.import_module(module), function))


def tell(message: dict[str, Any]) -> None:
    """Writes a line for the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _end_with(parent: BinaryIO) -> None:
    parent.read()
    os._exit(1)


if __name__ == "__main__":
    main()
