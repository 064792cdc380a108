"""Events for tests."""

import os
import time

from arterial.api.events.v1.trip_event_pb2 import TripEvent


def trip_event(
    trip: str = "trip-1", sequence: int = 1, *, city_id: int = 1, status: TripEvent.Status.ValueType = TripEvent.STATUS_REQUESTED
) -> TripEvent:
    """A trip event of now, with every usual field."""
    event = TripEvent(
        event_id=os.urandom(16),
        region="us-east",
        city_id=city_id,
        sequence=sequence,
        producer="test",
        producer_version="1",
        trip_id=trip,
        rider_id=f"rider-{trip}",
        driver_id="driver-1",
        status=status,
        product="standard",
        pickup_cell=0x892A100D2DFFFFF,
        route_id="route-1",
        promised_eta_seconds=300,
        distance_m=1200,
        duration_seconds=600,
    )
    now = int(time.time() * 1e6)
    for field in (event.event_time, event.trip_requested_at, event.pickup_time):
        field.FromMicroseconds(now)
    event.pickup_position.latitude, event.pickup_position.longitude = 40.75, -73.98
    event.fare.amount_minor, event.fare.currency_code = 1250, "USD"
    return event


def ledger_entry(event: TripEvent) -> bytes:
    """The event as an audit's ledger has it: event_id, then event_time in big-endian microseconds."""
    return event.event_id + event.event_time.ToMicroseconds().to_bytes(8, "big")
