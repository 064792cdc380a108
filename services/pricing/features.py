"""From events to counts: the feature set of surge. Pure arithmetic on columns."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arterial.api.events.v1.marketplace_event_pb2 import MarketplaceEvent
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.streaming.measures import CellSource, Measure

FEATURE_SET_VERSION = 1
# Measures, by index. Online and offline events of drivers mean nothing here: availability is told by heartbeats.
SESSION, QUOTE, REQUEST, AVAILABLE, COMPLETED, CANCELLED = range(6)
MEASURES = 6


def equal(value: int) -> Callable[..., NDArray[np.int64]]:
    """Counts 1 for every event whose one column has the value."""

    def amounts(_: Any, column: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(column == value, 1, -1)

    return amounts


SOURCES = (
    CellSource(
        "marketplace_events_v1",
        "cell",
        (
            Measure(SESSION, ("kind",), equal(MarketplaceEvent.KIND_SESSION_OPENED)),
            Measure(QUOTE, ("kind",), equal(MarketplaceEvent.KIND_QUOTE_SHOWN)),
            Measure(REQUEST, ("kind",), equal(MarketplaceEvent.KIND_REQUEST)),
            Measure(AVAILABLE, ("kind",), equal(MarketplaceEvent.KIND_DRIVER_AVAILABLE)),
        ),
    ),
    CellSource(
        "trip_events_v2",
        "pickup_cell",
        (
            Measure(COMPLETED, ("status",), equal(TripEvent.STATUS_COMPLETED)),
            Measure(CANCELLED, ("status",), equal(TripEvent.STATUS_CANCELLED)),
        ),
    ),
)
