"""A small client: publishing as a pipelined stream, surge, and times of arrival."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import grpc

from arterial.api.eta.v1alpha1 import eta_service_pb2, eta_service_pb2_grpc
from arterial.api.ingestion.v1 import ingestion_service_pb2, ingestion_service_pb2_grpc
from arterial.api.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc
from arterial.api.types.v1 import page_pb2, position_pb2
from arterial.channel import Channel, connect
from arterial.errors import ArterialError, Reason
from arterial.producers import PRODUCER, producer_name

# Frames on their way at a time: more only fills memory, the server answers in order.
MAX_FRAMES_IN_FLIGHT = 64


class Publisher:
    """A stream of frames. Use it as a context manager; one per event loop.

    `producer` names the program that publishes, for lineage: who would feel a change of the topic's schema. Raises INVALID_REQUEST for what
    is no name.
    """

    def __init__(self, channel: Channel, producer: str = "") -> None:
        self._metadata = ((PRODUCER, producer_name(producer)),) if producer else ()
        self._stub = ingestion_service_pb2_grpc.IngestionServiceStub(channel)
        self._frames: asyncio.Queue[ingestion_service_pb2.PublishRequest | None] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[ingestion_service_pb2.PublishResponse]] = {}
        self._slots = asyncio.Semaphore(MAX_FRAMES_IN_FLIGHT)
        self._next = 0
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Publisher":
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._frames.put(None)
        if self._reading is not None:
            with suppress(ArterialError):
                await self._reading

    async def publish(self, topic: str, records: Sequence[bytes], schema_id: int = 0) -> ingestion_service_pb2.PublishResponse:
        """Publishes serialised events as one frame; returns partition and offset of each, once all replicas have them.

        Raises:
            ArterialError: the stream ended; whether the frame was taken is not known: publish it again, repeats are dropped by id.
        """
        async with self._slots:
            if self._reading is None or self._reading.done():
                raise ArterialError(Reason.DEPENDENCY_UNAVAILABLE, "the stream has ended")
            self._next += 1
            answered = self._waiting[self._next] = asyncio.get_running_loop().create_future()
            await self._frames.put(
                ingestion_service_pb2.PublishRequest(frame_id=self._next, topic=topic, records=records, schema_id=schema_id)
            )
            response: ingestion_service_pb2.PublishResponse = await answered
            return response

    async def _requests(self) -> AsyncIterator[ingestion_service_pb2.PublishRequest]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    async def _read(self) -> None:
        error = ArterialError(Reason.DEPENDENCY_UNAVAILABLE, "the stream has ended")
        try:
            async for response in self._stub.Publish(self._requests(), metadata=self._metadata):
                self._waiting.pop(response.frame_id).set_result(response)
        except ArterialError as cause:
            error = cause
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(error)
            self._waiting.clear()


class Client:
    """Calls the services at the given host:port addresses; plain text only without credentials."""

    def __init__(
        self,
        *,
        ingestion: str | None = None,
        pricing: str | None = None,
        eta: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._channels = {
            name: connect(address, credentials=credentials)
            for name, address in (("ingestion", ingestion), ("pricing", pricing), ("eta", eta))
            if address is not None
        }

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    def channel(self, name: str) -> Channel:
        """The channel to a service, for its generated stub. Raises REFUSED if its address was not given."""
        if name not in self._channels:
            raise ArterialError(Reason.REFUSED, f"this client was given no address of {name}")
        return self._channels[name]

    def publisher(self, producer: str = "") -> Publisher:
        """A stream to publish on, under the name of the program that does."""
        return Publisher(self.channel("ingestion"), producer)

    async def get_surge(self, city_id: int, cell: int) -> pricing_service_pb2.GetSurgeResponse:
        """Surge of an H3 cell."""
        request = pricing_service_pb2.GetSurgeRequest(city_id=city_id, cell=cell)
        return await pricing_service_pb2_grpc.PricingServiceStub(self.channel("pricing")).GetSurge(request, timeout=0.5)

    async def list_city_surge(self, city_id: int) -> list[pricing_service_pb2.Surge]:
        """Surge of all cells of a city, highest first."""
        stub = pricing_service_pb2_grpc.PricingServiceStub(self.channel("pricing"))
        found: list[pricing_service_pb2.Surge] = []
        page = page_pb2.PageRequest(page_size=1000)
        while True:
            reply = await stub.ListCitySurge(pricing_service_pb2.ListCitySurgeRequest(city_id=city_id, page=page), timeout=2)
            found += reply.surges
            if not reply.page.next_page_token:
                return found
            page = page_pb2.PageRequest(page_size=1000, page_token=reply.page.next_page_token)

    async def forecast_demand(self, city_id: int, cell: int) -> pricing_service_pb2.ForecastDemandResponse:
        """Requests expected in an H3 cell within the current hour."""
        request = pricing_service_pb2.ForecastDemandRequest(city_id=city_id, cell=cell)
        return await pricing_service_pb2_grpc.PricingServiceStub(self.channel("pricing")).ForecastDemand(request, timeout=0.5)

    async def quote(
        self, city_id: int, product: str, pickup: tuple[float, float], *, distance_m: int, duration_seconds: int
    ) -> pricing_service_pb2.QuoteResponse:
        """Price of a trip from a pickup (latitude, longitude in degrees)."""
        position = position_pb2.Position(latitude=pickup[0], longitude=pickup[1])
        request = pricing_service_pb2.QuoteRequest(
            city_id=city_id, product=product, pickup=position, distance_m=distance_m, duration_seconds=duration_seconds
        )
        return await pricing_service_pb2_grpc.PricingServiceStub(self.channel("pricing")).Quote(request, timeout=0.5)

    async def get_eta(self, city_id: int, origin: tuple[float, float], destination: tuple[float, float]) -> eta_service_pb2.Eta:
        """Travel time between two positions (latitude, longitude in degrees), departing now."""
        ends = [position_pb2.Position(latitude=latitude, longitude=longitude) for latitude, longitude in (origin, destination)]
        request = eta_service_pb2.GetEtaRequest(city_id=city_id, leg=eta_service_pb2.Leg(origin=ends[0], destination=ends[1]))
        reply = await eta_service_pb2_grpc.EtaServiceStub(self.channel("eta")).GetEta(request, timeout=0.5)
        return reply.eta
