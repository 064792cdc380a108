"""Pricing."""

from arterial.api.pricing.v1 import pricing_service_pb2 as pricing
from arterial.api.types.v1 import position_pb2
from tests.contract.case import BAD_PAGE, Case

CELL = 0x882A100D2DFFFFF


CASES = {
    "PricingService/GetSurge": Case(
        pricing.GetSurgeRequest(city_id=1, cell=CELL), pricing.GetSurgeRequest(city_id=0, cell=CELL), "city_id"
    ),
    "PricingService/ListCitySurge": Case(
        pricing.ListCitySurgeRequest(city_id=1), pricing.ListCitySurgeRequest(city_id=1, page=BAD_PAGE), "page.page_size"
    ),
    "PricingService/ForecastDemand": Case(
        pricing.ForecastDemandRequest(city_id=1, cell=CELL), pricing.ForecastDemandRequest(city_id=1, cell=0), "cell"
    ),
    "PricingService/Quote": Case(
        pricing.QuoteRequest(
            city_id=1,
            product="standard",
            pickup=position_pb2.Position(latitude=40.75, longitude=-73.98),
            distance_m=3000,
            duration_seconds=600,
        ),
        pricing.QuoteRequest(city_id=1, product="standard", pickup=position_pb2.Position(latitude=140.0, longitude=-73.98)),
        "pickup",
    ),
}
