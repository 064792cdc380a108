"""The RPCs of ingestion: check, call the domain, convert."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from arterial.api.ingestion.v1 import ingestion_service_pb2_grpc
from arterial.api.types.v1 import page_pb2
from arterial.producers import PRODUCER, producer_name
from chassis.clock import Clock
from chassis.desired import DesiredFeed
from chassis.paging import next_token, page_bounds
from services.ingestion import status
from services.ingestion.audit import audit
from services.ingestion.config import IngestionConfig
from services.ingestion.followers import follower_versions
from services.ingestion.producers import Producers
from services.ingestion.publish import Acknowledged, Publisher

# Frames of one stream that may wait for their acknowledgement: beyond it the stream is not read, which slows the caller down.
MAX_FRAMES_IN_FLIGHT = 256
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class IngestionHandler(ingestion_service_pb2_grpc.IngestionServiceServicer):
    """Serves IngestionService."""

    def __init__(self, config: IngestionConfig, feed: DesiredFeed, publisher: Publisher, producers: Producers, clock: Clock) -> None:
        self._config = config
        self._feed = feed
        self._publisher = publisher
        self._producers = producers
        self._clock = clock

    async def Publish(self, requests: AsyncIterator[pb.PublishRequest], context: ServicerContext) -> AsyncIterator[pb.PublishResponse]:
        """Frames are published side by side and answered in their order."""
        frames: asyncio.Queue[tuple[pb.PublishRequest, asyncio.Task[Acknowledged]] | None] = asyncio.Queue(MAX_FRAMES_IN_FLIGHT)
        producer = _producer(context)
        reading = asyncio.create_task(self._read(requests, frames))
        try:
            while (frame := await frames.get()) is not None:
                done = await frame[1]
                if len(done.rejected) < len(done.offsets):
                    self._producers.wrote(producer, frame[0].topic)
                yield _published(frame[0], done)
            await reading
        finally:
            reading.cancel()

    async def _read(
        self,
        requests: AsyncIterator[pb.PublishRequest],
        frames: "asyncio.Queue[tuple[pb.PublishRequest, asyncio.Task[Acknowledged]] | None]",
    ) -> None:
        try:
            async for request in requests:
                publishing = asyncio.create_task(self._publisher.publish(request.topic, request.records, request.schema_id))
                await frames.put((request, publishing))
        finally:
            await frames.put(None)

    async def GetPipelineStatus(self, request: pb.GetPipelineStatusRequest, context: ServicerContext) -> pb.GetPipelineStatusResponse:
        """Progress of every partition."""
        topics = status.topics_of(self._feed.current, request.topic)
        rows, followers = await asyncio.gather(status.progress(self._config, topics), follower_versions(self._config, topics))
        return pb.GetPipelineStatusResponse(
            pipelines=[
                pb.PipelineStatus(
                    source=row.topic.name,
                    incarnation=row.topic.incarnation,
                    partition=row.partition,
                    table=f"lake/raw/{row.topic.name}",
                    raw_end_offset=row.raw_end,
                    raw_version=row.raw_version,
                    curated_version=followers[row.topic.name].curated,
                    live_version=followers[row.topic.name].live,
                )
                for row in rows
            ]
        )

    async def ListLag(self, request: pb.ListLagRequest, context: ServicerContext) -> pb.ListLagResponse:
        """Lag of every partition, a page at a time."""
        start, end = page_bounds(request.page.page_size, request.page.page_token, "lag")
        rows = await status.lag(self._config, status.topics_of(self._feed.current, request.topic))
        now = self._clock.now()
        lags = [
            pb.Lag(
                topic=row.topic.name,
                partition=row.partition,
                kafka_end_offset=kafka_end,
                raw_end_offset=row.raw_end,
                lag_offsets=max(0, kafka_end - row.raw_end),
                age_seconds=status.age_seconds(row.newest, now),
            )
            for row, kafka_end in rows[start:end]
        ]
        return pb.ListLagResponse(lags=lags, page=page_pb2.PageResponse(next_page_token=next_token(end, len(rows), "lag")))

    async def Audit(self, requests: AsyncIterator[pb.AuditRequest], context: ServicerContext) -> pb.AuditResponse:
        """Compares Kafka, raw, curated and OLAP."""
        return await audit(self._config, self._feed.current, requests)

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: ServicerContext) -> pb.ListDeadLettersResponse:
        """Dead letters, a page at a time."""
        start, end = page_bounds(request.page.page_size, request.page.page_token, "dead_letters")
        topics = status.topics_of(self._feed.current, "")
        rows = await asyncio.to_thread(status.dead_letters, self._config, topics, request.source)
        page = page_pb2.PageResponse(next_page_token=next_token(end, len(rows), "dead_letters"))
        return pb.ListDeadLettersResponse(dead_letters=[dead_letter(row) for row in rows[start:end]], page=page)


def _producer(context: ServicerContext) -> str:
    """Who publishes, as the caller says; "" for nobody by name. Raises INVALID_REQUEST for what is no name."""
    named = dict(context.invocation_metadata() or ()).get(PRODUCER)
    return producer_name(named if isinstance(named, str) else named.decode("ascii", "replace")) if named is not None else ""


def _published(request: pb.PublishRequest, done: Acknowledged) -> pb.PublishResponse:
    return pb.PublishResponse(
        frame_id=request.frame_id,
        topic=request.topic,
        partitions=done.partitions,
        offsets=done.offsets,
        rejected=[pb.RejectedRecord(index=dead.index, reason=dead.reason, message=dead.message) for dead in done.rejected],
    )


def dead_letter(row: dict[str, Any]) -> pb.DeadLetter:
    """A dead row as the contract has it."""
    reason, _, message = row["_error"].partition(": ")
    letter = pb.DeadLetter(
        source=row["_topic"],
        incarnation=row["_incarnation"],
        partition=row["_partition"],
        offset=row["_offset"],
        reason=reason,
        message=message,
        key=row["_key"],
        value=row["_value"],
        headers=[pb.Header(name=header["name"], value=header["value"]) for header in row["_headers"] or []],
    )
    letter.kafka_time.FromDatetime(row["_kafka_time"])
    return letter
