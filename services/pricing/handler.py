"""The RPCs of pricing: check, read the online store, convert."""

from collections.abc import Callable
from typing import Any, Protocol

import grpc
import numpy as np
from h3.api import basic_int
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1 import pricing_service_pb2 as pb
from arterial.api.pricing.v1 import pricing_service_pb2_grpc
from arterial.api.types.v1 import money_pb2, page_pb2, standing_pb2
from chassis.clock import Clock
from chassis.desired import Desired
from chassis.errors import ArterialError, Reason, Violation
from chassis.learning.serving import ServedModel
from chassis.paging import next_token, page_bounds
from chassis.streaming.online import City, Head, RecentCities, standing
from chassis.streaming.windows import coarsen
from services.pricing.policy import fare_table, surge_policy
from services.pricing.quotes import base_minor, fare_of, with_surge
from services.pricing.store import SurgeStore, Value
from services.pricing.surge import ONE_MILLI

PARTIALS = "pricing_partials_v1"
SECONDS_PER_HOUR = 3600
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class Demand(Protocol):
    """A model of demand."""

    def knows(self, city_id: int, cell: int) -> bool:
        """Whether it has seen requests there."""

    def predict(self, cells: NDArray[np.int64], hours: NDArray[np.int64]) -> NDArray[np.float64]:
        """Requests expected in cells and hours (since 1970); shape (n,). Runs in any thread."""


class PricingHandler(pricing_service_pb2_grpc.PricingServiceServicer):
    """Serves PricingService."""

    def __init__(self, store: SurgeStore, demand: ServedModel[Demand], desired: Callable[[], Desired], clock: Clock) -> None:
        self._cities = RecentCities(store)
        self._demand = demand
        self._desired = desired
        self._clock = clock

    async def GetSurge(self, request: pb.GetSurgeRequest, context: ServicerContext) -> pb.GetSurgeResponse:
        """Surge of a cell or its parent."""
        cell = self._cell(request.cell)
        return pb.GetSurgeResponse(surge=self._of(request.city_id, cell, await self._cities.get(request.city_id)))

    async def ListCitySurge(self, request: pb.ListCitySurgeRequest, context: ServicerContext) -> pb.ListCitySurgeResponse:
        """Surge of a city's cells, highest first."""
        name = f"surge/{request.city_id}"
        start, end = page_bounds(request.page.page_size, request.page.page_token, name)
        city = await self._cities.get(request.city_id)
        values = city.cells()
        values.sort(key=lambda value: (-value.multiplier_milli, -value.demand_milli, value.cell))
        page = page_pb2.PageResponse(next_page_token=next_token(end, len(values), name))
        return pb.ListCitySurgeResponse(
            surges=[self._surge(request.city_id, value.cell, city.head, value) for value in values[start:end]], page=page
        )

    async def Quote(self, request: pb.QuoteRequest, context: ServicerContext) -> pb.QuoteResponse:
        """Fare of the product times surge of the pickup's cell."""
        policy = self._policy()
        fare = fare_of(fare_table(self._desired()), request.product)
        cell = basic_int.latlng_to_cell(request.pickup.latitude, request.pickup.longitude, policy.cell_resolution)
        surge = self._of(request.city_id, cell, await self._cities.get(request.city_id))
        base = base_minor(fare, request.distance_m, request.duration_seconds)
        # A stale multiplier is shown but not charged.
        applied = ONE_MILLI if surge.standing.stale else surge.multiplier_milli
        return pb.QuoteResponse(
            base_price=money_pb2.Money(amount_minor=base, currency_code=fare.currency_code),
            price=money_pb2.Money(amount_minor=with_surge(base, applied), currency_code=fare.currency_code),
            surge=surge,
        )

    async def ForecastDemand(self, request: pb.ForecastDemandRequest, context: ServicerContext) -> pb.ForecastDemandResponse:
        """What the live model expects, if it knows the cell."""
        cell, now, live = self._cell(request.cell), self._clock.now(), self._demand.live
        hour = int(request.hour.seconds if request.HasField("hour") else now) // SECONDS_PER_HOUR
        response = pb.ForecastDemandResponse(cell=cell, standing=standing_pb2.Standing(source=standing_pb2.VALUE_SOURCE_NONE))
        response.hour.FromSeconds(hour * SECONDS_PER_HOUR)
        if live is None or not live.model.knows(request.city_id, cell):
            return response
        cells, hours = np.array([cell], np.int64), np.array([hour], np.int64)
        expected = live.model.predict(cells, hours)
        self._demand.compare(expected, lambda shadow: shadow.predict(cells, hours))
        response.requests_milli, response.model_version = round(1000 * float(expected[0])), live.version
        response.standing.source = standing_pb2.VALUE_SOURCE_MODEL_ESTIMATE
        response.standing.computed_at.FromMicroseconds(int(now * 1e6))
        response.standing.position.source = f"model/demand@{live.version}"
        return response

    def _policy(self) -> specs_pb2.PricingPolicySpec:
        return surge_policy(self._desired())

    def _cell(self, asked: int) -> int:
        """The cell of the policy's resolution. Raises INVALID_REQUEST."""
        cell = int(coarsen(np.array([asked], np.int64), self._policy().cell_resolution)[0])
        if cell == 0 or not basic_int.is_valid_cell(asked):
            why = f"not an H3 cell of resolution {self._policy().cell_resolution} or finer"
            raise ArterialError(Reason.INVALID_REQUEST, why, violations=[Violation("cell", why)])
        return cell

    def _of(self, city_id: int, cell: int, city: City[Value]) -> pb.Surge:
        return self._surge(city_id, cell, city.head, city.cell(cell))

    def _surge(self, city_id: int, cell: int, head: Head | None, value: Value | None) -> pb.Surge:
        now, max_age = self._clock.now(), self._policy().max_age_seconds
        found = standing(head, known=value is not None, partials=PARTIALS, max_age_seconds=max_age, now=now)
        surge = pb.Surge(city_id=city_id, cell=cell, multiplier_milli=ONE_MILLI, standing=found)
        if head is not None and head.kafka_us:
            surge.oldest_input_time.FromMicroseconds(head.kafka_us)
        if value is not None:
            surge.multiplier_milli = value.multiplier_milli
            surge.demand_milli, surge.supply_milli = value.demand_milli, value.supply_milli
        return surge
