"""The RPCs of BackupService."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc

from arterial.api.controlplane.v1alpha1 import backup_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import backup_service_pb2_grpc
from services.controlplane.backup.backup_store import BackupStore

ServicerContext = grpc.aio.ServicerContext[Any, Any]
# Pieces of the file that wait for a slow client: the snapshot waits with them.
MAX_WAITING = 4


class BackupHandler(backup_service_pb2_grpc.BackupServiceServicer):
    """Serves BackupService."""

    def __init__(self, store: BackupStore, prepare: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        # What a start does to what an earlier version left.
        self._prepare = prepare

    async def Backup(self, request: pb.BackupRequest, context: ServicerContext) -> AsyncIterator[pb.BackupResponse]:
        """The file, piece by piece."""
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)

        async def back_up() -> None:
            try:
                await self._store.back_up(waiting.put, request.compression_level or 1)
            finally:
                await waiting.put(None)

        task = asyncio.create_task(back_up())
        try:
            while (data := await waiting.get()) is not None:
                yield pb.BackupResponse(data=data)
            await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def Restore(self, request_iterator: AsyncIterator[pb.RestoreRequest], context: ServicerContext) -> pb.RestoreResponse:
        """Nothing is touched before the whole file is here and found good."""
        with tempfile.TemporaryFile() as file:
            async for request in request_iterator:
                await asyncio.to_thread(file.write, request.data)
            rows, revision = await self._store.restore(file)
        await self._prepare()
        return pb.RestoreResponse(rows=rows, revision=revision)
