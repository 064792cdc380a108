"""Quotes: what a product costs before and with surge. Integer arithmetic."""

from arterial.api.controlplane.v1 import specs_pb2
from chassis.errors import ArterialError, Reason


def fare_of(table: specs_pb2.FareTableSpec, product: str) -> specs_pb2.Fare:
    """The fare of a product. Raises NOT_FOUND."""
    for fare in table.fares:
        if fare.product == product:
            return fare
    raise ArterialError(Reason.NOT_FOUND, f"product {product} has no fare; there are {', '.join(fare.product for fare in table.fares)}")


def base_minor(fare: specs_pb2.Fare, distance_m: int, duration_seconds: int) -> int:
    """Price before surge, minor units, rounded half up."""
    metered = fare.base_minor + (fare.per_km_minor * distance_m + 500) // 1000 + (fare.per_minute_minor * duration_seconds + 30) // 60
    return int(max(metered, fare.minimum_minor))


def with_surge(minor: int, multiplier_milli: int) -> int:
    """Price with surge, minor units, rounded half up."""
    return (minor * multiplier_milli + 500) // 1000
