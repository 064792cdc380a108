"""The RPCs of pricing: check, read the online store, convert."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from h3.api import basic_int

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.pricing.v1 import pricing_service_pb2 as pb
from arterial.api.pricing.v1 import pricing_service_pb2_grpc
from arterial.api.types.v1 import money_pb2, page_pb2
from chassis.clock import Clock
from chassis.errors import ArterialError, Reason, Violation
from chassis.paging import next_token, page_bounds
from chassis.streaming.online import City, Head, RecentCities, standing
from chassis.streaming.windows import coarsen
from services.pricing.quotes import base_minor, fare_of, with_surge
from services.pricing.store import SurgeStore, Value
from services.pricing.surge import ONE_MILLI

PARTIALS = "pricing_partials_v1"
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class PricingHandler(pricing_service_pb2_grpc.PricingServiceServicer):
    """Serves PricingService."""

    def __init__(self, store: SurgeStore, policy: Callable[[], specs_pb2.PricingPolicySpec], clock: Clock) -> None:
        self._cities = RecentCities(store)
        self._policy = policy
        self._clock = clock

    async def GetSurge(self, request: pb.GetSurgeRequest, context: ServicerContext) -> pb.GetSurgeResponse:
        """Surge of a cell or its parent."""
        cell = int(coarsen(np.array([request.cell], np.int64), self._policy().cell_resolution)[0])
        if cell == 0 or not basic_int.is_valid_cell(request.cell):
            why = f"not an H3 cell of resolution {self._policy().cell_resolution} or finer"
            raise ArterialError(Reason.INVALID_REQUEST, why, violations=[Violation("cell", why)])
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
        fare = fare_of(policy, request.product)
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
