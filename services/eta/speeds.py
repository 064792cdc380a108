"""Live speeds: from pings and completed trips to sums, and from sums to speed and travel-time ratio. Integers on columns.

A moving driver's ping stands for one second of driving at its speed; the mean over pings at even intervals is distance by time, stops
included. A completed trip stands for all of its seconds, but tells of the minutes before, so it counts only where pings are few.

    seconds = pings + trip seconds          distance = sum of speeds + trip metres
    speed   = distance / seconds            ratio    = reference speed / speed, held within [1 / cap, cap]

The ratio of travel times to a reference is the travel time index of traffic engineering (FHWA, "Travel Time Reliability").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arterial.api.controlplane.v1 import specs_pb2
from arterial.api.events.v1.gps_ping_pb2 import GpsPing
from arterial.api.events.v1.trip_event_pb2 import TripEvent
from chassis.streaming.measures import CellSource, Measure

FEATURE_SET_VERSION = 1
# Measures, by index: millimetres per second, pings, seconds, metres.
SPEED, PINGS, TRIP_SECONDS, TRIP_METRES = range(4)
MEASURES = 4
ONE_MILLI = 1000
MOVING = (GpsPing.DRIVER_STATE_TO_PICKUP, GpsPing.DRIVER_STATE_ON_TRIP)
# Faster than any street allows (250 km/h), longer than any ride in a city: such values come from broken devices.
MAX_SPEED_MPS = 70.0
MAX_TRIP_SECONDS, MAX_TRIP_METRES = 6 * 3600, 300_000
Column = NDArray[Any]


def _moving(states: Column, speeds: Column) -> NDArray[np.bool_]:
    return np.isin(states, MOVING) & (speeds >= 0) & (speeds <= MAX_SPEED_MPS)


def _speed(_: Any, states: Column, speeds: Column) -> NDArray[np.int64]:
    moving = _moving(states, speeds)
    return np.where(moving, np.rint(np.where(moving, speeds, 0.0) * 1000), -1).astype(np.int64)


def _ping(_: Any, states: Column, speeds: Column) -> NDArray[np.int64]:
    return np.where(_moving(states, speeds), 1, -1)


def _driven(statuses: Column, seconds: Column, metres: Column) -> NDArray[np.bool_]:
    plausible = (seconds > 0) & (seconds <= MAX_TRIP_SECONDS) & (metres > 0) & (metres <= MAX_TRIP_METRES)
    return np.asarray((statuses == TripEvent.STATUS_COMPLETED) & plausible, bool)


def _seconds(_: Any, statuses: Column, seconds: Column, metres: Column) -> NDArray[np.int64]:
    return np.where(_driven(statuses, seconds, metres), seconds, -1)


def _metres(_: Any, statuses: Column, seconds: Column, metres: Column) -> NDArray[np.int64]:
    return np.where(_driven(statuses, seconds, metres), metres, -1)


_OF_PING = ("driver_state", "speed_mps")
_OF_TRIP = ("status", "duration_seconds", "distance_m")
SOURCES = (
    CellSource("gps_pings_v1", "cell", (Measure(SPEED, _OF_PING, _speed), Measure(PINGS, _OF_PING, _ping))),
    CellSource("trip_events_v2", "pickup_cell", (Measure(TRIP_SECONDS, _OF_TRIP, _seconds), Measure(TRIP_METRES, _OF_TRIP, _metres))),
)


@dataclass(frozen=True)
class Speeds:
    """Per cell, shape (n,) each; what is not `known` is 0."""

    known: NDArray[np.bool_]
    ratio_milli: NDArray[np.int64]
    speed_mmps: NDArray[np.int64]
    observations: NDArray[np.int64]


def speeds(sums: NDArray[np.int64], policy: specs_pb2.EtaPolicySpec) -> Speeds:
    """Speeds of cells from their sums within the window, shape (n, measures)."""
    pings = sums[:, PINGS]
    few = pings < policy.min_observations
    seconds = pings + np.where(few, sums[:, TRIP_SECONDS], 0)
    distance_mm = sums[:, SPEED] + np.where(few, sums[:, TRIP_METRES] * 1000, 0)
    known = seconds >= policy.min_observations
    ratio = policy.reference_speed_mmps * seconds * ONE_MILLI // np.maximum(distance_mm, 1)
    held = np.clip(ratio, ONE_MILLI * ONE_MILLI // policy.ratio_cap_milli, policy.ratio_cap_milli)
    zero = np.zeros(len(sums), np.int64)
    return Speeds(
        known, np.where(known, held, zero), np.where(known, distance_mm // np.maximum(seconds, 1), zero), np.where(known, pings, zero)
    )
