"""Role `work` of services that train: takes training runs by lease, trains in a process of its own, registers what came of it.

The process that waits for runs stays small: what training needs is imported by the attempt's process, and its memory goes back with it.
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

from arterial.api.controlplane.v1 import control_plane_service_pb2
from arterial.api.controlplane.v1alpha1 import job_service_pb2, model_service_pb2, model_service_pb2_grpc
from arterial.channel import Channel
from chassis.config import LakeConfig, OlapConfig, ServiceConfig
from chassis.desired import DesiredFeed, follow_desired
from chassis.errors import ArterialError, Reason
from chassis.jobs import CALL_SECONDS, CapacityConfig, Held, Work, Worker
from chassis.learning.task import Task
from chassis.process import Context
from chassis.rpc.client import channel

# Of what the attempt's process prints; a longer line is cut.
MAX_LINE_BYTES = 65_536


class WorkConfig(ServiceConfig):
    """What a service with a role `work` is told in addition: training reads the lake through the OLAP engine."""

    lake: LakeConfig
    olap: OlapConfig = OlapConfig()
    # Root of the artefacts of trained models.
    models: LakeConfig
    capacity: CapacityConfig = CapacityConfig()


async def work(config: WorkConfig, context: Context, trainers: Mapping[str, str]) -> None:
    """Takes runs of the kinds in `trainers`, as many at once as the worker has capacity for, until the process stops.

    Args:
        config: of the service.
        context: of the process.
        trainers: "module:function" of the Trainer of each kind; imported by the process that trains, only.

    Raises:
        ArterialError: INVALID_REQUEST without the address of a control plane.
    """
    if config.control_plane is None:
        raise ArterialError(Reason.INVALID_REQUEST, "role work needs control_plane: runs come from there")
    async with follow_desired(config, context) as feed, channel(config.control_plane) as connection:
        training = Training(config, context, feed, connection, trainers=trainers)
        await Worker(config, context, connection, Work(dict.fromkeys(trainers, training.attempt), config.capacity)).run()


class Training:
    """Attempts of training runs."""

    def __init__(
        self, config: WorkConfig, context: Context, feed: DesiredFeed, connection: Channel, *, trainers: Mapping[str, str]
    ) -> None:
        self._config = config
        self._context = context
        self._feed = feed
        self._trainers = trainers
        self._models = model_service_pb2_grpc.ModelServiceStub(connection)

    async def attempt(self, held: Held) -> dict[str, str]:
        """Trains and registers what came of it; outputs of the run."""
        task = self._task(held.run)
        held.lines.add(f"training {task.model} {task.version} with {task.trainer}")
        result = await run_attempt(task, held.lines.add)
        version = await held.insist(lambda: self._models.RegisterVersion(_registration(task, result), timeout=CALL_SECONDS))
        stage = model_service_pb2.VersionStage.Name(version.version.stage).removeprefix("VERSION_STAGE_")
        held.lines.add(f"version {task.version}: {stage} {'; '.join(version.version.reasons)}".rstrip())
        return {"version": task.version, "stage": stage}

    def _task(self, run: job_service_pb2.Run) -> Task:
        now = datetime.fromtimestamp(self._context.clock.now(), UTC)
        digest = hashlib.sha256(f"{run.run_id}/{run.attempt}".encode()).hexdigest()
        return Task(
            trainer=self._trainers[run.kind],
            run_id=run.run_id,
            model=run.subject,
            version=f"{now:%Y%m%d-%H%M%S}-{digest[:6]}",
            created_at=now.isoformat(timespec="milliseconds"),
            partition_date=date.fromisoformat(run.partition_date),
            lake=self._config.lake,
            olap=self._config.olap,
            models=self._config.models,
            resources=control_plane_service_pb2.ApplyResponse(resources=self._feed.current.resources).SerializeToString(),
        )


async def run_attempt(task: Task, log: Callable[[str], None]) -> dict[str, Any]:
    """Trains in a process of its own, which is killed if this is cancelled.

    Raises:
        ArterialError: INTERNAL with the trainer's reason.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chassis.learning.attempt",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES * 16,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(task.model_dump_json().encode() + b"\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            # One that ended before it read says so by its status.
            await process.stdin.drain()
        error = ""
        async for line in _lines(process.stdout):
            message = _message(line)
            if "result" in message:
                return dict(message["result"])
            if "error" in message:
                error = str(message["error"])
            else:
                log(str(message["log"])[:MAX_LINE_BYTES])
        status = await process.wait()
        raise ArterialError(Reason.INTERNAL, error or f"the training process ended with status {status} and no word")
    finally:
        if process.returncode is None:
            # A process that has told its result has nothing left to do.
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _lines(printed: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines as they come; what is longer than the reader's limit, such as a bar of progress that never ends its line, is left out."""
    while True:
        try:
            line = await printed.readline()
        except ValueError:
            line = b"(a line that was too long was left out)"
        if not line:
            return
        yield line


def _message(line: bytes) -> dict[str, Any]:
    """A line of the attempt; what a library prints is a line of log."""
    with suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict) and message.keys() & {"log", "result", "error"}:
            return message
    return {"log": line.decode("utf-8", "replace").rstrip()}


def _registration(task: Task, result: Mapping[str, Any]) -> model_service_pb2.RegisterVersionRequest:
    return model_service_pb2.RegisterVersionRequest(
        version=model_service_pb2.ModelVersion(
            model=task.model,
            version=task.version,
            path=result["path"],
            sha256=result["sha256"],
            metrics=result["metrics"],
            snapshots=[model_service_pb2.TableSnapshot(**snapshot) for snapshot in result["snapshots"]],
            run_id=task.run_id,
        )
    )
