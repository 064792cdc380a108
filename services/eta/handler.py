"""The RPCs of eta: check, read the online store, ask the model, convert."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import grpc
import numpy as np

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.eta.v1alpha1 import eta_service_pb2 as pb
from arterial.api.eta.v1alpha1 import eta_service_pb2_grpc
from arterial.api.types.v1 import page_pb2, standing_pb2
from chassis.clock import Clock
from chassis.errors import ArterialError, Reason
from chassis.learning.serving import ServedModel
from chassis.logs import logger
from chassis.paging import next_token, page_bounds
from chassis.streaming.online import City, RecentCities, standing
from services.eta.answers import INTERVALS, MEDIAN, Answers, Live, answers
from services.eta.legs import Floats, Legs
from services.eta.store import SpeedStore, Value

PARTIALS = "eta_partials_v1"
# More legs than this take longer than the loop may be held: they go to a thread.
MAX_INLINE = 16
ServicerContext = grpc.aio.ServicerContext[Any, Any]
_log = logger(__name__)


class TravelTimes(Protocol):
    """A model of travel times."""

    def predict(self, legs: Legs) -> Floats:
        """QUANTILES of travel time in seconds; shape (n, 7). Runs in any thread."""


class EtaHandler(eta_service_pb2_grpc.EtaServiceServicer):
    """Serves EtaService."""

    def __init__(
        self, store: SpeedStore, model: ServedModel[TravelTimes], policy: Callable[[], specs_pb2.EtaPolicySpec], clock: Clock
    ) -> None:
        self._cities = RecentCities(store)
        self._model = model
        self._policy = policy
        self._clock = clock

    async def GetEta(self, request: pb.GetEtaRequest, context: ServicerContext) -> pb.GetEtaResponse:
        """One leg."""
        return pb.GetEtaResponse(eta=(await self._etas(request.city_id, [request.leg]))[0])

    async def ListEtas(self, request: pb.ListEtasRequest, context: ServicerContext) -> pb.ListEtasResponse:
        """Many legs, in their order."""
        return pb.ListEtasResponse(etas=await self._etas(request.city_id, request.legs))

    async def ListLiveSpeeds(self, request: pb.ListLiveSpeedsRequest, context: ServicerContext) -> pb.ListLiveSpeedsResponse:
        """Live speeds of a city, slowest first."""
        name = f"speed/{request.city_id}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        city = await self._cities.get(request.city_id)
        values = sorted(city.cells(), key=lambda value: (-value.ratio_milli, value.cell))
        found = self._standing(city, known=True)
        page = page_pb2.PageResponse(next_page_token=next_token(end, len(values), name))
        return pb.ListLiveSpeedsResponse(speeds=[_speed(request.city_id, value, found) for value in values[start:end]], page=page)

    async def _etas(self, city_id: int, requested: Sequence[pb.Leg]) -> list[pb.Eta]:
        now = self._clock.now()
        city = await self._city(city_id)
        legs = _legs(city_id, requested, now)
        served = self._model.live
        version, model = (served.version, served.model) if served is not None else ("", None)
        work = partial(_answer, legs, model, city, self._policy(), now)
        predicted, found = work() if len(legs) <= MAX_INLINE else await asyncio.to_thread(work)
        if predicted is not None:
            self._model.compare(predicted[:, MEDIAN], lambda shadow: shadow.predict(legs)[:, MEDIAN])
        return self._converted(legs, found, version, city)

    async def _city(self, city_id: int) -> City[Value]:
        """What is live; a store that is away takes only what is live out of the answer."""
        try:
            return await self._cities.get(city_id)
        except ArterialError as error:
            if error.reason is not Reason.DEPENDENCY_UNAVAILABLE:
                raise
            _log.warning("answering without live speeds", city=city_id, reason=error.message)
            return City({}, Value)

    def _converted(self, legs: Legs, found: Answers, version: str, city: City[Value]) -> list[pb.Eta]:
        """A standing is the same for all legs with the same inputs."""
        standings = {(model, live): self._standing_of(city, version, model, live) for model in (False, True) for live in (False, True)}
        columns = (found.quantiles, legs.distance_m(), found.live_ratio_milli, found.of_model, found.of_live)
        return [
            pb.Eta(
                seconds=row[MEDIAN],
                intervals=[
                    pb.EtaInterval(coverage_percent=share, low_seconds=row[low], high_seconds=row[high]) for share, low, high in INTERVALS
                ],
                distance_m=metres,
                live_ratio_milli=ratio,
                model_version=version if model else "",
                standing=standings[model, live],
            )
            for row, metres, ratio, model, live in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def _standing_of(self, city: City[Value], version: str, model: bool, live: bool) -> standing_pb2.Standing:
        """Live if live speeds went in (last good if they are old), else the model's estimate; without a model always the rule's."""
        found = self._standing(city if live else None, known=live)
        if not live:
            found.computed_at.FromMicroseconds(int(self._clock.now() * 1e6))
            found.source = standing_pb2.VALUE_SOURCE_MODEL_ESTIMATE
            found.position.source = f"model/eta@{version}"
        if not model:
            found.source = standing_pb2.VALUE_SOURCE_RULE_FALLBACK
            if not live:
                found.position.source = "EtaPolicy/eta"
        return found

    def _standing(self, city: City[Value] | None, *, known: bool) -> standing_pb2.Standing:
        max_age, now = self._policy().max_age_seconds, self._clock.now()
        return standing(city.head if city else None, known=known, partials=PARTIALS, max_age_seconds=max_age, now=now)


def _legs(city_id: int, requested: Sequence[pb.Leg], now: float) -> Legs:
    origins = [(leg.origin.latitude, leg.origin.longitude) for leg in requested]
    destinations = [(leg.destination.latitude, leg.destination.longitude) for leg in requested]
    departures = [
        leg.departure_time.seconds + leg.departure_time.nanos / 1e9 if leg.HasField("departure_time") else now for leg in requested
    ]
    return Legs(city_id, np.array(origins, np.float64), np.array(destinations, np.float64), np.array(departures, np.float64))


def _answer(
    legs: Legs, model: TravelTimes | None, city: City[Value], policy: specs_pb2.EtaPolicySpec, now: float
) -> tuple[Floats | None, Answers]:
    """What the model said, and the answers; a model that fails is as good as none."""
    predicted: Floats | None = None
    if model is not None:
        try:
            predicted = model.predict(legs)
        except Exception:
            _log.exception("the model failed, the rule answers", legs=len(legs))
    age = 0.0 if city.head is None else max(now - city.head.watermark_us / 1e6, 0.0)
    cells = legs.cells(policy.cell_resolution)
    known = {cell: city.cell(cell) for cell in np.unique(cells).tolist()}
    table = {cell: (value.ratio_milli, value.observations) for cell, value in known.items() if value is not None}
    looked_up = np.array([table.get(cell, (0, 0)) for cell in cells.ravel().tolist()], np.int64).reshape(*cells.shape, 2)
    return predicted, answers(legs, predicted, Live(looked_up[..., 0], looked_up[..., 1], age), policy=policy, now=now)


def _speed(city_id: int, value: Value, found: standing_pb2.Standing) -> pb.LiveSpeed:
    return pb.LiveSpeed(
        city_id=city_id,
        cell=value.cell,
        ratio_milli=value.ratio_milli,
        speed_mmps=value.speed_mmps,
        observations=value.observations,
        standing=found,
    )
